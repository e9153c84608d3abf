"""Which files of a folder are clips, by their names."""

import os
import pathlib
from collections.abc import Iterable

from uhman_jax.preprocess.find_videos import VIDEO_SUFFIXES

# Of several files with one name the first is taken; further suffixes follow by the alphabet.
_USUAL = "mp4 mkv webm mov m4v avi flv ts mpg mpeg wmv 3gp ogv".split()
_ONLY_NAMED = "gif"  # a clip if the metadata says so; otherwise a thumbnail
_OTHERS = sorted(VIDEO_SUFFIXES - {*_USUAL, _ONLY_NAMED})
_RANK = {suffix: rank for rank, suffix in enumerate((*_USUAL, *_OTHERS, _ONLY_NAMED))}


class ClipFiles:
    """The clips of one folder, by the name before the suffix; names without a suffix come last.

    Args:
        folder: where the files are.
        names: names of everything in it, from one listing.
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
        """Returns the name of a clip, "" if there is none.

        Only regular files count, and links to them.

        Args:
            stem: the name before the last dot.
            suffix: the preferred one, without a dot and in any case.
        """
        preferred = _RANK.get(suffix.lower())
        beside = self._names.get(stem, ())
        for rank, name in sorted(beside, key=lambda found: (found[0] != preferred, found)):
            usable = rank == preferred or rank != _RANK[_ONLY_NAMED]
            if usable and os.path.isfile(os.path.join(self._folder, name)):
                return name
        return ""
