"""Reads and writes a study's files of one JSON object per line, such as `results.jsonl`."""

import json
import pathlib
from collections.abc import Iterable
from typing import Any

from experiments.paper.trials import Cell, Study, config_of, fingerprint, key_of
from uhman_jax.runtime.storage import atomic_write


def read_lines(path: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the objects in a file; none if the file does not exist."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def write_lines(path: pathlib.Path, rows: Iterable[dict[str, Any]]) -> None:
    """Replaces the file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows).encode())


class Rows:
    """The lines of `results.jsonl` by cell and fingerprint."""

    def __init__(self, folder: pathlib.Path):
        self._path = folder / "results.jsonl"
        self._rows = {_key(row): row for row in read_lines(self._path)}

    def add(self, row: dict[str, Any]) -> None:
        """Saves the row of a finished cell."""
        self._rows[_key(row)] = row
        write_lines(self._path, self._rows.values())

    def of(self, cells: list[Cell], study: Study) -> list[dict[str, Any]]:
        """Returns the rows of the finished cells, in the order of the cells."""
        return [self._rows[key] for cell in cells if (key := key_of(cell, study)) in self._rows]

    def missing(self, cells: list[Cell], study: Study) -> list[Cell]:
        """Returns the unfinished cells; of cells with equal settings only the first."""
        first: dict[str, Cell] = {}
        for cell in cells:
            first.setdefault(fingerprint(config_of(cell, study)), cell)
        return [cell for cell in first.values() if key_of(cell, study) not in self._rows]

    def add_equals(self, cells: list[Cell], study: Study) -> None:
        """Copies the rows of finished cells to unfinished cells with equal settings."""
        known = {row["fingerprint"]: row for row in self._rows.values()}
        for cell in cells:
            row = known.get(fingerprint(config_of(cell, study)))
            if row and key_of(cell, study) not in self._rows:
                self.add(row | {"cell": cell.name, "variant": cell.variant})


def _key(row: dict[str, Any]) -> str:
    return f"{row['cell']}/{row['fingerprint']}"
