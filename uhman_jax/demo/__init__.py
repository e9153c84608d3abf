"""A web page for a trained run: drop a clip, say who posts it, see hashtags and why."""
