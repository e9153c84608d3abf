"""Reads the rows of a CSV file with their line numbers; a malformed row does not affect others."""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from uhman_jax.runtime.errors import UserError

# An open quote swallows the lines after it. This limit acts before the csv module's limit on the
# length of a field, whose error would mislead.
_MAX_LINES_PER_ROW = 100
_MAX_FIELD = 2**17  # characters
_SHOWN_CHARACTERS = 80  # of a value in a message
_NOT_UTF8 = re.compile("[\udc80-\udcff]")  # undecodable bytes, as `surrogateescape` represents them


class Problem(NamedTuple):
    """An error in one row that a user can fix."""

    kind: str  # two or three words for summaries, such as "missing file"
    rule: str  # the broken rule
    value: str  # the value that breaks it, formatted by `show`
    remedy: str
    dropped: bool = True  # whether the row is dropped
    file: str = ""  # name of the table, such as "videos.csv"
    line: int = 0  # first line of the row, counted from 1

    def __str__(self) -> str:
        """Returns the problem as one line."""
        return f"{self.file}:{self.line}: {self.rule}, got {self.value}; {self.remedy}"


class Row(NamedTuple):
    """A well-formed row: the number of its first line, and its stripped fields by column."""

    line: int
    fields: dict[str, str]


def show(value: str) -> str:
    """Returns the value quoted, on one line, and short enough for a message."""
    bytes_or_text = value.encode("utf-8", "surrogateescape") if _NOT_UTF8.search(value) else value
    shown = repr(bytes_or_text)
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
            f"{path} must be a readable file, got {error.strerror}; correct it or its permissions"
        ) from None


def parse_rows(
    data: bytes, file: str, columns: Sequence[str], list_column: str, optional: Sequence[str] = ()
) -> tuple[list[Row], list[Problem]]:
    """Returns the rows of a table, and the problems of rows that cannot be read, in file order.

    Columns are found by name, in any order. Other columns, blank lines and a byte-order mark are
    ignored. Lines end in LF, CRLF or CR.

    Args:
        data: content of the file, UTF-8 with or without a byte-order mark.
        file: its name, for messages.
        columns: names that the header must contain, each once.
        optional: further names, which it may contain once.
        list_column: the only one of `columns` whose value may span lines. If another value does, a
            quote is open: the row is rejected, but lines in it that look like rows are read again.

    Raises:
        UserError: the encoding or the header of the table is wrong.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"{file} must be UTF-8, got UTF-16; save it as 'CSV UTF-8'")
    text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    csv.field_size_limit(_MAX_FIELD)  # global to the process; other libraries raise it
    lines = list(io.StringIO(text, newline=""))  # keeps line ends, which quoted fields may hold
    start = next((i for i, line in enumerate(lines) if line.strip()), len(lines))
    header, start, _ = _read_record(lines, start) if start < len(lines) else ([], start, "")
    names = [name.strip() for name in header]
    _check_header(names, file, columns, optional)
    columns = [*columns, *(name for name in optional if name in names)]
    single = [names.index(name) for name in columns if name != list_column]

    rows: list[Row] = []
    problems: list[Problem] = []
    while start < len(lines):
        if not lines[start].strip():
            start += 1
            continue
        record, end, reason = _read_record(lines, start)
        swallows = any(_is_row(line, len(names)) for line in lines[start + 1 : end])
        if problem := _row_problem(record, reason, lines[start:end], len(names), single, swallows):
            problems.append(problem._replace(file=file, line=start + 1))
            # The lines after an open quote may be good rows.
            start = end if len(record) == len(names) and not swallows else start + 1
        else:
            fields = dict(zip(names, (field.strip() for field in record), strict=True))
            rows.append(Row(start + 1, {name: fields[name] for name in columns}))
            start = end
    return rows, problems


def _read_record(lines: list[str], start: int) -> tuple[list[str], int, str]:
    """Returns the fields of the record at line `start`, the line after it, and any csv error."""
    ahead = (lines[i] for i in range(start, min(start + _MAX_LINES_PER_ROW, len(lines))))
    reader = csv.reader(ahead, strict=True, skipinitialspace=True)
    try:
        return next(reader), start + reader.line_num, ""
    except csv.Error as error:
        return [], start + 1, str(error)


def _check_header(
    names: list[str], file: str, columns: Sequence[str], optional: Sequence[str]
) -> None:
    found = ", ".join(map(show, names)) or "none"
    if missing := [name for name in columns if name not in names]:
        raise UserError(
            f"{file} must name its columns {','.join(columns)} in its first line, "
            f"got {found}; add {', '.join(missing)} (separated by commas)"
        )
    if twice := [name for name in (*columns, *optional) if names.count(name) > 1]:
        raise UserError(
            f"{file} must name each column once, got {found}; rename one {', '.join(twice)}"
        )


def _row_problem(
    record: list[str], reason: str, lines: list[str], width: int, single: list[int], swallows: bool
) -> Problem | None:
    """Returns the problem of a row; None if it is well-formed.

    Args:
        record: its fields; [] if the csv module cannot read it.
        reason: the error of the csv module, or "".
        lines: the lines of the file that it spans.
        width: the expected number of fields.
        single: indices of the fields that must be on one line.
        swallows: whether a line after the first looks like a separate row.
    """
    value = show(lines[0].rstrip("\r\n"))
    close = 'close each quote in its row, and double a quote inside a field ("")'
    if "limit" in reason:
        rule = f"a field must hold at most {_MAX_FIELD} characters"
        return Problem("field too long", rule, value, "shorten it")
    if reason:
        return Problem("open quote", f"a row must be well-formed CSV ({reason})", value, close)
    if len(record) != width:
        rule = f"a row must hold as many fields as the header ({width})"
        remedy = "complete it, or put quotes around a field that holds a comma"
        return Problem("wrong field count", rule, f"{len(record)} in {value}", remedy)
    if _has_open_quote(lines):  # the rest of a row that began on an earlier line
        return Problem("open quote", "a row must hold an even number of quotes", value, close)
    if swallows or any("\n" in record[i] or "\r" in record[i] for i in single):
        rule = "a row must end on its line unless its list of hashtags is quoted"
        return Problem("open quote", rule, value, close)
    text = "".join(lines)
    if _NOT_UTF8.search(text):
        return Problem("bad encoding", "a row must be UTF-8", value, "save the file as UTF-8")
    if "\0" in text:
        return Problem("NUL byte", "a row must not hold NUL bytes", value, "delete them")
    return None


def _is_row(line: str, width: int) -> bool:
    """Returns whether a line is probably a row, not the continuation of one."""
    return len(_read_record([line], 0)[0]) == width and not _has_open_quote([line])


def _has_open_quote(lines: Sequence[str]) -> bool:
    return sum(line.count('"') for line in lines) % 2 == 1
