"""A folder of yt-dlp downloads becomes a dataset: videos.csv and users.csv beside the clips.

    yt-dlp --write-info-json -o 'clips/%(id)s.%(ext)s' ADDRESS...
    python -m tools.import_ytdlp --folder=clips [--users=users.csv] [--hashtags=description]

Needs the `.info.json` of every clip. Hashtags are what the description marks with '#'; where there
is no description the title stands in, without a last word that its end may have cut. `tags` of
YouTube and others are keywords: --hashtags=tags or both takes them too. Who posts is the uploader's
id, else the channel's, else the uploader's name. Nothing tells their gender, age and country, so a
table of your own may: FOLDER/users.csv, whose rows all stay, or another one (--users), of which
those who post a clip are taken. `age_limit` rates the content and is not used.
"""

import csv
import datetime
import json
import pathlib
import unicodedata
from typing import Any

from absl import flags

from tools.import_report import Dropped, tell
from uhman_jax.dataset.hashtags import normalise_hashtag
from uhman_jax.dataset.raw import USER_COLUMNS, User, Video, fault_of, read_users, write_raw_dataset
from uhman_jax.errors import UserError
from uhman_jax.streams import run_app

_FOLDER = flags.DEFINE_string("folder", None, "Of clips and .info.json files.", required=True)
_USERS = flags.DEFINE_string("users", "", "Table of users; default: FOLDER/users.csv, if there.")
_HASHTAGS = flags.DEFINE_enum(
    "hashtags", "description", ["description", "tags", "both"], "What holds the hashtags."
)

INFO = ".info.json"
_NOT_CLIPS = {".json", ".part", ".ytdl", ".description", ".vtt", ".srt", ".ass", ".lrc"}
_NOT_CLIPS |= {".jpg", ".jpeg", ".png", ".webp", ".gif", ".txt", ".csv", ".xml", ".temp"}
_TITLE_LENGTH = 72  # at which TikTok's and Instagram's titles are cut
_JOINERS = "\u200c\u200d"


def marked_hashtags(text: str) -> list[str]:
    """Hashtags of a text, normalised, in order, each once.

    A '#' within a word or an address marks none, nor does one before digits alone.

    >>> marked_hashtags("Look #Fun#sun! a.b/c#top #2024 #été_2 &#39; #नमस्ते")
    ['fun', 'sun', 'été_2', 'नमस्ते']
    """
    found, before, index = [], " ", 0
    while index < len(text):
        if text[index] not in "#\uff03" or before.isalnum() or before in "/&_":
            before = text[index]
            index += 1
            continue
        end = index + 1
        while end < len(text) and _in_hashtag(text[end]):
            end += 1
        word = normalise_hashtag(text[index:end])
        if word and not word.isdigit():
            found.append(word)
        before, index = " ", max(end, index + 1)
    return list(dict.fromkeys(found))


def _in_hashtag(character: str) -> bool:
    mark = unicodedata.category(character) in ("Mn", "Mc")
    return character.isalnum() or character == "_" or mark or character in _JOINERS


def whole_words(title: str) -> str:
    """A title without its last word, where that may be cut.

    >>> whole_words("a day at the #bea..."), whole_words("#beach")
    ('a day at the ', '#beach')
    """
    cut = title.endswith(("...", "…")) or len(title) >= _TITLE_LENGTH
    if not cut:
        return title
    last = max(title.rfind(" "), title.rfind("#") - 1)
    return title[: last + 1]


def hashtags_of(info: dict[str, Any], source: str) -> tuple[str, ...]:
    """Hashtags of a clip."""
    text = info.get("description")
    if text is None:
        text = whole_words(info.get("title") or "")
    marked = [] if source == "tags" else marked_hashtags(str(text))
    tags = [] if source == "description" else info.get("tags") or []
    words = [normalise_hashtag(str(tag)) for tag in tags]
    return tuple(dict.fromkeys(word for word in [*marked, *words] if word))


def timestamp_of(info: dict[str, Any]) -> int | None:
    """When it was posted, unix seconds; the day alone counts as its begin in UTC."""
    if info.get("timestamp") is not None:
        return int(info["timestamp"])
    if not info.get("upload_date"):
        return None
    day = datetime.datetime.strptime(str(info["upload_date"]), "%Y%m%d")
    return int(day.replace(tzinfo=datetime.UTC).timestamp())


