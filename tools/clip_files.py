"""Finds the clips among the files of a folder by their names."""

import os
import pathlib
from collections.abc import Iterable

from uhman_jax.preprocess.find_videos import VIDEO_SUFFIXES

# The order of preference for files that differ only in their suffix; other suffixes follow by name.
_USUAL = "mp4 mkv webm mov m4v avi flv ts mpg mpeg wmv 3gp ogv".split()
_ONLY_NAMED = "gif"  # a clip if the metadata names this suffix; otherwise a thumbnail
_OTHERS = sorted(VIDEO_SUFFIXES - {*_USUAL, _ONLY_NAMED})
_RANK = {suffix: rank for rank, suffix in enumerate((*_USUAL, *_OTHERS, _ONLY_NAMED))}


class ClipFiles:
    """The clips of one folder by stem, the name before the suffix; names without suffix come last.

    Args:
        folder: path of the folder.
        names: names of all its entries.
    """

    def __init__(self, folder: str | pathlib.Path, names: Iterable[str]):
        self._folder = folder
        self._names: dict[str, list[tuple[int, str]]] = {}
        for name in names:
            stem, dot, suffix = name.rpartition(".")
            rank = _RANK.get(suffix.lower()) if dot else len(_RANK)
            if rank is not None:
                self._names.setdefault(stem or name, []).append((rank, name))

    def find(self, stem: str, suffix: str = "") -> str:
        """Returns the name of the clip, a regular file or a link to one; "" if there is none.

        Args:
            stem: name before the last dot.
            suffix: the preferred suffix, without a dot and in any case.
        """
        preferred = _RANK.get(suffix.lower())
        found = self._names.get(stem, ())
        for rank, name in sorted(found, key=lambda pair: (pair[0] != preferred, pair)):
            usable = rank == preferred or rank != _RANK[_ONLY_NAMED]
            if usable and os.path.isfile(os.path.join(self._folder, name)):
                return name
        return ""
