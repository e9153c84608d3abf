"""Makes a dataset from the videos of YFCC100M: videos.csv and users.csv from its metadata.

    python -m tools.import_yfcc100m --root=yfcc --metadata=yfcc100m_dataset-0.bz2,...
    aria2c --input-file=yfcc/download.txt --dir=yfcc/clips
    python -m tools.import_yfcc100m --root=yfcc --metadata=yfcc100m_dataset-0.bz2,...

The first call writes a list of downloads for aria2c and downloads nothing. The second writes the
tables of the clips in ROOT/clips, named <id>.video or with another video suffix. Reads both
editions of the metadata (23 and 25 columns), plain or compressed (.bz2, .gz). The hashtags of a
video are its user tags without spaces; machine tags and tags that cannot be hashtags are dropped.
`licences.csv` has licence, author and page of every video: most licences require the author's name,
and some forbid commercial use. A user's country is the most frequent one of their videos with a
location (`pip install reverse-geocode`, or --nocountries); they may live elsewhere. Gender and age
are unknown. ROOT/dropped.csv lists everything that cannot be used, with the reason.
"""

import bz2
import collections
import dataclasses
import gzip
import importlib
import io
import os
import pathlib
import urllib.parse
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from absl import flags

from tools.clip_files import ClipFiles
from tools.import_report import Dropped, run_import, write_csv
from uhman_jax.dataset.attributes import country_names
from uhman_jax.dataset.field_checks import parse_time
from uhman_jax.dataset.hashtags import keyword_hashtag, normalise_hashtag
from uhman_jax.dataset.raw import User, Video, fault_of, write_raw_dataset
from uhman_jax.runtime.errors import UserError, count_of
from uhman_jax.runtime.progress import progress_bar
from uhman_jax.runtime.storage import atomic_write, escape_name
from uhman_jax.runtime.streams import run_app

_ROOT = flags.DEFINE_string("root", None, "Folder of the dataset.", required=True)
_METADATA = flags.DEFINE_list("metadata", None, "Files of the dataset's metadata.", required=True)
_COUNTRIES = flags.DEFINE_bool("countries", True, "Find the users' countries.")

CLIPS = "clips"
_VIDEO = "1"  # the marker of the last column; "0" is a photo
_LICENCES = ("video_id", "licence", "licence_url", "author", "page_url")


class Item(NamedTuple):
    """A line of the metadata."""

    video: Video  # its hashtags are the user tags; its path is that of a download
    nickname: str
    odd: tuple[tuple[str, str], ...]  # (reason, text) of unusable parts
    location: tuple[float, float] | None  # latitude, longitude
    page_url: str
    download_url: str
    licence: str
    licence_url: str
    is_video: bool


def parse(line: str) -> Item | str:
    r"""Reads a line of either edition; returns the reason if it cannot be read.

    >>> fields = "7 9@N0 Al+Bo null 1200000000 - - - new+york,sun - 2.35 48.86 16 page "
    >>> fields = (fields + "http://v/7 Attribution http://l 3 2 s o jpg 1").split()
    >>> item = parse("\t".join(fields))
    >>> item.nickname, item.video.hashtags, item.location, item.is_video
    ('Al Bo', ('newyork', 'sun'), (48.86, 2.35), True)
    >>> parse("\t".join(["0", fields[0], "hash", *fields[1:]])) == item
    True
    >>> parse("7\tnothing")
    'a line of 2 columns'
    """
    fields = line.rstrip("\r\n").split("\t")
    if len(fields) == 25:  # a line number first, and a hash after the id
        fields = [fields[1], *fields[3:]]
    if len(fields) != 23:
        return f"a line of {len(fields)} columns"
    text = ["" if field == "null" else urllib.parse.unquote_plus(field) for field in fields]
    written, odd = {}, []
    for tag in map(urllib.parse.unquote_plus, fields[8].split(",") if text[8] else ()):
        if spelling := keyword_hashtag(tag):
            written.setdefault(normalise_hashtag(spelling), spelling)
        elif tag.strip():
            odd.append(("a tag that is no hashtag", tag))
    try:
        uploaded = parse_time(text[4])
    except ValueError:
        uploaded = None
        odd.append(("a time that cannot be read", text[4]))
    user, path = " ".join(text[1].split()), f"{CLIPS}/{text[0]}.video"
    video = Video(text[0], path, user, tuple(written), uploaded, tuple(written.values()))
    return Item(
        video=video,
        nickname=" ".join(text[2].split()),
        odd=tuple(odd),
        location=_location(text[11], text[10]),
        page_url=text[13],
        download_url=text[14],
        licence=text[15],
        licence_url=text[16],
        is_video=text[22] == _VIDEO,
    )


def _location(latitude: str, longitude: str) -> tuple[float, float] | None:
    try:
        north, east = float(latitude), float(longitude)
    except ValueError:
        return None
    return (north, east) if abs(north) <= 90 and abs(east) <= 180 else None


