"""Rows of a CSV file with their line numbers; a damaged row never takes its neighbours along."""

import csv
import dataclasses
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from uhman_jax.errors import UserError

# A quote left open swallows what follows: give the row up before csv's limit on a field does, which
# would blame its length.
_MAX_LINES_PER_ROW = 100
_MAX_FIELD = 2**17  # characters; also what the csv module takes, unless told otherwise
_SHOWN_CHARACTERS = 80  # of a value in a message
_NOT_UTF8 = re.compile("[\udc80-\udcff]")  # what `surrogateescape` leaves of an undecodable byte


@dataclasses.dataclass(frozen=True)
class Problem:
    """What is wrong with one row, as a person can mend it.

    Attributes:
        file: name of the table, such as "videos.csv".
        line: line of the file on which the row starts, counted from 1.
        rule: what must hold.
        value: what was found instead, as shown to a person.
        remedy: what to do about it.
        kind: two or three words for summaries, such as "missing file".
        dropped: False where the row is kept all the same.
    """

    file: str
    line: int
    rule: str
    value: str
    remedy: str
    kind: str
    dropped: bool = True

    def __str__(self) -> str:
        """Returns the problem as one line."""
        return f"{self.file}:{self.line}: {self.rule}, got {self.value}; {self.remedy}"


class Row(NamedTuple):
    """One well-formed row: its first line, and its fields by column without outer white space."""

    line: int
    fields: dict[str, str]


def show(value: str) -> str:
    """Returns the value quoted, on one line, and short enough for a message."""
    if _NOT_UTF8.search(value):
        shown = repr(value.encode("utf-8", "surrogateescape"))
    else:
        shown = repr(value)
    return shown if len(shown) <= _SHOWN_CHARACTERS else shown[: _SHOWN_CHARACTERS - 3] + "..."


def read_bytes(path: Path) -> bytes:
    """Returns the content of a table that must exist."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(
            f"a raw dataset must hold {path.name}, got no such file in {path.parent}; "
            "write it, or name another folder"
        ) from None
    except OSError as error:
        raise UserError(
            f"{path} must be a readable file, got {error.strerror}; mend it or its permissions"
        ) from None


def parse_rows(
    data: bytes, file: str, columns: Sequence[str], list_column: str
) -> tuple[list[Row], list[Problem]]:
    """Splits a table into rows, and says what is wrong with those that cannot be read.

    Columns are found by name, in any order; further ones are ignored, and so are blank lines and a
    byte-order mark. Lines end in LF, CRLF or CR.

    Args:
        data: content of the file, UTF-8 with or without a byte-order mark.
        file: its name, for messages.
        columns: names that the header must hold, each once.
        list_column: the only one of `columns` whose value may span lines. A row in which another
            does has a quote left open, and only its first line is given up.

    Returns:
        Rows and problems, each in file order.

    Raises:
        UserError: the table as a whole cannot be read (its encoding, its header).
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"{file} must be UTF-8, got UTF-16; save it as 'CSV UTF-8'")
    text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    lines = list(io.StringIO(text, newline=""))  # keeps line ends, which quoted fields may hold
    start = next((i for i, line in enumerate(lines) if line.strip()), len(lines))
    header, start = _read_record(lines, start) if start < len(lines) else ([], start)
    names = [name.strip() for name in header] if isinstance(header, list) else []
    _check_header(names, file, columns)
    width = len(names)
    single = [names.index(name) for name in columns if name != list_column]

    rows: list[Row] = []
    problems: list[Problem] = []
    while start < len(lines):
        line, first = start + 1, lines[start]
        if not first.strip():
            start += 1
            continue
        record, end = _read_record(lines, start)
        swallows = any(_stands_alone(line, width) for line in lines[start + 1 : end])
        problem = _row_problem(record, lines[start:end], width, single, swallows)
        if problem is None:
            assert isinstance(record, list)
            fields = dict(zip(names, (field.strip() for field in record), strict=True))
            rows.append(Row(line, {name: fields[name] for name in columns}))
            start = end
        else:
            kind, rule, value, remedy = problem
            problems.append(Problem(file, line, rule, value, remedy, kind))
            # The lines behind an open quote may be good rows; those of a whole row are none.
            whole = isinstance(record, list) and len(record) == width and not swallows
            start = end if whole else start + 1
    return rows, problems


def _read_record(lines: list[str], start: int) -> tuple[list[str] | str, int]:
    """Returns the fields of the record at `start`, or why there are none, and the line after it."""
    ahead = (lines[i] for i in range(start, min(start + _MAX_LINES_PER_ROW, len(lines))))
    reader = csv.reader(ahead, strict=True, skipinitialspace=True)
    try:
        return next(reader), start + reader.line_num
    except csv.Error as error:
        return str(error), start + 1


def _check_header(names: list[str], file: str, columns: Sequence[str]) -> None:
    found = ", ".join(map(show, names)) or "none"
    if missing := [name for name in columns if name not in names]:
        raise UserError(
            f"{file} must name its columns {','.join(columns)} in its first line, "
            f"got {found}; add {', '.join(missing)} (separated by commas)"
        )
    if twice := [name for name in columns if names.count(name) > 1]:
        raise UserError(
            f"{file} must name each column once, got {found}; rename one {', '.join(twice)}"
        )


def _row_problem(
    record: list[str] | str, lines: list[str], width: int, single: list[int], swallows: bool
) -> tuple[str, str, str, str] | None:
    """Returns kind, rule, value and remedy of a row that cannot be read.

    Args:
        record: fields, or the reason why there are none.
        lines: the lines of the file that the record spans.
        width: fields that a row must hold.
        single: positions of the fields that must stay on one line.
        swallows: whether a line behind the first looks like a row of its own.
    """
    value = show(lines[0].rstrip("\r\n"))
    close = 'close each quote in its row, and double a quote inside a field ("")'
    # The csv module has a limit too, which others may set for the whole process.
    too_long = isinstance(record, list) and any(len(field) > _MAX_FIELD for field in record)
    if too_long or (isinstance(record, str) and "limit" in record):
        rule = f"a field must hold at most {_MAX_FIELD} characters"
        return "field too long", rule, value, "shorten it"
    if isinstance(record, str):
        return "open quote", f"a row must be well-formed CSV ({record})", value, close
    if len(record) != width:
        rule = f"a row must hold as many fields as the header ({width})"
        remedy = "complete it, or put quotes around a field that holds a comma"
        return "wrong field count", rule, f"{len(record)} in {value}", remedy
    if _leaves_quote_open(lines):  # the rest of a row that began on a line before
        return "open quote", "a row must hold an even number of quotes", value, close
    if swallows or any("\n" in record[i] or "\r" in record[i] for i in single):
        rule = "a row must end on its line unless its list of hashtags is quoted"
        return "open quote", rule, value, close
    if any(_NOT_UTF8.search(line) for line in lines):
        return "bad encoding", "a row must be UTF-8", value, "save the file as UTF-8"
    if any("\0" in line for line in lines):
        return "NUL byte", "a row must not hold NUL bytes", value, "delete them"
    return None


def _stands_alone(line: str, width: int) -> bool:
    """Returns whether a line reads as a whole row, so that it hardly continues another.

    One that closes a quote, and so holds an odd number of them, does continue another.
    """
    record, _ = _read_record([line], 0)
    return isinstance(record, list) and len(record) == width and not _leaves_quote_open([line])


def _leaves_quote_open(lines: Sequence[str]) -> bool:
    return sum(line.count('"') for line in lines) % 2 == 1
