"""What an importer kept, what it dropped and why."""

import collections
import csv
import io
import pathlib
from collections.abc import Callable, Iterable, Sequence

from tools import command
from uhman_jax.storage import replacing

FILE = "dropped.csv"
_EXAMPLES = 3


class Dropped:
    """Things that were left out, by reason."""

    def __init__(self):
        self._names: dict[str, list[str]] = collections.defaultdict(list)

    def add(self, name: str, reason: str) -> None:
        """Notes a thing and the reason, a few words that others share."""
        self._names[reason].append(name)

    def write(self, root: pathlib.Path) -> None:
        """Writes all of them to ROOT/dropped.csv."""
        rows = ((name, reason) for reason, names in self._names.items() for name in names)
        write_csv(root / FILE, ("name", "reason"), rows)

    def lines(self, kept: int, noun: str, root: pathlib.Path) -> list[str]:
        """For a person: how many were kept, and each reason with some that it holds for."""
        total = kept + sum(map(len, self._names.values()))
        lines = [f"{kept} of {total} {noun} kept."]
        for reason, names in sorted(self._names.items(), key=lambda item: -len(item[1])):
            few = ", ".join(names[:_EXAMPLES]) + (", ..." if len(names) > _EXAMPLES else "")
            lines.append(f"  {len(names):6d} {reason}: {few}")
        if self._names:
            lines.append(f"All of them are in {root / FILE}.")
        return lines


def write_csv(path: pathlib.Path, columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Writes a table, whole or not at all; what is no character becomes a question mark."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    with replacing(path) as file:
        file.write(buffer.getvalue().encode("utf-8", "replace"))


def tell(argv: Sequence[str], root: pathlib.Path, work: Callable[[], list[str]]) -> None:
    """Prints what an import says; a person's mistake is one sentence and exit status 2."""
    command.tell(argv, work)
    if (root / "videos.csv").exists():
        print(f"Train on them with --config.data.root={root}")
