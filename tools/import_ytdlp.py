"""Makes a dataset from a folder of yt-dlp downloads: videos.csv and users.csv beside the clips.

    yt-dlp --write-info-json -o 'clips/%(id)s.%(ext)s' ADDRESS...
    python -m tools.import_ytdlp --folder=clips [--users=users.csv] [--hashtags=description]

Needs the `.info.json` of every clip. By default (--hashtags=description), hashtags are the words
after '#' in title and description. A title that yt-dlp made up is ignored, and so is the last word
of a title that was cut. `tags` of YouTube and other sites are keywords: --hashtags=tags or both
uses them. A user's id is `channel_id`, else `uploader_id`, else `uploader`; clips that lack some of
these are matched to the user by the others. The files lack gender, age and country. Your own table
can add them under any of these ids: FOLDER/users.csv, which keeps its rows and gets the new users,
or another table (--users), of which only the users who posted a clip are used. `age_limit` rates
the content and is not used. FOLDER/dropped.csv lists everything that cannot be used, with the
reason.
"""

import csv
import dataclasses
import os
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

from absl import flags

from tools import ytdlp_info
from tools.clip_files import ClipFiles
from tools.import_report import Dropped, run_import
from tools.ytdlp_users import Poster, attributes_of, has_attributes, users_of
from uhman_jax.dataset.raw import (
    USER_COLUMNS,
    User,
    Video,
    add_users,
    fault_of,
    read_users,
    write_raw_dataset,
)
from uhman_jax.runtime.errors import UserError, count_of
from uhman_jax.runtime.storage import escape_name
from uhman_jax.runtime.streams import run_app

_FOLDER = flags.DEFINE_string(
    "folder", None, "Folder of clips and .info.json files.", required=True
)
_USERS = flags.DEFINE_string("users", "", "Table of users; default: FOLDER/users.csv if it exists.")
_HASHTAGS = flags.DEFINE_enum(
    "hashtags",
    "description",
    ["description", "tags", "both"],
    "Source of the hashtags: title and description, the list of tags, or both.",
)

INFO = ".info.json"


class Clip(NamedTuple):
    """A clip before its user is resolved, and the ids of its poster."""

    video: Video
    poster: Poster


def info_files(root: pathlib.Path, dropped: Dropped) -> Iterator[tuple[str, ClipFiles]]:
    """Yields the relative paths of all .info.json files in order, with the clips beside each.

    Lists each folder once; records folders that cannot be read in `dropped`.
    """
    names, clips = [], {}

    def unreadable(error: OSError) -> None:
        dropped.add(os.path.relpath(error.filename, root), "a folder that cannot be read")

    for folder, folders, files in os.walk(root, onerror=unreadable):
        inside = os.path.relpath(folder, root)
        clips[inside] = ClipFiles(folder, files)
        names += [os.path.join(inside, n) for n in (*folders, *files) if n.lower().endswith(INFO)]
    for name in sorted(map(os.path.normpath, names), key=lambda name: name.split(os.sep)):
        yield name, clips[os.path.dirname(name) or "."]


def read_clip(
    root: pathlib.Path, name: str, clips: ClipFiles, source: str, dropped: Dropped
) -> Clip | str:
    """Returns the clip of a file, or the reason why there is none; records dropped parts.

    Args:
        root: folder of all clips.
        name: path of the .info.json file, relative to `root`.
        clips: clips beside it.
        source: source of the hashtags, see `ytdlp_info.hashtags_of`.
        dropped: receives the dropped parts.
    """
    info = ytdlp_info.read_info(os.path.join(root, name))
    if isinstance(info, str):
        return info
    if info.get("_type") in ("playlist", "multi_video"):
        return "a playlist or channel"
    if not (video_id := ytdlp_info.video_id_of(info)):
        return "no id"
    if (extension := ytdlp_info.extension_of(info)) is None:
        return "an ext that is no suffix"
    folder, file = os.path.split(name)
    if not (clip := clips.find(file[: -len(INFO)], extension)):
        return "no clip beside it"
    poster = ytdlp_info.poster_of(info)
    if not (user := poster.channel or poster.uploader or poster.handle):
        return "no uploader"
    hashtags, spellings, odd = ytdlp_info.hashtags_of(info, source)
    for tag in odd:
        dropped.note(name, "a tag that is no hashtag", tag)
    if not hashtags:
        return "no hashtags"
    timestamp, odd_time = ytdlp_info.timestamp_of(info)
    if odd_time:
        dropped.note(name, "a time that cannot be read", odd_time)
    path = pathlib.PurePath(folder, clip).as_posix()
    video = Video(video_id, path, user, hashtags, timestamp, spellings)
    return fault_of(video) or fault_of(User(user)) or Clip(video, poster)


