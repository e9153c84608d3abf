"""Which loss, scale and schedule train UHMAN; see README.md in this folder."""
