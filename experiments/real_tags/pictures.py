"""Reads collections of pictures whose artists gave them keywords.

- Open Clip Art Library 0.18: Debian's packages `openclipart-svg` and `openclipart-png`.
- OpenMoji 17: the npm package `openmoji`, with dates.
"""

import collections
import dataclasses
import functools
import io
import json
import pathlib
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import scipy.sparse
from PIL import Image

from uhman_jax.dataset.hashtags import keyword_hashtag, read_hashtags
from uhman_jax.dataset.split import stateless_hash
from uhman_jax.runtime.errors import UserError

MOST_PER_ARTIST = 150
_STARS = "codifiedivining"  # the artist of 1,375 stars that differ by their number of points
_MOST_PIXELS = 20_000_000  # of a file; a few have hundreds of millions
_SMALL = 16  # side of the thumbnails by which near copies are found
_NEAR = (
    0.12  # difference of two thumbnails, as a part of their ink, below which they are near copies
)
_LEAST_INK = 1.0  # mean difference of a thumbnail's pixels from white, of 255, to be visible
_RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
_DC = "{http://purl.org/dc/elements/1.1/}"


@dataclasses.dataclass(frozen=True)
class Picture:
    """One picture with its keywords.

    Attributes:
        name: unique; relative path in the collection.
        artist: folded name.
        keywords: hashtags, normalised, each once, at least one.
        date: "" or ISO 8601.
        open: returns the picture, RGBA.
        group: name of the first of its near copies.
    """

    name: str
    artist: str
    keywords: tuple[str, ...]
    date: str
    open: Callable[[], Image.Image]
    group: str = ""


def openclipart(folder: pathlib.Path) -> list[Picture]:
    """Reads the unpacked packages: keywords from `dc:subject`, artists from `dc:creator`.

    Pictures without an artist or a keyword are left out, and so are the stars of one artist.
    "hash" is no keyword: the upload form left it in many files.
    """
    root = _find(folder, "svg/animals").parents[1]
    pictures = []
    for path in sorted((root / "svg").rglob("*.svg")):
        name = path.relative_to(root / "svg").with_suffix("").as_posix()
        tree = ET.fromstring(path.read_bytes())
        words = [
            item.text or ""
            for subject in tree.iter(f"{_DC}subject")
            for item in subject.iter(f"{_RDF}li")
        ]
        titles = [
            title.text or ""
            for creator in tree.iter(f"{_DC}creator")
            for title in creator.iter(f"{_DC}title")
        ]
        artist = _artist(titles[0] if titles else "")
        date = next((d.text or "" for d in tree.iter(f"{_DC}date")), "").strip()
        date = date if re.fullmatch(r"\d{4}-\d{2}-\d{2}", date) else ""
        png = root / "png" / f"{name}.png"
        keywords = _keywords(word for word in words if word.strip() != "hash")
        if artist not in ("", _STARS) and keywords and _is_small(png):
            opener = functools.partial(_open_png, png)
            pictures.append(Picture(name, artist, keywords, date, opener))
    return pictures


def openmoji(folder: pathlib.Path) -> list[Picture]:
    """Reads the unpacked package: tags, author and date of every emoji without a skin tone."""
    data = _find(folder, "data/openmoji.json")
    pictures = []
    for entry in json.loads(data.read_text()):
        path = data.parents[1] / "color" / "svg" / f"{entry['hexcode']}.svg"
        keywords = _keywords(f"{entry['tags']},{entry['openmoji_tags']}".split(","))
        if keywords and entry["openmoji_author"] and not entry["skintone"] and path.is_file():
            opener = functools.partial(_open_svg, path)
            artist = _artist(entry["openmoji_author"])
            date = entry["openmoji_date"]
            pictures.append(Picture(entry["hexcode"], artist, keywords, date, opener))
    return pictures


COLLECTIONS = {"openclipart": openclipart, "openmoji": openmoji}


def read(collection: str, folder: pathlib.Path) -> list[Picture]:
    """Returns the pictures of a collection, at most 150 of an artist, with their groups.

    Raises:
        UserError: the folder does not hold the collection.
    """
    by_artist = collections.defaultdict(list)
    for picture in COLLECTIONS[collection](folder):
        by_artist[picture.artist].append(picture)
    chosen = [
        picture
        for own in by_artist.values()
        for picture in sorted(own, key=lambda p: stateless_hash("picture", 0, p.name))[
            :MOST_PER_ARTIST
        ]
    ]
    return _with_groups(sorted(chosen, key=lambda picture: picture.name))


