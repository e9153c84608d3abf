"""Comparison of losses, scales and schedules for UHMAN; see README.md in this folder."""
