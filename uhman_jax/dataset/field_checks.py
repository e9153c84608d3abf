"""Defines the rows `Video` and `User` of the raw tables; reads and checks their fields."""

import dataclasses
import datetime
import decimal
import os
import re
import stat
import unicodedata
from collections.abc import Collection, Mapping
from pathlib import Path

from uhman_jax.dataset.attributes import fold_country, fold_gender, is_unknown
from uhman_jax.dataset.csv_rows import Problem, show
from uhman_jax.dataset.hashtags import MISSING, Hashtags, read_hashtags, split_hashtags

UNKNOWN_USER = "unknown user"  # `Problem.kind` of a video whose user is not in users.csv
MAX_AGE = 120  # years
MAX_TIMESTAMP = 253_402_300_799  # unix seconds: the end of the year 9999
_MAX_LENGTH = 64  # characters of an age or a time
_AGE = re.compile(r"(\d{1,4})(?:[.,]\d*)? ?(?:y|yo|y/o|yrs?|years?)?(?: ?old)?")
_NUMBER = re.compile(r"\d+(?:\.\d*)?(?:e\+?\d{1,3})?", re.ASCII)
_DAY = re.compile(r"(?:19[7-9]|20\d)\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])", re.ASCII)
_ZONE = re.compile(r" ?(?:utc|gmt|z)$| (?=[+-]\d\d:?\d\d$)", re.ASCII)
_WHOLE = re.compile(r"([0-9]{1,18})(\.0*)?")  # some programs write 7 as 7.0


# Where video files are looked up: a local folder, or sizes by path in a remote one; None: nowhere.
Files = Path | Mapping[str, int] | None


@dataclasses.dataclass(frozen=True)
class Video:
    """One video and its labels."""

    video_id: str
    path: str  # relative to the root
    user_id: str
    hashtags: tuple[str, ...]  # normalised, each once
    timestamp: int | None  # unix seconds
    spellings: tuple[str, ...] = ()  # as the user wrote them, without '#'; () if as `hashtags`
    group: str = ""  # videos of one group are in one part of every split; "": none

    def __post_init__(self):
        """Stores spellings only if they differ from the hashtags."""
        if self.spellings == self.hashtags:
            object.__setattr__(self, "spellings", ())

    @property
    def written(self) -> tuple[str, ...]:
        """The hashtags as the user wrote them."""
        return self.spellings or self.hashtags


@dataclasses.dataclass(frozen=True)
class User:
    """One user; "" and None mean unknown. `history` has normalised earlier hashtags, each once."""

    user_id: str
    gender: str = ""
    age: int | None = None
    country: str = ""
    history: tuple[str, ...] = ()


def read_video(
    fields: Mapping[str, str],
    lines: Mapping[str, int],
    files: Files,
    known_users: Collection[str] | None,
    rules: int,
) -> tuple[Video, list[Problem]]:
    """Returns the video of a row of videos.csv and its problems.

    Args:
        fields: stripped fields of the row, by column.
        lines: line number of each good row before this one, by id.
        files: where to look up the video file.
        known_users: ids in users.csv; None if it has no good row.
        rules: version of the rules, see `dataset.rules`.
    """
    video_id, path, user_id = fields["video_id"], fields["path"], fields["user_id"]
    problems = [_id_problem("video_id", video_id, lines)]
    if path or files is not None:
        problems.append(_path_problem(path, files))
    if not user_id:
        rule = "user_id must not be empty"
        remedy = "give the poster any id; users.csv need not have it"
        problems.append(Problem("empty user_id", rule, show(""), remedy))
    hashtags, list_problem = _read_list(fields["hashtags"], rules)
    if not hashtags.keys:
        rule, shown = "hashtags must name at least one hashtag", show(fields["hashtags"])
        if list_problem:
            rule = f"{rule}, and {list_problem.rule}"
        list_problem = Problem("no hashtags", rule, shown, "add one or delete the row")
    timestamp, time_problem = _read_time(fields["timestamp"], rules)
    group = fields.get("group", "") if rules > 2 else ""
    group = "" if group.casefold() in MISSING else group
    video = Video(video_id, path, user_id, hashtags.keys, timestamp, hashtags.spellings, group)
    found = [problem for problem in (*problems, list_problem, time_problem) if problem]
    known = known_users is None or user_id in known_users
    if not known and not any(problem.dropped for problem in found):
        rule, shown = "user_id must be in users.csv", show(user_id)
        remedy = "add the user; until then all attributes are unknown"
        found.append(Problem(UNKNOWN_USER, rule, shown, remedy, dropped=False))
    return video, found


