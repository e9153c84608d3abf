"""Exports a run as one folder that does not need this package.

programs.py  the model as functions of `jax.export`
folder.py    the files, written atomically
card.py      the folder's README.md
load.py      reads the folder with jax and numpy; copied into it with the modules it imports
"""
