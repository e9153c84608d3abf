"""Studies: code that runs them, and their committed results."""