def read_user(
    fields: Mapping[str, str], lines: Mapping[str, int], rules: int
) -> tuple[User, list[Problem]]:
    """Returns the user of a row of users.csv and its problems; arguments as in `read_video`."""
    age, age_problem = _read_age(fields["age"], rules)
    history, list_problem = _read_list(fields["history"], rules)
    gender, country = fields["gender"], fields["country"]
    if rules > 1:
        gender, country = fold_gender(gender), fold_country(country)
    problems = _id_problem("user_id", fields["user_id"], lines), age_problem, list_problem
    user = User(fields["user_id"], gender, age, country, history.keys)
    return user, [problem for problem in problems if problem]


def _id_problem(column: str, value: str, lines: Mapping[str, int]) -> Problem | None:
    """Returns the problem of an id; arguments as in `read_video`."""
    if not value:
        rule = f"{column} must not be empty"
        return Problem(f"empty {column}", rule, show(value), "give the row an id")
    if value in lines:
        shown = f"{show(value)}, which line {lines[value]} has too"
        remedy = "rename or delete one of the two"
        return Problem(f"duplicate {column}", f"{column} must be unique", shown, remedy)
    return None


def _path_problem(path: str, files: Files) -> Problem | None:
    """Returns the problem of a path; the file is looked up unless `files` is None."""
    shown, normal = show(path), os.path.normpath(path)
    if not path:
        return Problem("no path", "path must name the video file", shown, "fill it in")
    if os.path.isabs(normal) or normal.split(os.sep)[0] == os.pardir:
        rule = "path must stay inside the dataset's folder"
        remedy = "move or link the file there and give its relative path"
        return Problem("path outside", rule, shown, remedy)
    if files is None:
        return None
    remedy = "restore the file, correct the path, or delete the row"
    missing = Problem("missing file", "path must name an existing file", shown, remedy)
    if isinstance(files, Mapping):
        return None if normal in files else missing
    unreadable, rule = "unreadable file", "path must name a readable file"
    try:
        mode = os.stat(files / path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return missing
    except OSError as error:
        return Problem(unreadable, rule, f"{shown} ({error.strerror})", "correct the path")
    if not stat.S_ISREG(mode):
        rule = "path must name a regular file (no folder, pipe or device)"
        return Problem("not a regular file", rule, shown, "name the video")
    if not os.access(files / path, os.R_OK):
        return Problem(unreadable, rule, shown, "change the file's permissions")
    return None


def _read_list(field: str, rules: int) -> tuple[Hashtags, Problem | None]:
    """Returns the hashtags of a list and its problem; `rules` as in `dataset.rules`."""
    if rules == 1:
        keys = split_hashtags(field, rules)
        return Hashtags(keys, keys, ()), None
    hashtags = read_hashtags(field)
    if not hashtags.rejected:
        return hashtags, None
    rule = "a hashtag must hold letters, marks, digits, underscores and emoji only"
    more = ", ..." if len(hashtags.rejected) > 3 else ""
    value = ", ".join(map(show, hashtags.rejected[:3])) + more
    remedy = "spell it otherwise or delete it; until then it is left out"
    return hashtags, Problem("not a hashtag", rule, value, remedy, dropped=False)


def _read_time(field: str, rules: int) -> tuple[int | None, Problem | None]:
    """Returns a timestamp (None if unknown) and its problem."""
    rule = f"timestamp must be whole unix seconds (not milliseconds) from 0 to {MAX_TIMESTAMP}"
    remedy = "convert it, or leave it empty if unknown"
    if rules > 1:
        rule = "timestamp must be unix seconds or milliseconds or an ISO 8601 date, 1970 to 9999"
        remedy += "; until then it is unknown"
    try:
        return parse_time(field) if rules > 1 else _whole(field, _WHOLE, 0, MAX_TIMESTAMP), None
    except ValueError:
        return None, Problem("bad timestamp", rule, show(field), remedy, dropped=rules == 1)


def _read_age(field: str, rules: int) -> tuple[int | None, Problem | None]:
    """Returns an age in years (None if unknown) and its problem."""
    rule = f"age must be whole years from 1 to {MAX_AGE}"
    unknown = "it" if rules > 1 else "the whole user"
    remedy = f"correct it, or leave it empty if unknown; until then {unknown} is unknown"
    try:
        return parse_age(field) if rules > 1 else _whole(field, _WHOLE, 1, MAX_AGE), None
    except ValueError:
        return None, Problem("bad age", rule, show(field), remedy, dropped=rules == 1)


def _whole(text: str, pattern: re.Pattern, low: int, high: int) -> int | None:
    """Returns the number in a text, None if empty; raises ValueError if not in low to high."""
    if not text:
        return None
    match = pattern.fullmatch(text)
    if not match or not low <= int(match[1]) <= high:
        raise ValueError(text)
    return int(match[1])


def parse_age(text: str) -> int | None:
    """Returns the age in whole years in a field, None if unknown.

    >>> [parse_age(text) for text in ("25", " 25.0", "25 years", "25 y/o", "n/a")]
    [25, 25, 25, 25, None]

    Raises:
        ValueError: the field is not an age from 1 to 120.
    """
    return _whole(_plain(text), _AGE, 1, MAX_AGE)


def parse_time(text: str) -> int | None:
    """Returns the time in a field as unix seconds, None if unknown.

    The field may hold unix seconds, milliseconds (13 digits), microseconds (16), nanoseconds (19),
    or an ISO 8601 date, with or without a time of day. Eight digits that form a day from 1970 to
    2099 are a date. A time without a zone is UTC; fractions of a second are truncated.

    >>> [parse_time(text) for text in ("1700000000", "1.7e9", "1700000000123", "2023-11-14")]
    [1700000000, 1700000000, 1700000000, 1699920000]
    >>> parse_time("2023-11-14T23:13:20+01:00"), parse_time("2023-11-14 22:13:20 UTC")
    (1700000000, 1700000000)

    Raises:
        ValueError: the field is not a time from 1970 to 9999.
    """
    text = _plain(text)
    if not text:
        return None
    if _NUMBER.fullmatch(text) and not _DAY.fullmatch(text):
        seconds = decimal.Decimal(text)
        for digits in (9, 6, 3):  # of nanoseconds, microseconds, milliseconds
            if seconds >= 10 ** (9 + digits):
                seconds = seconds.scaleb(-digits)
                break
    else:
        if text[4:5] != "-" and not _DAY.match(text):
            raise ValueError(text)
        time = datetime.datetime.fromisoformat(_ZONE.sub("", text).upper())
        seconds = time.replace(tzinfo=time.tzinfo or datetime.UTC).timestamp() // 1
    if not 0 <= seconds <= MAX_TIMESTAMP:
        raise ValueError(text)
    return int(seconds)


def spell_time(seconds: int | None) -> str:
    """Returns a text from which `parse_time` reads the timestamp.

    >>> spell_time(1700000000), spell_time(20231114), spell_time(None)
    ('1700000000', '20231114.0', '')
    """
    text = "" if seconds is None else str(seconds)
    return f"{text}.0" if _DAY.fullmatch(text) else text


def _plain(text: str) -> str:
    """Returns an age or a time in lower case with single spaces; "" if it is unknown."""
    if len(text) > _MAX_LENGTH:
        raise ValueError(text)
    if text.isascii() and text.isdecimal():
        return text
    return "" if is_unknown(text) else " ".join(unicodedata.normalize("NFKC", text).lower().split())
