"""What has been measured: one line of `results.jsonl` per cell."""

import pathlib

from experiments.paper.cells import Cell, Study, config_of, fingerprint, key_of
from experiments.paper.tune import read_lines, write_lines


class Rows:
    """The lines of `results.jsonl`, by name and fingerprint of their cell."""

    def __init__(self, folder: pathlib.Path):
        self._path = folder / "results.jsonl"
        lines = read_lines(self._path)
        self._rows = {f"{row['cell']}/{row['fingerprint']}": row for row in lines}

    def add(self, row: dict) -> None:
        """Keeps the row of a cell that has ended."""
        self._rows[f"{row['cell']}/{row['fingerprint']}"] = row
        write_lines(self._path, list(self._rows.values()))

    def of(self, cells: list[Cell], study: Study) -> list[dict]:
        """Rows of the cells that have ended, in the cells' order."""
        return [self._rows[key] for cell in cells if (key := key_of(cell, study)) in self._rows]

    def missing(self, cells: list[Cell], study: Study) -> list[Cell]:
        """Cells that have not, of those with equal settings the first."""
        first: dict[str, Cell] = {}
        for cell in cells:
            first.setdefault(fingerprint(config_of(cell, study)), cell)
        return [cell for cell in first.values() if key_of(cell, study) not in self._rows]

    def add_equals(self, cells: list[Cell], study: Study) -> None:
        """Gives cells the rows of others with equal settings: a curve meets a table in a point."""
        known = {row["fingerprint"]: row for row in self._rows.values()}
        for cell in cells:
            row = known.get(fingerprint(config_of(cell, study)))
            if row and key_of(cell, study) not in self._rows:
                self.add(row | {"cell": cell.name, "variant": cell.variant})
