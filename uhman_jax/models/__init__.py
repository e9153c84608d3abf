"""The systems: UHMAN, the baselines BL, UA and 3WM, and the layers that they share."""
