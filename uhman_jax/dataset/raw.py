"""The raw dataset that a user brings: `videos.csv`, `users.csv` and the video files.

    ROOT/videos.csv   video_id,path,user_id,hashtags,timestamp
    ROOT/users.csv    user_id,gender,age,country,history        (the file may be absent)

`dataset.hashtags` reads the lists `hashtags` and `history`, `dataset.attributes` the values of
`gender` and `country`, `dataset.checks` `age` (years) and `timestamp` (unix seconds or ISO 8601).
`path` is relative to ROOT. Every field of a user but the id may be empty, and so may `timestamp`.
"""

import collections
import csv
import dataclasses
import hashlib
import io
import json
import operator
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from uhman_jax import storage
from uhman_jax.dataset.attributes import fold_country, fold_gender
from uhman_jax.dataset.csv_rows import Problem, Row, parse_rows, read_bytes, show
from uhman_jax.dataset.field_checks import (
    Fault,
    Files,
    id_faults,
    path_faults,
    read_age,
    read_list,
    read_time,
    spell_time,
)
from uhman_jax.dataset.hashtags import MISSING
from uhman_jax.dataset.rules import CURRENT
from uhman_jax.errors import UserError

VIDEO_COLUMNS = ("video_id", "path", "user_id", "hashtags", "timestamp")
USER_COLUMNS = ("user_id", "gender", "age", "country", "history")
_UNKNOWN_USER = "unknown user"


@dataclasses.dataclass(frozen=True)
class Video:
    """One video and its labels; `path` is relative to the root, `timestamp` in unix seconds.

    Attributes:
        hashtags: normalised, each once.
        spellings: the same hashtags as their user wrote them, without '#'; () if they were written
            in normalised form.
    """

    video_id: str
    path: str
    user_id: str
    hashtags: tuple[str, ...]
    timestamp: int | None
    spellings: tuple[str, ...] = ()

    @property
    def written(self) -> tuple[str, ...]:
        """The hashtags as their user wrote them."""
        return self.spellings or self.hashtags


@dataclasses.dataclass(frozen=True)
class User:
    """One user; "" and None mean unknown. `history` has hashtags used before, each once."""

    user_id: str
    gender: str = ""
    age: int | None = None
    country: str = ""
    history: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class RawDataset:
    """The good rows of a raw dataset, in file order, and the problems of the others.

    Attributes:
        root: folder of the tables and the videos.
        videos: good rows of videos.csv.
        users: good rows of users.csv by id; a video's user may be absent: all unknown.
        problems: of both tables, by file and line.
        fingerprint: SHA-256 of videos and users, whatever their order, in hexadecimal.
        rules: version of the rules by which the tables were read.
    """

    root: Path
    videos: tuple[Video, ...]
    users: dict[str, User]
    problems: tuple[Problem, ...]
    fingerprint: str
    rules: int = CURRENT


def read_raw_dataset(
    root: str | Path, *, strict: bool, check_files: bool = True, rules: int = CURRENT
) -> RawDataset:
    """Reads and checks a raw dataset; all problems are found in one pass.

    A bad row is dropped without loss of good ones. If the rest of a row is useful, the row is kept
    and only the bad value is left out: a hashtag beside others, an age, a time. A video whose user
    is not in users.csv is kept too, with unknown attributes. (users.csv may also be absent or
    empty, which is no problem.) A path must not lead out of the root by "..", but a link inside the
    root may.

    Args:
        root: folder of the tables.
        strict: raise on any problem instead.
        check_files: whether each video must be a regular, readable file. False also admits empty
            paths, for datasets that come as features.
        rules: version of the rules, see `dataset.rules`.

    Raises:
        UserError: a table or a column is missing, no row is good, or `strict` and any problem; the
            message lists every problem, one a line.
    """
    root = storage.path(root)
    if not root.is_dir():
        raise UserError(
            f"a raw dataset must be a folder with videos.csv, got {root}; "
            "create it or name another one"
        )
    videos_csv = read_bytes(root / "videos.csv")
    users = root / "users.csv"
    users_csv = read_bytes(users) if users.is_symlink() or users.exists() else None
    files = storage.sizes(root) if check_files and storage.is_remote(root) else root
    raw = _parse(root, videos_csv, users_csv, files if check_files else None, rules)
    listing = "".join(f"\n  {problem}" for problem in raw.problems)
    if strict and raw.problems:
        raise UserError(
            f"a raw dataset must have no problem to be read strictly, got {len(raw.problems)} in "
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
    return _parse_users(read_bytes(storage.path(path)))


def add_users(table: bytes, users: Iterable[User]) -> bytes:
    """Returns a table like users.csv with further rows appended; its own bytes are unchanged.

    Other columns than those of users.csv are empty in the new rows.

    Raises:
        UserError: the table cannot be read as a whole, or not with these rows.
    """
    before, _ = _parse_users(table)
    new = {user.user_id: user for user in users}
    text = table.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    lines = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True)
    names = [name.strip() for name in next(line for line in lines if "".join(line).strip())]
    rows = (dict(zip(USER_COLUMNS, _user_fields(user), strict=True)) for user in new.values())
    more = _format(names, ([row.get(name) for name in names] for row in rows)).partition(b"\n")[2]
    whole = table + (b"" if table.endswith((b"\n", b"\r")) else b"\n") + more
    if _parse_users(whole)[0] != before | new:
        raise UserError(
            "users.csv must be a table to which further users can be added, got one whose rows do "
            "not read back then; close the quote that its last rows leave open"
        )
    return whole