def import_folder(root: pathlib.Path, users_csv: pathlib.Path | None, source: str) -> list[str]:
    """Writes the tables of a folder; returns the report.

    Raises:
        UserError: the folder or the table of users is missing, or no clip is left.
    """
    if not root.is_dir():
        raise UserError(f"--folder must be a folder, got {str(root)!r}; correct the path")
    dropped, clips = Dropped(), {}
    table = _listed_users(users_csv, dropped) if users_csv else {}
    files = list(info_files(root, dropped))
    if not files:
        raise UserError(
            f"--folder must contain the {INFO} of every clip, got none in {root}; "
            "download with yt-dlp --write-info-json"
        )
    for name, beside in files:
        clip = read_clip(root, name, beside, source, dropped)
        if isinstance(clip, str):
            dropped.add(name, clip)
        elif clip.video.video_id in clips:
            dropped.add(name, "an id that another clip has")
        else:
            clips[clip.video.video_id] = clip
    lines = dropped.report(root, len(clips), "clip", "no clip is left to make a dataset from")
    return lines + _write_tables(root, [*clips.values()], table, users_csv)


def _listed_users(users_csv: pathlib.Path, dropped: Dropped) -> dict[str, User]:
    """Returns the valid rows of a table of users by id; records the others in `dropped`."""
    users, problems = read_users(users_csv)
    for problem in problems:
        part = "a row of users" if problem.dropped else "an attribute"
        value = f"{problem.kind} {problem.value}"
        dropped.note(f"{users_csv.name}:{problem.line}", f"{part} that cannot be read", value)
    return users


def _write_tables(
    root: pathlib.Path, clips: list[Clip], table: dict[str, User], users_csv: pathlib.Path | None
) -> list[str]:
    """Writes both tables of a folder; returns the lines of the report about users.

    `table` has the users of `users_csv`; if that is FOLDER/users.csv, all of its rows stay.
    """
    posters = [clip.poster for clip in clips]
    ids = users_of(posters)
    pairs = zip(clips, ids, strict=True)
    videos = [dataclasses.replace(clip.video, user_id=user) for clip, user in pairs]
    found = attributes_of(posters, ids, table)
    rows = {user: dataclasses.replace(found.get(user) or User(user), user_id=user) for user in ids}
    own = root / "users.csv"
    if users_csv and own.exists() and own.samefile(users_csv):
        kept = table
        new = [row for user, row in rows.items() if user not in table]
        write_raw_dataset(root, videos, add_users(own.read_bytes(), new))
    else:
        before = _rewritable(own) if own.exists() else {}
        kept = {u: before[u] for u in before if u not in found or not has_attributes(found[u])}
        write_raw_dataset(root, videos, rows | kept)
    rows = {user: kept.get(user, row) for user, row in rows.items()}
    known = sum(map(has_attributes, rows.values()))
    others = [user for user, row in found.items() if row.user_id != user]
    used = [user for user in others if rows[user] == dataclasses.replace(found[user], user_id=user)]
    unused = [user for user in others if user not in used]
    return [
        f"{count_of(len(rows), 'user')}, {known} with attributes.",
        *_other_ids("found in the table under another id", found, used),
        # The row under their own id lacks attributes and is not changed.
        *_other_ids("without attributes, which another of their rows has", found, unused),
    ]


def _other_ids(how: str, found: dict[str, User], users: list[str]) -> list[str]:
    """Returns a line of the report about users found under another of their ids."""
    if not users:
        return []
    pairs = [f"{found[user].user_id} for {user}" for user in users]
    few = escape_name(", ".join(pairs[:3])) + (", ..." if len(pairs) > 3 else "")
    return [f"{count_of(len(pairs), 'user')} {how}: {few}."]


def _rewritable(table: pathlib.Path) -> dict[str, User]:
    """Returns the users of a table, which must be rewritable without loss.

    Raises:
        UserError: it has further columns, or rows that cannot be read.
    """
    users, problems = read_users(table)
    with table.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        header = next((row for row in csv.reader(file) if "".join(row).strip()), [])
    lost = [f"the column {name!r}" for name in header if name.strip() not in USER_COLUMNS]
    lost += [f"line {problem.line} ({problem.kind})" for problem in problems]
    if lost:
        raise UserError(
            f"{table} is rewritten with the users of --users and must have no content that this "
            f"loses, got {', '.join(lost[:3])}; move it elsewhere"
        )
    return users


def main(_: list[str]) -> None:
    """Imports the folder; a user's mistake exits with status 2."""
    root = pathlib.Path(_FOLDER.value)
    users_csv = pathlib.Path(_USERS.value) if _USERS.value else root / "users.csv"
    table = users_csv if _USERS.value or users_csv.exists() else None
    run_import(root, lambda: import_folder(root, table, _HASHTAGS.value))


if __name__ == "__main__":
    run_app(main)
