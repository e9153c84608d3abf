"""The videos of YFCC100M become a dataset: from its metadata to videos.csv, users.csv and clips.

    python -m tools.import_yfcc100m --root=yfcc --metadata=yfcc100m_dataset-0.bz2,...
    aria2c --input-file=yfcc/download.txt --dir=yfcc/clips
    python -m tools.import_yfcc100m --root=yfcc --metadata=yfcc100m_dataset-0.bz2,...

The first call writes what to download, for aria2c, and downloads nothing; the second the tables of
the clips that are there (ROOT/clips/<id>.*). Both editions are read, of 23 and of 25 columns, plain
or compressed (.bz2, .gz). A video's hashtags are its user tags, each without spaces; machine tags
are not used. `licences.csv` keeps licence, author and page of every clip: most must be named, and
some may not be used for money. A user's country is the one where most of their placed videos are
(`pip install reverse-geocode`; --nocountries goes without), which is not always where they live;
gender and age are unknown.
"""

import bz2
import collections
import gzip
import importlib
import io
import pathlib
import urllib.parse
from collections.abc import Iterable, Iterator
from typing import IO, Any, NamedTuple

from absl import flags

from tools.import_report import Dropped, tell, write_csv
from uhman_jax.dataset.hashtags import normalise_hashtag
from uhman_jax.dataset.raw import User, Video, write_raw_dataset
from uhman_jax.errors import UserError
from uhman_jax.progress import progress_bar
from uhman_jax.storage import replacing
from uhman_jax.streams import run_app

_ROOT = flags.DEFINE_string("root", None, "Folder of the dataset.", required=True)
_METADATA = flags.DEFINE_list("metadata", None, "Files of the dataset's metadata.", required=True)
_COUNTRIES = flags.DEFINE_bool("countries", True, "Find the users' countries.")

CLIPS = "clips"
_VIDEO = "1"  # the marker of the last column; "0" is a photo
_LICENCES = ("video_id", "licence", "licence_url", "author", "page_url")


class Item(NamedTuple):
    """A line of the metadata, of what is used of it."""

    id: str
    user: str
    nickname: str
    uploaded: int | None
    tags: tuple[str, ...]
    place: tuple[float, float] | None  # latitude, longitude
    page_url: str
    download_url: str
    licence: str
    licence_url: str
    is_video: bool


def parse(line: str) -> Item | str:
    r"""Reads a line of either edition, or says why it can't.

    >>> fields = "7 9@N0 Al+Bo null 1200000000 - - - new+york,sun - 2.35 48.86 16 page "
    >>> fields = (fields + "http://v/7 Attribution http://l 3 2 s o jpg 1").split()
    >>> item = parse("\t".join(fields))
    >>> item.nickname, item.tags, item.place, item.is_video
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
    tags = map(normalise_hashtag, map(urllib.parse.unquote_plus, fields[8].split(",")))
    return Item(
        id=text[0],
        user=text[1],
        nickname=" ".join(text[2].split()),
        uploaded=int(text[4]) if text[4].isdecimal() else None,
        tags=tuple(dict.fromkeys(tag for tag in tags if tag)) if text[8] else (),
        place=_place(text[11], text[10]),
        page_url=text[13],
        download_url=text[14],
        licence=text[15],
        licence_url=text[16],
        is_video=text[22] == _VIDEO,
    )


def _place(latitude: str, longitude: str) -> tuple[float, float] | None:
    try:
        place = float(latitude), float(longitude)
    except ValueError:
        return None
    return place if abs(place[0]) <= 90 and abs(place[1]) <= 180 else None


def open_metadata(path: pathlib.Path) -> IO[str]:
    """A metadata file as text.

    Raises:
        UserError: it is not there.
    """
    kinds: dict[str, Any] = {".bz2": bz2.open, ".gz": gzip.open}
    try:
        opened = kinds.get(path.suffix, open)(path, "rb")
    except OSError as error:
        raise UserError(
            f"--metadata must name files that can be read, got {str(path)!r} ({error.strerror}); "
            "correct the path"
        ) from error
    return io.TextIOWrapper(opened, "utf-8", errors="replace", newline="\n")


def read_videos(paths: Iterable[pathlib.Path], dropped: Dropped) -> Iterator[Item]:
    """The videos with a tag, each once; tells `dropped` of the others, but of no photo."""
    seen: set[str] = set()
    for path in paths:
        with open_metadata(path) as file, progress_bar(file, desc=path.name, unit="line") as lines:
            try:
                for number, line in enumerate(lines, start=1):
                    item = parse(line)
                    if isinstance(item, str):
                        dropped.add(f"{path.name}:{number}", item)
                    elif item.is_video:
                        if reason := _unusable(item, seen):
                            dropped.add(item.id or f"{path.name}:{number}", reason)
                        else:
                            seen.add(item.id)
                            yield item
            except (OSError, EOFError) as error:
                raise UserError(
                    f"a metadata file must be whole, got {str(path)!r} ({error}); fetch it again"
                ) from error


def _unusable(item: Item, seen: set[str]) -> str:
    """Why a video can't be used; "" if it can."""
    if not item.id.isdecimal():
        return "no id"
    if item.id in seen:
        return "an id that another video has"
    if not item.user:
        return "no user"
    return "" if item.tags else "no user tags"


