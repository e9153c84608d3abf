"""Reports how many items an importer kept, and which it dropped for which reasons."""

import collections
import csv
import io
import pathlib
import sys
from collections.abc import Callable, Iterable

from tools import cli
from uhman_jax.runtime.errors import UserError, count_of
from uhman_jax.runtime.storage import atomic_write, escape_name

FILE = "dropped.csv"
_EXAMPLES = 3
_MAX_LENGTH = 5_000  # characters of a name or a value in the table; a path has at most 4,096
_MAX_SHOWN = 100  # characters of an example in the report

_ByReason = dict[str, list[tuple[str, str]]]  # (name, value) pairs


class Dropped:
    """Collects dropped items and dropped parts of kept items, by reason."""

    def __init__(self):
        self._items: _ByReason = collections.defaultdict(list)
        self._parts: _ByReason = collections.defaultdict(list)

    def add(self, name: str, reason: str) -> None:
        """Records a dropped item; items with equal reasons are counted together."""
        self._items[reason].append((_short(name), ""))

    def note(self, name: str, reason: str, value: str = "") -> None:
        """Records a dropped part of an item, such as one tag, and its value."""
        self._parts[reason].append((_short(name), _short(value)))

    def report(self, root: pathlib.Path, kept: int, noun: str, if_none: str) -> list[str]:
        """Writes ROOT/dropped.csv; returns the number of items kept, and reasons with examples.

        Args:
            root: folder of the dataset.
            kept: number of items that were kept.
            noun: word for an item.
            if_none: first line of the error if no item was kept.

        Raises:
            UserError: no item was kept.
        """
        rows = (
            (name, f"{reason}: {value}" if value else reason)
            for found in (self._parts, self._items)
            for reason, pairs in found.items()
            for name, value in pairs
        )
        write_csv(root / FILE, ("name", "reason"), rows)
        total = kept + sum(map(len, self._items.values()))
        lines = [f"{kept} of {count_of(total, noun)} kept.", *_reasons(self._items)]
        if self._parts:
            lines += ["Dropped parts of items that are otherwise used:", *_reasons(self._parts)]
        if self._items or self._parts:
            lines.append(f"{root / FILE} lists all of them.")
        if not kept:
            raise UserError("\n".join([if_none, *lines]))
        return lines


def _short(text: str) -> str:
    return escape_name(text)[:_MAX_LENGTH]


def _reasons(found: _ByReason) -> list[str]:
    lines = []
    for reason, pairs in sorted(found.items(), key=lambda item: -len(item[1])):
        texts = [" ".join(filter(None, pair)) for pair in pairs[:_EXAMPLES]]
        few = [x if len(x) <= _MAX_SHOWN else f"{x[: _MAX_SHOWN - 3]}..." for x in texts]
        few += ["..."] * (len(pairs) > _EXAMPLES)
        lines.append(f"  {len(pairs):6d} {reason}: {', '.join(few)}")
    return lines


def write_csv(path: pathlib.Path, columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Writes a table atomically, with escaped cells."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(map(escape_name, row) for row in rows)
    with atomic_write(path) as file:
        file.write(buffer.getvalue().encode())


def run_import(root: pathlib.Path, work: Callable[[], list[str]]) -> None:
    """Runs an import and prints its report; a user's mistake exits with status 2."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name may not fit the terminal's encoding
        sys.stdout.reconfigure(errors="backslashreplace")
    cli.print_report(work)
    if (root / "videos.csv").exists():
        print(f"Train on them with --config.data.root={root}")