def _find(folder: pathlib.Path, inner: str) -> pathlib.Path:
    found = sorted(folder.rglob(inner)) if folder.is_dir() else []
    if not found:
        raise UserError(
            f"--packages must name a folder that holds {inner} of the unpacked packages, got "
            f"{folder}; unpack them as experiments/real_tags/README.md says"
        )
    return found[0]


def _keywords(words: Iterable[str]) -> tuple[str, ...]:
    """Returns keywords as the keys of hashtags, each once.

    >>> _keywords(["Road sign", " sea ", "", "SEA"])
    ('roadsign', 'sea')
    """
    return read_hashtags(" ".join(filter(None, map(keyword_hashtag, words)))).keys


def _artist(name: str) -> str:
    """Returns a name without address and case.

    >>> _artist("Jean-Victor Balin (balin@example.org)"), _artist("mailto:me@example.org")
    ('jean-victor balin', 'me')
    """
    name = re.sub(r"[(<\[][^)>\]]*@[^)>\]]*[)>\]]", "", name).removeprefix("mailto:")
    name = re.sub(r"@\S+", "", name)
    return " ".join(name.casefold().split()).strip(" -.")


def _is_small(path: pathlib.Path) -> bool:
    if not path.is_file():
        return False
    Image.MAX_IMAGE_PIXELS = None  # the size is checked here
    with Image.open(path) as image:
        return 0 < image.width * image.height <= _MOST_PIXELS


def _open_png(path: pathlib.Path) -> Image.Image:
    return Image.open(path).convert("RGBA")


def _open_svg(path: pathlib.Path) -> Image.Image:
    import resvg_py  # an extra

    png = bytes(resvg_py.svg_to_bytes(svg_path=str(path), width=288))
    return Image.open(io.BytesIO(png)).convert("RGBA")


def _with_groups(pictures: Sequence[Picture]) -> list[Picture]:
    """Returns the visible pictures with their groups: chains of near copies.

    Pictures are compared by thumbnails on white; a white picture is not visible on it.
    """
    thumbnails = np.stack([_thumbnail(picture.open()) for picture in pictures])
    flat_NX = thumbnails.reshape(len(pictures), -1)
    ink_N = (255 - flat_NX).mean(axis=1)
    is_visible_N = ink_N >= _LEAST_INK
    pictures = [p for p, visible in zip(pictures, is_visible_N, strict=True) if visible]
    flat_NX, ink_N = flat_NX[is_visible_N], ink_N[is_visible_N]
    pairs = []
    for n in range(len(pictures)):
        distance = np.abs(flat_NX[n + 1 :] - flat_NX[n]).mean(axis=1)
        near = distance < _NEAR * np.maximum(ink_N[n + 1 :], ink_N[n])
        pairs += [(n, n + 1 + m) for m in np.flatnonzero(near)]
    one, other = np.array(pairs, np.int64).reshape(-1, 2).T
    graph = scipy.sparse.coo_array(
        (np.ones(len(one)), (one, other)), shape=(len(pictures), len(pictures))
    )
    component = scipy.sparse.csgraph.connected_components(graph, directed=False)[1]
    first = np.unique(component, return_index=True)[1]
    return [
        dataclasses.replace(picture, group=pictures[first[c]].name)
        for picture, c in zip(pictures, component, strict=True)
    ]


def _thumbnail(image: Image.Image) -> np.ndarray:
    """Returns the picture, fitted into a white square, as float32 (16, 16, 3)."""
    square = on_square(image, 4 * _SMALL)
    white = Image.new("RGBA", square.size, "white")
    return np.asarray(
        Image.alpha_composite(white, square)
        .convert("RGB")
        .resize((_SMALL, _SMALL), Image.Resampling.BOX),
        np.float32,
    )


def on_square(image: Image.Image, side: int) -> Image.Image:
    """Returns the picture without its transparent margin, fitted into a transparent square."""
    box = image.getchannel("A").getbbox()
    image = image.crop(box) if box else image
    scale = side / max(image.size)
    width, height = (max(1, round(length * scale)) for length in image.size)
    image = image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=2.0)
    square = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    square.paste(image, ((side - width) // 2, (side - height) // 2))
    return square
