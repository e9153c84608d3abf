"""Reads, checks and writes a raw dataset: `videos.csv`, `users.csv` and the video files.

    ROOT/videos.csv   video_id,path,user_id,hashtags,timestamp[,group]
    ROOT/users.csv    user_id,gender,age,country,history        (the file may be absent)

`dataset.hashtags` reads the lists `hashtags` and `history`, `dataset.attributes` reads `gender` and
`country`, `dataset.field_checks` reads `age` (years) and `timestamp` (unix seconds or ISO 8601).
`path` is relative to ROOT. `timestamp` and all fields of a user except the id may be empty. Videos
with the same `group` are in the same part of every split; the column may be absent.
"""

import collections
import csv
import dataclasses
import functools
import hashlib
import io
import json
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from uhman_jax.dataset.attributes import fold_country, fold_gender
from uhman_jax.dataset.csv_rows import Problem, parse_rows, read_bytes
from uhman_jax.dataset.field_checks import (
    UNKNOWN_USER,
    Files,
    User,
    Video,
    read_user,
    read_video,
    spell_time,
)
from uhman_jax.dataset.hashtags import MISSING
from uhman_jax.dataset.rules import CURRENT
from uhman_jax.runtime import storage
from uhman_jax.runtime.errors import UserError

VIDEO_COLUMNS = ("video_id", "path", "user_id", "hashtags", "timestamp")
_OPTIONAL = ("group",)  # columns of videos.csv
USER_COLUMNS = ("user_id", "gender", "age", "country", "history")


@dataclasses.dataclass(frozen=True)
class RawDataset:
    """The good rows of a raw dataset, in file order, and the problems of all rows."""

    root: Path  # folder of the tables and the videos
    videos: tuple[Video, ...]  # good rows of videos.csv
    users: dict[str, User]  # good rows of users.csv by id; the user of a video may be absent
    problems: tuple[Problem, ...]  # of both tables, ordered by file and line
    fingerprint: str  # hexadecimal SHA-256 of the rows, independent of their order
    rules: int = CURRENT  # version of the rules for reading, see `dataset.rules`


def read_raw_dataset(
    root: str | Path, *, strict: bool, check_files: bool = True, rules: int = CURRENT
) -> RawDataset:
    """Reads and checks a raw dataset; all problems are found in one pass.

    Only bad rows are dropped. A row with a bad age, a bad time, or bad hashtags beside good ones is
    kept without the bad value. A video whose user is not in users.csv is kept with unknown
    attributes; users.csv may be absent or empty. A path must not leave the root through "..", but a
    symbolic link inside the root may.

    Args:
        root: folder of the tables.
        strict: whether any problem is an error.
        check_files: whether each video must be a regular, readable file. False also accepts empty
            paths, for datasets of features.
        rules: version of the rules, see `dataset.rules`.

    Raises:
        UserError: a table or a column is missing, no video is good, or `strict` is set and there is
            a problem. The message lists all problems, one per line.
    """
    root = storage.path(root)
    if not root.is_dir():
        raise UserError(
            f"a raw dataset must be a folder with videos.csv, got {root}; "
            "create it or name another one"
        )
    videos_csv = read_bytes(root / "videos.csv")
    users = root / "users.csv"
    users_csv = read_bytes(users) if users.is_symlink() or users.exists() else _tables()[1]
    files = storage.sizes(root) if check_files and storage.is_remote(root) else root
    raw = _parse(root, videos_csv, users_csv, files if check_files else None, rules)
    listing = "".join(f"\n  {problem}" for problem in raw.problems)
    if strict and raw.problems:
        raise UserError(
            f"a raw dataset must have no problem if strict is set, got {len(raw.problems)} in "
            f"{root}; correct them, or read it without strict, which drops bad rows:{listing}"
        )
    if not raw.videos:
        raise UserError(
            f"{root / 'videos.csv'} must hold at least one good row, got none; "
            f"add or correct rows{':' if listing else ''}{listing}"
        )
    return raw


def read_users(path: str | Path) -> tuple[dict[str, User], list[Problem]]:
    """Returns the users of a table like users.csv, by id, and the problems of its other rows.

    Raises:
        UserError: the table is missing or cannot be read as a whole.
    """
    users, _, problems = _parse_users(read_bytes(storage.path(path)))
    return users, problems


