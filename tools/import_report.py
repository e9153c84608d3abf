"""What an importer kept, what it dropped and why."""

import collections
import csv
import io
import pathlib
import sys
import unicodedata
from collections.abc import Callable, Iterable, Sequence

from tools import command
from uhman_jax.errors import count_of
from uhman_jax.storage import replacing

FILE = "dropped.csv"
_EXAMPLES = 3
_MAX_LENGTH = 5_000  # characters of a name or a value in the table; a path has at most 4,096
_MAX_SHOWN = 100  # in the report
_NOT_SHOWN = ("Cc", "Cs", "Zl", "Zp")  # control characters, lone surrogates, line separators


class Dropped:
    """What was left out, by reason: whole items, and parts of items that were kept."""

    def __init__(self):
        self._names: dict[str, list[str]] = collections.defaultdict(list)
        self._parts: dict[str, list[tuple[str, str]]] = collections.defaultdict(list)

    def add(self, name: str, reason: str) -> None:
        """Notes an item that is left out and the reason, a few words that others share."""
        self._names[reason].append(printable(name)[:_MAX_LENGTH])

    def note(self, name: str, reason: str, value: str = "") -> None:
        """Notes that only a part of an item is left out, such as one tag, and its value."""
        self._parts[reason].append((printable(name)[:_MAX_LENGTH], printable(value)[:_MAX_LENGTH]))

    def write(self, root: pathlib.Path) -> None:
        """Writes all of them to ROOT/dropped.csv."""
        parts = (
            (name, f"{reason}: {value}" if value else reason)
            for reason, found in self._parts.items()
            for name, value in found
        )
        rows = ((name, reason) for reason, names in self._names.items() for name in names)
        write_csv(root / FILE, ("name", "reason"), [*parts, *rows])

    def lines(self, kept: int, noun: str, root: pathlib.Path) -> list[str]:
        """Returns the report: the number of items kept, and each reason with some examples.

        Args:
            kept: number of items that were kept.
            noun: what one of the items is.
            root: folder of dropped.csv.
        """
        total = kept + sum(map(len, self._names.values()))
        lines = [f"{kept} of {count_of(total, noun)} kept."]
        lines += _reasons(self._names)
        if self._parts:
            lines.append("Left out, while the rest of its item is used:")
            lines += _reasons(
                {
                    reason: [f"{name} {value}".strip() for name, value in found]
                    for reason, found in self._parts.items()
                }
            )
        if self._names or self._parts:
            lines.append(f"All of them are in {root / FILE}.")
        return lines


def _reasons(names: dict[str, list[str]]) -> list[str]:
    lines = []
    for reason, found in sorted(names.items(), key=lambda item: -len(item[1])):
        few = ", ".join(map(_shortened, found[:_EXAMPLES]))
        few += ", ..." if len(found) > _EXAMPLES else ""
        lines.append(f"  {len(found):6d} {reason}: {few}")
    return lines


def printable(text: str) -> str:
    r"""Returns a text as one line that every file takes, with odd characters escaped.

    >>> printable("a\nb\udce9")
    'a\\nb\\udce9'
    """
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in _NOT_SHOWN
        else character
        for character in text
    )


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "..."


def write_csv(path: pathlib.Path, columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Writes a table, whole or not at all; each cell as `printable` shows it."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(map(printable, row) for row in rows)
    with replacing(path) as file:
        file.write(buffer.getvalue().encode())


def tell(argv: Sequence[str], root: pathlib.Path, work: Callable[[], list[str]]) -> None:
    """Prints what an import says; a person's mistake is one sentence and exit status 2."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name need not fit the terminal's encoding
        sys.stdout.reconfigure(errors="backslashreplace")
    command.tell(argv, work)
    if (root / "videos.csv").exists():
        print(f"Train on them with --config.data.root={root}")
