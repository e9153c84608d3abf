"""A run as one folder that needs nothing of this package.

programs.py  the model as functions of `jax.export`
folder.py    the files, written whole or not at all
card.py      the folder's README.md
load.py      copied into the folder; reads it with jax and numpy
"""
