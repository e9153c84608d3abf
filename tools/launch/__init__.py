"""Launches runs on clusters by shell scripts; --dry_run prints the script instead."""
