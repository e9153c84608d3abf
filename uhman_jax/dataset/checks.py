"""Checks of single fields of the raw tables."""

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from uhman_jax.dataset.table import show

_WHOLE_NUMBER = re.compile(r"([0-9]{1,18})(\.0*)?")  # "7.0" is how a table with gaps spells 7

# What is wrong with a field: kind, rule, value as shown, remedy.
Fault = tuple[str, str, str, str]

# Where video files are looked up: a folder, the listing of a remote one (`storage.sizes`), nowhere.
Files = Path | Mapping[str, int] | None


def id_faults(column: str, value: str, seen: Mapping[str, int]) -> list[Fault]:
    """Returns what is wrong with an id; `seen` maps the ids of good rows to their lines."""
    if not value:
        rule = f"{column} must not be empty"
        return [(f"empty {column}", rule, show(value), "give the row an id")]
    if value in seen:
        rule = f"{column} must be unique"
        shown = f"{show(value)}, which line {seen[value]} has too"
        return [(f"duplicate {column}", rule, shown, "rename or delete one of the two")]
    return []


def path_faults(path: str, files: Files) -> list[Fault]:
    """Returns what is wrong with a path; the file itself is looked up unless `files` is None."""
    if not path:
        return [("no path", "path must name the video file", show(path), "fill it in")]
    normal = os.path.normpath(path)
    if os.path.isabs(normal) or normal == os.pardir or normal.startswith(os.pardir + os.sep):
        rule = "path must stay inside the dataset's folder"
        remedy = "move or link the file there and give its relative path"
        return [("path outside", rule, show(path), remedy)]
    if files is None:
        return []
    remedy = "restore the file, correct the path, or delete the row"
    missing = "missing file", "path must name an existing file", show(path), remedy
    if isinstance(files, Mapping):
        return [] if normal in files else [missing]
    try:
        mode = os.stat(files / path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return [missing]
    except OSError as error:
        value = f"{show(path)} ({error.strerror})"
        return [("unreadable file", "path must name a readable file", value, "mend the path")]
    if not stat.S_ISREG(mode):
        rule, remedy = "path must name a regular file (no folder, pipe or device)", "name the video"
        return [("not a regular file", rule, show(path), remedy)]
    if not os.access(files / path, os.R_OK):
        rule, remedy = "path must name a readable file", "mend the file's permissions"
        return [("unreadable file", rule, show(path), remedy)]
    return []


def whole_number(text: str, low: int, high: int) -> int | None:
    """Returns the number that a field spells, or None if it is none from `low` to `high`."""
    match = _WHOLE_NUMBER.fullmatch(text)
    value = int(match[1]) if match else -1
    return value if low <= value <= high else None
