"""Serves a trained run as a web page: takes a clip and a profile, shows and explains hashtags."""