def countries(items: Iterable[Item]) -> dict[str, str]:
    """Each user's country as two letters, that of most of their placed videos.

    Raises:
        UserError: the library for it is not installed.
    """
    try:
        library = importlib.import_module("reverse_geocode")
    except ImportError as error:
        raise UserError(
            "countries need reverse-geocode, which is not installed; pip install reverse-geocode, "
            "or --nocountries"
        ) from error
    placed = [item for item in items if item.place]
    if not placed:
        return {}
    found = library.search([item.place for item in placed])
    counts: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    for item, place in zip(placed, found, strict=True):
        counts[item.user][place["country_code"]] += 1
    return {
        user: min(count, key=lambda code: (-count[code], code)) for user, count in counts.items()
    }


def import_metadata(
    root: pathlib.Path, paths: Iterable[pathlib.Path], find_countries: bool
) -> list[str]:
    """Writes the tables of the clips that are there, and what to download; what to tell.

    Raises:
        UserError: a metadata file is missing or damaged, or has no video.
    """
    dropped = Dropped()
    items = list(read_videos(paths, dropped))
    folder = root / CLIPS
    folder.mkdir(parents=True, exist_ok=True)
    clips = {path.stem: path for path in sorted(folder.iterdir()) if path.suffix != ".aria2"}
    whole = {stem: path for stem, path in clips.items() if not _unfinished(path)}
    here = [item for item in items if item.id in whole]
    told = dropped.lines(len(items), "lines of videos", root)
    dropped.write(root)
    if not items:
        raise UserError("\n".join(["the metadata must have a video that can be used", *told]))
    write_csv(
        root / "licences.csv",
        _LICENCES,
        ((i.id, i.licence, i.licence_url, i.nickname or i.user, i.page_url) for i in items),
    )
    missing = [item for item in items if item.id not in whole]
    with replacing(root / "download.txt") as file:
        for item in missing:
            file.write(f"{item.download_url}\n  out={item.id}.video\n".encode())
    told.append(f"{len(here)} of them are in {folder}, {len(missing)} in {root / 'download.txt'}.")
    if here:
        where = countries(items) if find_countries else {}
        users = dict.fromkeys(item.user for item in here)
        videos = [
            Video(i.id, f"{CLIPS}/{whole[i.id].name}", i.user, i.tags, i.uploaded) for i in here
        ]
        rows = [User(user, "", None, where.get(user, ""), ()) for user in users]
        write_raw_dataset(root, videos, rows)
        known = sum(user in where for user in users)
        told.append(f"{len(users)} users, {known} with a country.")
    return told


def _unfinished(path: pathlib.Path) -> bool:
    """Whether aria2c is not done with it."""
    return path.with_name(path.name + ".aria2").exists()


def main(argv: list[str]) -> None:
    """Imports; a mistake is one sentence and status 2."""
    root = pathlib.Path(_ROOT.value)
    paths = [pathlib.Path(path) for path in _METADATA.value]
    tell(argv, root, lambda: import_metadata(root, paths, _COUNTRIES.value))


if __name__ == "__main__":
    run_app(main)