def add_users(table: bytes, users: Iterable[User]) -> bytes:
    """Returns a table like users.csv with rows appended; the existing bytes are unchanged.

    In the new rows, columns that `User` does not have are empty.

    Raises:
        UserError: the table cannot be read before or after the rows are appended.
    """
    before = _parse_users(table)[0]
    new = {user.user_id: user for user in users}
    text = table.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    lines = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True)
    names = [name.strip() for name in next(line for line in lines if "".join(line).strip())]
    rows = (dict(zip(USER_COLUMNS, _user_fields(user), strict=True)) for user in new.values())
    more = _format(names, ([row.get(name) for name in names] for row in rows)).partition(b"\n")[2]
    whole = table + (b"" if table.endswith((b"\n", b"\r")) else b"\n") + more
    if _parse_users(whole)[0] != before | new:
        raise UserError(
            "users.csv must be readable after users are appended, got a table that is not; "
            "close the quote that is open in its last rows"
        )
    return whole


def summarise_problems(raw: RawDataset) -> str:
    """Returns the number of rows dropped or kept with a problem, by kind; "" without problems.

    A row with several problems counts under its first one:
    "dropped 3 of 120 rows of videos.csv: 2 missing file, 1 bad timestamp".
    """
    parts = []
    for file, num_good in (("videos.csv", len(raw.videos)), ("users.csv", len(raw.users))):
        total = num_good
        for dropped in (True, False):
            found = [p for p in raw.problems if (p.file, p.dropped) == (file, dropped)]
            kinds: dict[int, str] = {}
            for problem in found:
                kinds.setdefault(problem.line, problem.kind)
            if kinds:
                total += len(kinds) * dropped
                counts = collections.Counter(kinds.values()).most_common()
                reasons = ", ".join(f"{count} {kind}" for kind, count in counts)
                verb = "dropped" if dropped else "kept"
                parts.append(f"{verb} {len(kinds)} of {total} rows of {file}: {reasons}")
    return "\n".join(parts)


def write_raw_dataset(
    root: str | Path, videos: Iterable[Video], users: Iterable[User] | Mapping[str, User] | bytes
) -> None:
    """Writes both tables such that reading them returns exactly these videos and users.

    Only genders and countries may differ: reading returns their standard names. Each table is
    written whole or not at all, videos.csv last. The caller provides the video files.

    Args:
        root: folder of the dataset, created if it is missing.
        videos: rows of videos.csv; with empty paths for a dataset of features.
        users: rows of users.csv, a mapping to them, or the whole table from `add_users`, which may
            have unreadable rows.

    Raises:
        UserError: a row would be read differently, for example because its hashtags are not
            normalised, its id occurs twice or a field starts with a space.
    """
    root = storage.path(root)
    videos = tuple(videos)
    table = users if isinstance(users, bytes) else None
    rows = users.values() if isinstance(users, Mapping) else users
    users = () if isinstance(rows, bytes) else tuple(rows)
    videos_csv, users_csv = _tables(videos, users)
    back = _parse(root, videos_csv, users_csv, None)
    if lost := [problem for problem in back.problems if problem.kind != UNKNOWN_USER]:
        raise UserError(f"a raw dataset must have good rows only: {lost[0]}")
    folded = (
        dataclasses.replace(u, gender=fold_gender(u.gender), country=fold_country(u.country))
        for u in users
    )
    for row, read in zip((*videos, *folded), (*back.videos, *back.users.values()), strict=True):
        if row != read:
            raise UserError(
                f"a row must be read as it was written, got {read} for {row}; "
                "normalise its hashtags and strip its fields"
            )
    root.mkdir(parents=True, exist_ok=True)
    for name, data in (
        ("users.csv", users_csv if table is None else table),
        ("videos.csv", videos_csv),
    ):
        with storage.atomic_write(root / name) as file:
            file.write(data)


