"""A comparison on real pictures with their artists' keywords; see README.md in this folder."""
