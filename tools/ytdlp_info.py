"""Reads hashtags, time and ids of a clip from an .info.json file of yt-dlp."""

import datetime
import json
import os
import re
from typing import Any

from tools.ytdlp_users import Poster
from uhman_jax.dataset.field_checks import parse_time
from uhman_jax.dataset.hashtags import keyword_hashtag, marked_hashtags, normalise_hashtag

_UNKNOWN = ("", "na", "n/a", "nan", "null", "none", "unknown", "-", "@")
_CUT_LENGTH = 72  # characters at which yt-dlp cuts the titles of TikTok and other sites
_CUT_ENDS = ("...", "…")
_EXTENSION = re.compile(r"\w{1,20}", re.ASCII)
_BY = re.compile(r"(?:video|post|clip|photo|reel|story|stories) by (.+)", re.IGNORECASE | re.DOTALL)


def read_info(path: str) -> dict[str, Any] | str:
    """Returns the content of an .info.json file, or the reason why it cannot be read."""
    if not os.path.isfile(path):  # a pipe would block
        return "info that is no file"
    try:
        with open(path, "rb") as file:
            info = json.loads(file.read())  # UTF-8, UTF-16 or UTF-32
    except (OSError, ValueError, RecursionError):
        return "info that cannot be read"
    return info if isinstance(info, dict) else "info that cannot be read"


def id_of(value: Any) -> str:
    """Returns an id as text; "" for a boolean, a float, a list or no id.

    >>> id_of(" Jo  Doe"), id_of(68), id_of("NA"), id_of(True)
    ('Jo Doe', '68', '', '')
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    text = " ".join(value.split()) if isinstance(value, str) else ""
    return "" if text.casefold() in _UNKNOWN else text


def video_id_of(info: dict[str, Any]) -> str:
    """Returns the clip's id as written, "" if there is none."""
    value = info.get("id")
    return value if isinstance(value, str) and value.strip() else id_of(value)


def poster_of(info: dict[str, Any]) -> Poster:
    """Returns the ids of a clip's poster."""
    site = id_of(info.get("extractor_key")) or id_of(info.get("extractor")).partition(":")[0]
    ids = (id_of(info.get(key)) for key in ("channel_id", "uploader_id", "uploader"))
    return Poster(site.casefold(), *ids)


def extension_of(info: dict[str, Any]) -> str | None:
    """Returns the suffix of the clip, "" if it is unknown, None if the value is no suffix.

    >>> extension_of({"ext": "webm"}), extension_of({}), extension_of({"ext": "mp4/video"})
    ('webm', '', None)
    """
    extension = info.get("ext")
    if extension is None or extension == "":
        return ""
    plain = isinstance(extension, str) and _EXTENSION.fullmatch(extension)
    return extension if plain else None


def timestamp_of(info: dict[str, Any]) -> tuple[int | None, str]:
    """Returns the time of a clip, and a value that cannot be read as a time, if any.

    The time is `timestamp` in unix seconds, else the start of the day `upload_date` in UTC.

    >>> timestamp_of({"timestamp": 1.5}), timestamp_of({"upload_date": "19700102"})
    ((1, ''), (86400, ''))
    >>> timestamp_of({"timestamp": -1})
    (None, '-1')
    """
    odd = ""
    for key in ("timestamp", "upload_date"):
        try:
            if (seconds := _seconds(info.get(key), key == "upload_date")) is not None:
                return seconds, odd
        except ValueError:
            odd = odd or _shown(info.get(key))
    return None, odd


def _seconds(value: Any, is_day: bool) -> int | None:
    """Returns a value in unix seconds, None if it is None; raises ValueError if it is no time."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(value)
    text = str(value).strip()
    if is_day and text.isdecimal():
        day = datetime.datetime.strptime(text, "%Y%m%d").replace(tzinfo=datetime.UTC)
        return parse_time(str(day.timestamp()))
    return parse_time(text)


def hashtags_of(
    info: dict[str, Any], source: str
) -> tuple[tuple[str, ...], tuple[str, ...], list[str]]:
    """Returns the hashtags of a clip, normalised and as written, and the tags that are no hashtags.

    Args:
        info: content of the .info.json file.
        source: "description" for hashtags marked with '#' in title and description, "tags" for the
            list of keywords, or "both".
    """
    texts = texts_of(info) if source != "tags" else []
    written, odd = [tag for text in texts for tag in marked_hashtags(text)], []
    tags = info.get("tags") if source != "description" else []
    if isinstance(tags, str):  # one or several tags
        tags = [tag for tag in tags.split(",") if tag.strip()]
    for tag in tags if isinstance(tags, list) else [] if tags is None else [tags]:
        if spelling := keyword_hashtag(tag) if isinstance(tag, str) else "":
            written.append(spelling)
        else:
            odd.append(_shown(tag))
    spellings: dict[str, str] = {}
    for spelling in written:
        spellings.setdefault(normalise_hashtag(spelling), spelling)
    return tuple(spellings), tuple(spellings.values()), odd


def _shown(value: Any) -> str:
    """Returns a value for the report; for a list, which may be large, its type."""
    return f"a {type(value).__name__}" if isinstance(value, list | dict) else repr(value)


def texts_of(info: dict[str, Any]) -> list[str]:
    """Returns the poster's texts: title and description, without the parts that yt-dlp changed."""
    title, description = (
        value if isinstance(value := info.get(key), str) else "" for key in ("title", "description")
    )
    if is_made_up(title, info):
        return [description]
    return [text for text in (whole_words(title, description), description) if text]


def is_made_up(title: str, info: dict[str, Any]) -> bool:
    """Returns whether yt-dlp made up the title, because the site has none.

    Such a title has one '#', before the clip's id ("TikTok video #706..."), or it is a phrase like
    "Video by" and a name of the poster.

    >>> is_made_up("Bluesky video #3l4q", {"id": "3l4q"}), is_made_up("My #3l4q", {"id": "7"})
    (True, False)
    """
    keys = ("uploader", "uploader_id", "channel", "channel_id", "creator")
    by = _BY.fullmatch(title.strip())
    if by and id_of(by[1]) in filter(None, (id_of(info.get(key)) for key in keys)):
        return True
    before, mark, after = title.partition("#")
    if not mark or "#" in after:
        return False
    # yt-dlp writes "EXTRACTOR video #ID", and may change the id afterwards.
    sites = (id_of(info.get(key)).replace(":", "-") for key in ("extractor", "extractor_key"))
    made_up = before.casefold() in [f"{site} video ".casefold() for site in sites if site]
    ids = filter(None, (id_of(info.get(key)) for key in ("id", "display_id")))
    return after.strip() in ids or (made_up and len(after.split()) == 1)


def whole_words(title: str, description: str = "") -> str:
    """Returns a title without its last word if that may be cut.

    Returns "" for a cut title that is the start of the description.

    >>> whole_words("a day at the #bea..."), whole_words("#beach", "#beaches")
    ('a day at the ', '#beach')
    >>> whole_words("a day at the #bea...", "a day at the #beach with #ana")
    ''
    """
    length, title = len(title), title.strip()
    dots = title.endswith(_CUT_ENDS)
    if not dots and length < _CUT_LENGTH:
        return title
    start = title
    for end in _CUT_ENDS:
        start = start.removesuffix(end)
    if " ".join(description.split()).startswith(" ".join(start.split())):
        return ""
    if not dots and length > _CUT_LENGTH:  # yt-dlp does not cut this site's titles
        return title
    last = max(title.rfind(" "), title.rfind("#") - 1)
    return title[: last + 1]
