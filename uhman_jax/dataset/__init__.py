"""Reads and checks raw datasets, simulates them, and builds the views that training reads."""
