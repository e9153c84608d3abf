"""metrics.jsonl: one JSON object per validation, in step order, each step once."""

import json
import os
from typing import Any

from uhman_jax import storage
from uhman_jax.run_directory import LOG, read_log


class MetricsLog:
    """The log of one run directory.

    Args:
        workdir: of the run.
        write: False in the processes that only read along.

    Attributes:
        seconds: training time that the last entry states; 0 before the first.
    """

    def __init__(self, workdir: str | os.PathLike[str], write: bool = True):
        self._path = storage.path(workdir) / LOG
        self._write = write
        self._lines: list[str] = []
        self.seconds = 0.0

    def truncate(self, step: int) -> None:
        """Drops entries after a step, and half a last line, as a killed run may leave them.

        Raises:
            UserError: another line is damaged.
        """
        entries = [entry for entry in read_log(self._path.parent) if entry["step"] <= step]
        self.seconds = entries[-1].get("seconds", 0.0) if entries else 0.0
        self._lines = [json.dumps(entry) + "\n" for entry in entries]
        if self._write:
            self._rewrite()

    def append(self, entry: dict[str, Any]) -> None:
        """Adds an entry at the end; an object is written anew with it."""
        self.seconds = entry["seconds"]
        self._lines.append(json.dumps(entry) + "\n")
        if self._write and storage.is_remote(self._path):
            self._rewrite()
        elif self._write:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(self._lines[-1])

    def _rewrite(self) -> None:
        with storage.replacing(self._path) as file:
            file.write("".join(self._lines).encode())