def user_of(info: dict[str, Any]) -> str:
    """Who posted it; "" if nothing tells."""
    for key in ("uploader_id", "channel_id", "uploader"):
        if info.get(key) is not None and str(info[key]).strip():
            return " ".join(str(info[key]).split())
    return ""


def clip_of(path: pathlib.Path, info: dict[str, Any]) -> pathlib.Path | None:
    """The clip beside an .info.json file."""
    stem = path.name.removesuffix(INFO)
    if isinstance(info.get("ext"), str):
        expected = path.with_name(f"{stem}.{info['ext']}")
        if expected.is_file():
            return expected
    beside = (other for other in path.parent.iterdir() if other.stem == stem)
    clips = [other for other in beside if other.suffix.lower() not in _NOT_CLIPS and other.suffix]
    return min((clip for clip in clips if clip.is_file()), default=None)


def read_clip(path: pathlib.Path, root: pathlib.Path, source: str) -> Video | str:
    """A clip, or why there is none."""
    try:
        info = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return "info that cannot be read"
    if not isinstance(info, dict):
        return "info that cannot be read"
    if info.get("_type") in ("playlist", "multi_video"):
        return "a playlist or channel"
    if info.get("id") is None:
        return "no id"
    clip = clip_of(path, info)
    if clip is None:
        return "no clip beside it"
    if not (user := user_of(info)):
        return "no uploader"
    if not (hashtags := hashtags_of(info, source)):
        return "no hashtags"
    try:
        timestamp = timestamp_of(info)
    except (ValueError, TypeError, OverflowError):
        return "a time that cannot be read"
    video = Video(str(info["id"]), clip.relative_to(root).as_posix(), user, hashtags, timestamp)
    return fault_of(video) or video


def import_folder(root: pathlib.Path, users_csv: pathlib.Path | None, source: str) -> list[str]:
    """Writes the tables of a folder; returns what to tell.

    Raises:
        UserError: the folder or the table of users is not there, or no clip is left.
    """
    if not root.is_dir():
        raise UserError(f"--folder must be one, got {str(root)!r}; correct the path")
    users = read_users(users_csv) if users_csv else {}
    own = root / "users.csv"
    written_again = bool(users_csv) and own.exists() and own.samefile(users_csv)
    if written_again:
        _check_columns(own)
    paths = sorted(root.rglob(f"*{INFO}"))
    if not paths:
        raise UserError(
            f"--folder must hold the {INFO} of every clip, got none in {root}; "
            "download with yt-dlp --write-info-json"
        )
    dropped, videos = Dropped(), {}
    for path in paths:
        name = path.relative_to(root).as_posix()
        video = read_clip(path, root, source)
        if isinstance(video, str):
            dropped.add(name, video)
        elif video.video_id in videos:
            dropped.add(name, "an id that another clip has")
        else:
            videos[video.video_id] = video
    told = dropped.lines(len(videos), "clips", root)
    dropped.write(root)
    if not videos:
        raise UserError("\n".join(["no clip is left to make a dataset of", *told]))
    posters = dict.fromkeys(video.user_id for video in videos.values())
    rows = {poster: users.get(poster) or User(poster, "", None, "", ()) for poster in posters}
    if written_again:  # nobody is lost
        rows = users | rows
    write_raw_dataset(root, videos.values(), rows)
    known = sum(poster in users for poster in posters)
    told.append(f"{len(posters)} users, {known} of them with attributes.")
    return told


def _check_columns(table: pathlib.Path) -> None:
    """Raises UserError where a table has more columns than will be written."""
    with table.open(encoding="utf-8-sig", newline="") as file:
        columns = next(csv.reader(file), [])
    if more := [name for name in columns if name.strip() not in USER_COLUMNS]:
        raise UserError(
            f"{table} is written again with the columns {', '.join(USER_COLUMNS)} alone, got also "
            f"{', '.join(map(repr, more))}; move it elsewhere and name it with --users"
        )


def main(argv: list[str]) -> None:
    """Imports; a mistake is one sentence and status 2."""
    root = pathlib.Path(_FOLDER.value)
    users_csv = pathlib.Path(_USERS.value) if _USERS.value else root / "users.csv"
    there = bool(_USERS.value) or users_csv.exists()
    tell(argv, root, lambda: import_folder(root, users_csv if there else None, _HASHTAGS.value))


if __name__ == "__main__":
    run_app(main)