def summarise_problems(raw: RawDataset) -> str:
    """Returns how many rows were dropped and why, a line per table; "" without problems.

    A row with several problems counts under its first one:
    "dropped 3 of 120 rows of videos.csv: 2 missing file, 1 bad timestamp".
    """
    parts = []
    for file, num_good in (("videos.csv", len(raw.videos)), ("users.csv", len(raw.users))):
        own = [problem for problem in raw.problems if problem.file == file]
        dropped: dict[int, str] = {}
        kept: dict[int, str] = {}
        for problem in own:
            (dropped if problem.dropped else kept).setdefault(problem.line, problem.kind)
        for verb, kinds in (("dropped", dropped), ("kept", kept)):
            if kinds:
                counts = collections.Counter(kinds.values()).most_common()
                reasons = ", ".join(f"{count} {kind}" for kind, count in counts)
                total = num_good + len(dropped)
                parts.append(f"{verb} {len(kinds)} of {total} rows of {file}: {reasons}")
    return "\n".join(parts)


def write_raw_dataset(
    root: str | Path, videos: Iterable[Video], users: Iterable[User] | Mapping[str, User] | bytes
) -> None:
    """Writes both tables such that reading them returns exactly these videos and users.

    Only genders and countries may be spelled differently: reading returns their standard name.

    Each table is written whole or not at all, videos.csv last; the caller provides the video files.

    Args:
        root: folder of the dataset, created where it is missing.
        videos: rows of videos.csv; an empty path stands for a dataset of features.
        users: rows of users.csv, or a mapping to them, or the whole table from `add_users`, which
            may have rows that cannot be read.

    Raises:
        UserError: a row would not be read as it is (its hashtags are not normalised, an id occurs
            twice, a field starts with a space, ...).
    """
    root = storage.path(root)
    videos = tuple(videos)
    videos_csv = _format(VIDEO_COLUMNS, map(_fields, videos))
    if isinstance(users, bytes):
        users_csv, users = users, ()
        back = _parse(root, videos_csv, None, None)
    else:
        users = tuple(users.values() if isinstance(users, Mapping) else users)
        users_csv = _format(USER_COLUMNS, map(_user_fields, users))
        back = _parse(root, videos_csv, users_csv, None)
    if lost := [problem for problem in back.problems if problem.kind != _UNKNOWN_USER]:
        raise UserError(f"a raw dataset must have good rows only: {lost[0]}")
    folded = (
        dataclasses.replace(u, gender=fold_gender(u.gender), country=fold_country(u.country))
        for u in users
    )
    for row, again in zip((*videos, *folded), (*back.videos, *back.users.values()), strict=True):
        if row != again:
            raise UserError(
                f"a row must read back as it was written, got {again} for {row}; "
                "normalise its hashtags and strip its fields"
            )
    root.mkdir(parents=True, exist_ok=True)
    for name, data in (("users.csv", users_csv), ("videos.csv", videos_csv)):
        with storage.atomic_write(root / name) as file:
            file.write(data)


def fault_of(row: Video | User) -> str:
    """Returns why a row would not be read from its table as it is, in a few words, or "".

    `write_raw_dataset` accepts rows without a fault whose ids differ.

    >>> fault_of(Video("a", "a.mp4", "ana", ("sea",), -1)), fault_of(User("ana", "", 3, "", ()))
    ('bad timestamp', '')
    """
    back: tuple[Video | User, ...]
    if isinstance(row, Video):
        raw = _parse(Path(), _format(VIDEO_COLUMNS, [_fields(row)]), None, None)
        back, problems = raw.videos, raw.problems
    else:
        users, problems = _parse_users(_format(USER_COLUMNS, [_user_fields(row)]))
        back = tuple(users.values())
    if back == (row,) and not problems:
        return ""
    torn = not problems or problems[0].kind in ("open quote", "wrong field count")
    return "a name that a table cannot hold" if torn else problems[0].kind


