"""Reads and checks raw datasets, and builds the views that training reads."""
