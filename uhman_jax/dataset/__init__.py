"""The raw data: reading and checking it, simulating it, and the views that training reads."""