def _parse(
    root: Path,
    videos_csv: bytes,
    users_csv: bytes | None,
    files: Files,
    rules: int = CURRENT,
) -> RawDataset:
    """Reads both tables; video files are looked up in `files`, unless it is None."""
    users: dict[str, User] = {}
    lost_users: set[str] = set()  # ids of bad rows, which videos may refer to without a problem
    user_problems: list[Problem] = []
    if users_csv is not None:
        users, user_problems = _parse_users(users_csv, lost_users, rules)

    videos: list[Video] = []
    rows, problems = parse_rows(videos_csv, "videos.csv", VIDEO_COLUMNS, "hashtags")
    seen = {}
    for row in rows:
        video, faults = _read_video(row, seen, files, rules)
        problems += (_problem("videos.csv", row, fault) for fault in faults)
        if not any(fault.dropped for fault in faults):
            videos.append(video)
            seen[video.video_id] = row.line
            if users and video.user_id not in users and video.user_id not in lost_users:
                rule = "user_id must stand in users.csv"
                remedy = "add the user; until then all attributes are unknown"
                fault = Fault(_UNKNOWN_USER, rule, show(video.user_id), remedy, dropped=False)
                problems.append(_problem("videos.csv", row, fault))
    by_line = operator.attrgetter("line")
    return RawDataset(
        root,
        tuple(videos),
        users,
        (*sorted(problems, key=by_line), *sorted(user_problems, key=by_line)),
        _fingerprint(videos, users.values()),
        rules,
    )


def _parse_users(
    users_csv: bytes, lost: set[str] | None = None, rules: int = CURRENT
) -> tuple[dict[str, User], list[Problem]]:
    """Reads users.csv; adds the ids of bad rows to `lost`."""
    users: dict[str, User] = {}
    rows, problems = parse_rows(users_csv, "users.csv", USER_COLUMNS, "history")
    seen: dict[str, int] = {}
    for row in rows:
        user, faults = _read_user(row, seen, rules)
        problems += (_problem("users.csv", row, fault) for fault in faults)
        if not any(fault.dropped for fault in faults):
            users[user.user_id] = user
            seen[user.user_id] = row.line
        elif lost is not None:
            lost.add(user.user_id)
    return users, problems


def _problem(file: str, row: Row, fault: Fault) -> Problem:
    kind, rule, value, remedy, dropped = fault
    return Problem(file, row.line, rule, value, remedy, kind, dropped)


def _read_video(
    row: Row, seen: Mapping[str, int], files: Files, rules: int
) -> tuple[Video, list[Fault]]:
    """Returns a video and its faults; `seen` maps the ids of good rows to lines."""
    fields = row.fields
    faults = id_faults("video_id", fields["video_id"], seen)
    if fields["path"] or files is not None:
        faults += path_faults(fields["path"], files)
    if not fields["user_id"]:
        rule = "user_id must not be empty"
        remedy = "give the poster any id; users.csv need not have it"
        faults.append(Fault("empty user_id", rule, show(""), remedy))
    hashtags, list_faults = read_list(fields["hashtags"], rules)
    if not hashtags.keys:
        rule, value = "hashtags must name at least one hashtag", show(fields["hashtags"])
        if list_faults:
            rule = f"{rule}, and {list_faults[0].rule}"
        list_faults = [Fault("no hashtags", rule, value, "add one or delete the row")]
    timestamp, time_faults = read_time(fields["timestamp"], rules)
    spellings = hashtags.spellings if hashtags.spellings != hashtags.keys else ()
    video = Video(
        fields["video_id"], fields["path"], fields["user_id"], hashtags.keys, timestamp, spellings
    )
    return video, faults + list_faults + time_faults


def _read_user(row: Row, seen: Mapping[str, int], rules: int) -> tuple[User, list[Fault]]:
    """Returns a user and the faults of the row; `seen` maps the ids of good rows to lines."""
    fields = row.fields
    faults = id_faults("user_id", fields["user_id"], seen)
    age, age_faults = read_age(fields["age"], rules)
    history, list_faults = read_list(fields["history"], rules)
    gender, country = fields["gender"], fields["country"]
    if rules > 1:
        gender, country = fold_gender(gender), fold_country(country)
    user = User(fields["user_id"], gender, age, country, history.keys)
    return user, faults + age_faults + list_faults


def _fingerprint(videos: Iterable[Video], users: Iterable[User]) -> str:
    lines = sorted(json.dumps(_facts(row)) for row in (*videos, *users))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _facts(row: Video | User) -> list:
    """Returns the values of a row that enter the fingerprint; spellings only if there are any."""
    return [type(row).__name__, *(v for n, v in vars(row).items() if v or n != "spellings")]


def _fields(video: Video) -> tuple:
    """Returns a row of videos.csv."""
    time = spell_time(video.timestamp)
    return video.video_id, video.path, video.user_id, _list(video.written), time


def _list(hashtags: tuple[str, ...]) -> str:
    """Returns a list of hashtags for a table, with a '#' if it would else mean an empty list."""
    text = " ".join(hashtags)
    return f"#{text}" if text.casefold() in MISSING else text


def _user_fields(user: User) -> tuple:
    """Returns a row of users.csv."""
    return user.user_id, user.gender, user.age, user.country, _list(user.history)


def _format(columns: Sequence[str], rows: Iterable[Sequence]) -> bytes:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return buffer.getvalue().encode("utf-8", "surrogatepass")  # reading refuses surrogates