def fault_of(row: Video | User) -> str:
    """Returns in a few words why a row cannot be written and read back unchanged; "" if it can.

    `write_raw_dataset` accepts all rows without a fault if their ids are unique.

    >>> fault_of(Video("a", "a.mp4", "ana", ("sea",), -1)), fault_of(User("ana", "", 3, "", ()))
    ('bad timestamp', '')
    """
    tables = _tables([row]) if isinstance(row, Video) else _tables(users=[row])
    raw = _parse(Path(), *tables, None)
    problems = raw.problems
    if (*raw.videos, *raw.users.values()) == (row,) and not problems:
        return ""
    torn = not problems or problems[0].kind in ("open quote", "wrong field count")
    return "a name that a table cannot hold" if torn else problems[0].kind


def _parse(
    root: Path, videos_csv: bytes, users_csv: bytes, files: Files, rules: int = CURRENT
) -> RawDataset:
    """Reads both tables; video files are looked up in `files`, unless it is None."""
    users, bad_users, user_problems = _parse_users(users_csv, rules)
    known = users.keys() | bad_users if users else None
    read = functools.partial(read_video, files=files, known_users=known, rules=rules)
    good, _, problems = _parse_table(videos_csv, "videos.csv", VIDEO_COLUMNS, "hashtags", read)
    videos = tuple(good.values())
    fingerprint = _fingerprint(videos, users.values())
    return RawDataset(root, videos, users, (*problems, *user_problems), fingerprint, rules)


def _parse_users(
    users_csv: bytes, rules: int = CURRENT
) -> tuple[dict[str, User], set[str], list[Problem]]:
    """Returns the good users by id, the ids of the bad rows, and all problems."""
    read = functools.partial(read_user, rules=rules)
    return _parse_table(users_csv, "users.csv", USER_COLUMNS, "history", read)


def _parse_table(
    data: bytes,
    file: str,
    columns: Sequence[str],
    list_column: str,
    read: Callable[[dict[str, str], dict[str, int]], tuple[Any, list[Problem]]],
) -> tuple[dict[str, Any], set[str], list[Problem]]:
    """Returns the good rows by id, the ids of the bad rows, and all problems by line.

    `read` takes the fields of a row and the line of each good row by id.
    """
    optional = _OPTIONAL if columns is VIDEO_COLUMNS else ()
    rows, problems = parse_rows(data, file, columns, list_column, optional)
    good: dict[str, Any] = {}
    bad: set[str] = set()
    lines: dict[str, int] = {}
    for row in rows:
        value, found = read(row.fields, lines)
        problems += (problem._replace(file=file, line=row.line) for problem in found)
        row_id = row.fields[columns[0]]
        if any(problem.dropped for problem in found):
            bad.add(row_id)
        else:
            good[row_id], lines[row_id] = value, row.line
    return good, bad, sorted(problems, key=operator.attrgetter("line"))


def _fingerprint(videos: Iterable[Video], users: Iterable[User]) -> str:
    """Returns a hash of the rows, independent of their order."""
    left_out = ("spellings", "group")  # if empty, as before these fields existed
    records = (
        [type(row).__name__, *(v for n, v in vars(row).items() if v or n not in left_out)]
        for row in (*videos, *users)
    )
    return hashlib.sha256("\n".join(sorted(map(json.dumps, records))).encode()).hexdigest()


def _tables(videos: Iterable[Video] = (), users: Iterable[User] = ()) -> tuple[bytes, bytes]:
    """Returns the content of videos.csv, with groups if there are any, and of users.csv."""
    videos = tuple(videos)
    optional = [name for name in _OPTIONAL if any(getattr(video, name) for video in videos)]
    rows = (
        (v.video_id, v.path, v.user_id, _list(v.written), spell_time(v.timestamp))
        + tuple(getattr(v, name) for name in optional)
        for v in videos
    )
    table = _format((*VIDEO_COLUMNS, *optional), rows)
    return table, _format(USER_COLUMNS, map(_user_fields, users))


def _list(hashtags: tuple[str, ...]) -> str:
    """Returns the text of a list, with a '#' if it would otherwise be read as an empty list."""
    text = " ".join(hashtags)
    return f"#{text}" if text.casefold() in MISSING else text


def _user_fields(user: User) -> tuple:
    return user.user_id, user.gender, user.age, user.country, _list(user.history)


def _format(columns: Sequence[str], rows: Iterable[Sequence]) -> bytes:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return buffer.getvalue().encode("utf-8", "surrogatepass")  # reading rejects surrogates
