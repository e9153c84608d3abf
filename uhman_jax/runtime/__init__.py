"""Handles files, streams, signals, locks, processes and the mesh of devices."""
