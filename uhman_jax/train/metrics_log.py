"""Writes metrics.jsonl: one JSON object per validation, in step order."""

import json
import os
from typing import Any

from uhman_jax.run_directory import LOG, read_log
from uhman_jax.runtime import storage


class MetricsLog:
    """The metrics.jsonl of one run directory.

    Args:
        workdir: directory of the run.
        write: False: entries are kept in memory only.

    Attributes:
        write: whether the log is written.
        seconds: training time in the last entry; 0 before the first.
    """

    def __init__(self, workdir: str | os.PathLike[str], write: bool = True):
        self._path = storage.path(workdir) / LOG
        self.write = write
        self._lines: list[str] = []
        self.seconds = 0.0

    def truncate(self, step: int) -> None:
        """Drops the entries after a step, and the incomplete last line of a killed run.

        Raises:
            UserError: another line is damaged.
        """
        entries = [entry for entry in read_log(self._path.parent) if entry["step"] <= step]
        self.seconds = entries[-1].get("seconds", 0.0) if entries else 0.0
        self._lines = [json.dumps(entry) + "\n" for entry in entries]
        self._rewrite()

    def append(self, entry: dict[str, Any]) -> None:
        """Appends an entry; in a bucket, rewrites the whole object."""
        self.seconds = entry["seconds"]
        self._lines.append(json.dumps(entry) + "\n")
        if storage.is_remote(self._path):
            self._rewrite()
        elif self.write:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(self._lines[-1])

    def _rewrite(self) -> None:
        if self.write:
            with storage.atomic_write(self._path) as file:
                file.write("".join(self._lines).encode())
