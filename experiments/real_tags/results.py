"""Reads and writes the results of the bench.

results.jsonl            a line per set, split, split seed, part, system and number of fits
clips/NAME.npz           values of each clip, NAME: set, split, split seed and part
test_openings.jsonl      every command that opened test: date, commit, command
"""

import datetime
import json
import pathlib
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from uhman_jax.run import source_revision
from uhman_jax.run_directory import write_npz
from uhman_jax.runtime.storage import atomic_write

FOLDER = pathlib.Path(__file__).parent / "results"
METRICS = ("P@10", "NDCG@10")
VALIDATION, TEST = "validation", "test"


class Cut(NamedTuple):
    """One part of one split of a set."""

    set: str
    split: str  # random, temporal or cold_user
    seed: int  # of the split
    part: str  # validation or test

    @property
    def file(self) -> str:
        """Returns the name of its file of values per clip."""
        return f"{self.set}-{self.split}-{self.seed}-{self.part}.npz"


class Results:
    """The results in a folder, which is created if it does not exist.

    A later line replaces an earlier one of the same cut, system and number of fits.
    """

    def __init__(self, folder: pathlib.Path = FOLDER):
        """Reads the lines."""
        self.folder = folder
        self._path = folder / "results.jsonl"
        (folder / "clips").mkdir(parents=True, exist_ok=True)
        lines = self._path.read_text("utf-8").splitlines() if self._path.exists() else []
        self._rows = {_key(row): row for row in map(json.loads, lines)}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Iterates over the lines."""
        return iter(self._rows.values())

    def has(self, cut: Cut, system: str, fits: int, setting: str) -> bool:
        """Returns whether there is a line of this setting."""
        row = self._rows.get((*cut, system, fits))
        return row is not None and row["setting"] == setting

    def add(
        self,
        cut: Cut,
        system: str,
        fits: int,
        values: Mapping[str, np.ndarray],
        clips: Mapping[str, np.ndarray],
        **more: Any,
    ) -> None:
        """Adds a line with the mean of each metric, and the values of each clip.

        Args:
            cut: the clips.
            system: name of the peer or system.
            fits: number of models whose mean score is ranked.
            values: value of each clip by metric.
            clips: facts about each clip, see `facts`.
            more: further entries of the line; "setting" identifies the settings.
        """
        stored = self.clips(cut)
        if stored and list(stored["video_ids"]) != list(clips["video_ids"]):
            stored = {}  # of another version of the set
        columns = {f"{metric}/{system}/{fits}": value for metric, value in values.items()}
        write_npz(self.folder / "clips" / cut.file, stored | dict(clips) | columns)
        row = cut._asdict() | {"system": system, "fits": fits}
        row |= {metric: round(float(value.mean()), 5) for metric, value in values.items()}
        row |= more
        self._rows[_key(row)] = row
        with atomic_write(self._path) as file:
            file.write("".join(json.dumps(row) + "\n" for row in self._rows.values()).encode())

    def clips(self, cut: Cut) -> dict[str, np.ndarray]:
        """Returns the arrays of a cut; empty if there are none.

        `video_ids`, `user_ids`, `is_cold` (no training clip of the user), `cosine` (the largest
        with a training clip) and "METRIC/SYSTEM/FITS".
        """
        path = self.folder / "clips" / cut.file
        if not path.exists():
            return {}
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)

    def log_opening(self) -> None:
        """Logs that this command opens test; folders before file names are left out."""
        flags = [re.sub(r"(?<==).*/(?=.)", "", flag.rstrip("/")) for flag in sys.argv[1:]]
        entry = {
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "commit": source_revision(),
            "command": shlex.join(["python", "-m", "experiments.real_tags", *flags]),
        }
        with (self.folder / "test_openings.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return (*(row[name] for name in Cut._fields), row["system"], row["fits"])
