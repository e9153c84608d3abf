"""Exports a run as one folder that does not need this package.

programs.py  the model as functions of `jax.export`
folder.py    the files, written whole or not at all
card.py      the folder's README.md
load.py      reads the folder with jax and numpy; written into it with the modules it imports
"""
