"""Runs on engines: what a person would type is typed; --dry_run prints it and does nothing."""