def _lines(path: pathlib.Path) -> Iterator[str]:
    """Yields the lines of a metadata file, with a progress bar."""
    kinds: dict[str, Any] = {".bz2": bz2.open, ".gz": gzip.open}
    try:
        opened = kinds.get(path.suffix, open)(path, "rb")
    except OSError as error:
        raise UserError(
            f"--metadata must name files that can be read, got {str(path)!r} ({error.strerror}); "
            "correct the path"
        ) from error
    with (
        io.TextIOWrapper(opened, "utf-8", errors="replace", newline="\n") as file,
        progress_bar(file, desc=path.name, unit="line") as lines,
    ):
        try:
            yield from lines
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(
                f"a metadata file must be whole, got {str(path)!r} ({error}); fetch it again"
            ) from error


def read_videos(paths: Iterable[pathlib.Path], dropped: Dropped) -> Iterator[Item]:
    """Yields each usable video once; records the other videos in `dropped`.

    Raises:
        UserError: a file is missing or damaged.
    """
    seen: set[str] = set()
    for path in paths:
        for number, line in enumerate(_lines(path), start=1):
            item = parse(line)
            if isinstance(item, str):
                dropped.add(f"{path.name}:{number}", item)
            elif item.is_video:
                name = item.video.video_id or f"{path.name}:{number}"
                for reason, value in item.odd:
                    dropped.note(name, reason, value)
                if reason := _unusable(item.video, seen):
                    dropped.add(name, reason)
                else:
                    seen.add(item.video.video_id)
                    yield item


def _unusable(video: Video, seen: set[str]) -> str:
    """Returns why a video cannot be used; "" if it can."""
    if not video.video_id.isdecimal():
        return "no id"
    if video.video_id in seen:
        return "an id that another video has"
    if not video.user_id:
        return "no user"
    if not video.hashtags:
        return "no user tags"
    return fault_of(video) or fault_of(User(video.user_id))


def countries(items: Iterable[Item]) -> dict[str, str]:
    """Returns the code of each user's most frequent country among videos with a location.

    Raises:
        UserError: reverse-geocode is not installed.
    """
    try:
        library = importlib.import_module("reverse_geocode")
    except ImportError as error:
        raise UserError(
            "countries need reverse-geocode, which is not installed; pip install reverse-geocode, "
            "or --nocountries"
        ) from error
    located = [item for item in items if item.location]
    found = library.search([item.location for item in located]) if located else []
    counts: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    names = country_names()
    for item, city in zip(located, found, strict=True):
        code = city["country_code"]
        counts[item.video.user_id][names.get(code.casefold(), code)] += 1  # "NA" means unknown
    return {
        user: min(count, key=lambda code: (-count[code], code)) for user, count in counts.items()
    }


def import_metadata(
    root: pathlib.Path, paths: Iterable[pathlib.Path], find_countries: bool
) -> list[str]:
    """Writes the tables of the clips on disk and the list of downloads; returns the report.

    Raises:
        UserError: a metadata file is missing or damaged, or has no video.
    """
    dropped = Dropped()
    items = list(read_videos(paths, dropped))
    folder = root / CLIPS
    folder.mkdir(parents=True, exist_ok=True)
    names = set(os.listdir(folder))
    clips = ClipFiles(folder, (name for name in names if f"{name}.aria2" not in names))
    videos, missing = [], []
    for item in items:
        if clip := clips.find(item.video.video_id):
            videos.append(dataclasses.replace(item.video, path=f"{CLIPS}/{clip}"))
        elif _is_address(item.download_url):
            missing.append(item)
        else:
            dropped.note(item.video.video_id, "no address to download from", item.download_url)
    none = "the metadata must have a video that can be used"
    lines = dropped.report(root, len(items), "video", none)
    licences = (
        (i.video.video_id, i.licence, i.licence_url, i.nickname or i.video.user_id, i.page_url)
        for i in items
    )
    write_csv(root / "licences.csv", _LICENCES, licences)
    with atomic_write(root / "download.txt") as file:
        for item in missing:
            file.write(f"{item.download_url}\n  out={item.video.video_id}.video\n".encode())
    are = "is" if len(videos) == 1 else "are"
    listed = f"{len(missing)} in {root / 'download.txt'}"
    lines.append(f"{len(videos)} of them {are} in {folder}, {listed}.")
    if videos:
        country_of = countries(items) if find_countries else {}
        ids = dict.fromkeys(video.user_id for video in videos)
        users = [User(user, country=country_of.get(user, "")) for user in ids]
        write_raw_dataset(root, videos, users)
        known = sum(user in country_of for user in ids)
        lines.append(f"{count_of(len(ids), 'user')}, {known} with a country.")
    return lines


def _is_address(text: str) -> bool:
    """Returns whether aria2c reads a line as one address."""
    return bool(text) and escape_name(text) == text and not any(map(str.isspace, text))


def main(_: list[str]) -> None:
    """Imports the metadata; a user's mistake exits with status 2."""
    root = pathlib.Path(_ROOT.value)
    paths = [pathlib.Path(path) for path in _METADATA.value]
    run_import(root, lambda: import_metadata(root, paths, _COUNTRIES.value))


if __name__ == "__main__":
    run_app(main)
