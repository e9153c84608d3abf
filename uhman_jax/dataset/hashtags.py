"""Reads hashtags from lists and texts; `dataset.spelling` defines a hashtag.

A list (a cell of a table, a flag) has only hashtags. White space, commas, semicolons, bars, quotes
and '#' separate them, and a hashtag needs no '#'. A text (a title, a description) marks hashtags
with '#'. Texts are read by the rules of twitter-text with these additions:

- In a text a hashtag needs a letter: "#2024" and keycaps are not hashtags.
- A '#' after a word, or within a URL or an HTML entity, marks no hashtag. A '#' after a hashtag
  begins the next one: "#a#b#c" are three.
- On Weibo a '#' also ends a hashtag ("#春节#好"). So if a piece of text without spaces and
  punctuation has an even number of '#', they begin and end hashtags alternately. This holds for
  pieces with Han letters in texts without kana and hangul.
- Emoji belong to the hashtag that they follow without a space.
"""

import itertools
import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

from uhman_jax.dataset.rules import CURRENT
from uhman_jax.dataset.spelling import (
    ATTACHED,
    BLANK,
    SIGNS,
    has_content,
    is_legal,
    may_hold,
    normalise_hashtag,
    spell_hashtag,
)

_SIGN = re.compile(f"[{SIGNS}]")
# Separators of the hashtags of a list: white space, commas, semicolons, bars, bullets.
_SEPARATOR = re.compile(
    f"[\\s{BLANK},;|\uff0c\u3001\u060c\u055d\u1363\ufe10\ufe11\ufe50\ufe51\uff64\uff1b\u061b\u1364"
    "\ufe54\uff5c\u00a6\u2016\u2223\u2502\u2503\uffe8\u2022\u2023\u2043\u25e6\u2219\u25cf\u25aa]+"
)
# Characters that may enclose a hashtag or a list: quotes and brackets.
_WRAPPING = (
    "\"'`\u00b4\u00ab\u00bb\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f\u2039\u203a\u300c\u300d\u300e"
    "\u300f\u301d\u301e\u301f\uff02\uff07\uff40()[]{}\uff08\uff09\uff3b\uff3d\uff5b\uff5d\u3008\u3009"
    "\u300a\u300b\u3010\u3011\u3014\u3015"
)
_STOPS = ".!?:\u2026\u3002\uff01\uff1f\uff1a\uff0e"  # signs that end a sentence
_WRAPPED = re.compile(f"[{re.escape(_WRAPPING)}]")
_ADJACENT = re.compile(f"[{re.escape(_WRAPPING)}]{{2,}}")
_LIST_ITEM = re.compile(
    r"""\s*(?:"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)'|([^\s,"'\\()\[\]{}]+))\s*(?:,|$)""", re.DOTALL
)
_STRAIGHT = str.maketrans(
    "\u201c\u201d\u201e\u201f\u00ab\u00bb\u2018\u2019\u201a\u201b", 6 * '"' + 4 * "'"
)
_ESCAPE = re.compile(r"\\(?:u([0-9a-f]{4})|U([0-9a-f]{8})|x([0-9a-f]{2})|(.))", re.I | re.DOTALL)
_OBJECT = re.compile("""["']\\s*:""")
MISSING = {"nan", "null", "none"}  # how other programs write an empty list

_ADDRESS = re.compile(
    r"[a-z][a-z0-9+.-]{0,20}://"
    r"|(?<![\w.#\uff03-])(?:(?:[^\W_][\w-]{0,62}\.)+[^\W\d_]{2,24}|(?:\d{1,3}\.){3}\d{1,3}|localhost)"
    r"(?::\d{1,5})?(?=[/?])",
    re.IGNORECASE,
)
_ADDRESS_END = re.compile(
    f'[\\s{BLANK}<>"\u00ab\u00bb\u2018-\u201f\u2026\u3001\u3002\u3008-\u3011\uff01\uff08\uff09\uff0c'
    "\uff1a\uff1b\uff1f\uff5c()]"
)
_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_KANA_OR_HANGUL = re.compile("[\u3041-\u3096\u30a1-\u30fa\uff66-\uff9d\u1100-\u11ff\uac00-\ud7af]")
_DROPPED_OF_KEYWORDS = re.compile("[\\s\u2800'\u2019\u2010-\u2015-]+|(?<![0-9])\\.|\\.(?![0-9])")


class Hashtags(NamedTuple):
    """The hashtags of a list, in order, each key once."""

    keys: tuple[str, ...]  # for comparison
    spellings: tuple[str, ...]  # for display, the first spelling of each key
    rejected: tuple[str, ...]  # parts that cannot be hashtags, as written


def split_hashtags(field: str, rules: int = CURRENT) -> tuple[str, ...]:
    """Returns the keys of the hashtags of a list, in order, each once.

    >>> split_hashtags("#Love fun  #LOVE #"), split_hashtags('["sea", "sun"]')
    (('love', 'fun'), ('sea', 'sun'))

    Args:
        field: the list.
        rules: version of the rules; 1 has only white space and '#' as separators.
    """
    if rules > 1:
        return read_hashtags(field).keys
    hashtags = (normalise_hashtag(part, 1) for part in re.split("[\\s#\uff03\ufe5f]+", field))
    return tuple(dict.fromkeys(hashtag for hashtag in hashtags if hashtag))


def read_hashtags(*lists: str) -> Hashtags:
    """Returns the hashtags of lists with any separators, and the parts that cannot be hashtags.

    In a list in JSON or Python notation, an item with spaces and without '#' is not a hashtag.
    "nan", "null" and "none" as a whole list mean an empty list; with '#' they are hashtags.

    >>> read_hashtags("#Sea,sun | C++")
    Hashtags(keys=('sea', 'sun'), spellings=('Sea', 'sun'), rejected=('C++',))
    """
    found: dict[str, str] = {}
    rejected: dict[str, None] = {}
    for part, shown in itertools.chain.from_iterable(map(_parts, lists)):
        if is_legal(part):
            plain = _is_plain(part)
            spelling = part if plain else spell_hashtag(part)
            key = part.lower() if plain else normalise_hashtag(spelling)
            if has_content(key):
                found.setdefault(key, spelling)
                continue
        if has_content(shown):
            rejected[shown] = None
    return Hashtags(tuple(found), tuple(found.values()), tuple(rejected))


def marked_hashtags(text: str) -> tuple[str, ...]:
    """Returns the spellings of the hashtags that a text marks with '#', in order, each key once.

    The module's docstring gives the rules.

    >>> marked_hashtags("Look #Fun#sun! a.b/c#top #2024 #été_2 &#39; #नमस्ते")
    ('Fun', 'sun', 'été_2', 'नमस्ते')
    >>> marked_hashtags("#春节#大家新年好，#红包#来了")
    ('春节', '红包')
    """
    found: dict[str, str] = {}
    pairs = not _KANA_OR_HANGUL.search(text)
    for piece in _pieces(text):
        for word in (
            _SIGN.split(piece)[1::2] if pairs and _is_paired(piece) else _words_after(piece)
        ):
            spelling = spell_hashtag(word) if is_legal(word) else ""
            key = normalise_hashtag(spelling)
            if any(unicodedata.category(character)[0] == "L" for character in key):
                found.setdefault(key, spelling)
    return tuple(found.values())


def keyword_hashtag(text: str) -> str:
    """Returns the spelling of a keyword as a hashtag; "" if it cannot be one.

    White space, hyphens, apostrophes and full stops are removed, except a full stop between digits.

    >>> keyword_hashtag("New York"), keyword_hashtag("hip-hop"), keyword_hashtag("C# tutorial")
    ('NewYork', 'hiphop', '')
    """
    word = _DROPPED_OF_KEYWORDS.sub("", text.strip().lstrip(SIGNS))
    spelling = spell_hashtag(word) if is_legal(word) else ""
    return spelling if has_content(normalise_hashtag(spelling)) else ""


def _is_plain(word: str) -> bool:
    """Returns whether a word has only ASCII letters, digits and '_'; its key is `lower()`."""
    return word.isascii() and word.replace("_", "").isalnum()


def _parts(field: str) -> Iterator[tuple[str, str]]:
    """Yields (part without enclosing characters, part as written) of each part of a list."""
    bare = field.strip()
    if bare.strip(_WRAPPING).casefold() in MISSING:
        return
    if bare.startswith(("{", "[{")) and _OBJECT.search(bare):
        yield "", bare  # a JSON object: it is unknown which of its strings are hashtags
        return
    items = _items(bare) if _WRAPPED.search(bare) else None
    for item in [field] if items is None else items:
        if items is not None and len(item.split()) > 1 and not _SIGN.search(item):
            yield item, item
        else:
            yield from _words(item)


def _items(field: str) -> list[str] | None:
    """Returns the items of a list in JSON or Python notation, or None for other lists."""
    brackets = field[:1] in ("[", "(", "{") and field[-1:] in ("]", ")", "}") and len(field) > 1
    text = (field[1:-1] if brackets else field).translate(_STRAIGHT).strip()
    items, position, quoted = [], 0, False
    while position < len(text):
        match = _LIST_ITEM.match(text, position)
        if not match:
            return None
        position = match.end()
        bare = match[3]
        if bare is None:
            quoted = True
            items.append(_unescape(match[1] if match[1] is not None else match[2]).strip())
        elif not (brackets and bare.casefold() in MISSING):
            items.append(bare)
    return items if brackets or (quoted and len(items) > 1) else None


def _unescape(text: str) -> str:
    """Returns a quoted text without backslashes; tabs and line ends become spaces."""
    if "\\" not in text:
        return text

    def character(match: re.Match[str]) -> str:
        code = match[1] or match[2] or match[3]
        if not code:
            return " " if match[4] in "nrt" else match[4]
        return chr(int(code, 16)) if int(code, 16) < 0x110000 else "\ufffd"

    halves = _ESCAPE.sub(character, text)  # JSON escapes an emoji as two surrogates
    return halves.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _words(field: str) -> Iterator[tuple[str, str]]:
    """Yields (word without enclosing characters, word as written) of each word of a list."""
    for chunk in re.split(f"[\\s{BLANK}]+", field):
        if _is_plain(word := chunk.removeprefix("#")):
            yield word, chunk
            continue
        if ("/" in chunk or "?" in chunk) and _ADDRESS.search(chunk):
            yield "", chunk
            continue
        for token in _SEPARATOR.split(chunk):
            words = re.split(f"(?<!&)[{SIGNS}]+", token)
            bare = [word.lstrip(_WRAPPING).rstrip(_WRAPPING + _STOPS) for word in words]
            if len(words) == 2 and bare[0] and not bare[1]:
                yield "", token  # "c#"
                continue
            for word, written in zip(bare, words, strict=True):
                for part in _ADJACENT.split(word):
                    yield part, written


def _pieces(text: str) -> Iterator[str]:
    """Yields the pieces of a text with a '#', which end at spaces, punctuation and URLs.

    A piece begins with an '&' that precedes it, because an HTML entity begins with "&#".
    """
    position = 0
    for stop, address_end in [*_addresses(text), (len(text), len(text))]:
        while (sign := _SIGN.search(text, position, stop)) is not None:
            begin, end = sign.span()
            while begin > position and may_hold(text[begin - 1]):
                begin -= 1
            if begin > position and text[begin - 1] == "&":
                begin -= 1
            while end < stop and (may_hold(text[end]) or _SIGN.match(text[end])):
                end += 1
            position = end
            yield text[begin:end]
        position = address_end


def _addresses(text: str) -> Iterator[tuple[int, int]]:
    """Yields the begin and end of each URL in a text, including path and query."""
    position = 0
    while (start := _ADDRESS.search(text, position)) is not None:
        position, depth = start.end(), 0
        for stop in _ADDRESS_END.finditer(text, position):
            depth += {"(": 1, ")": -1}.get(stop[0], 0)
            if depth < 0 or stop[0] not in "()":
                position = stop.start()
                break
        else:
            position = len(text)
        yield start.start(), position


def _is_paired(piece: str) -> bool:
    """Returns whether the '#' of a piece begin and end hashtags alternately."""
    words = _SIGN.split(piece)
    even = len(words) % 2 == 1 and all(words[1::2])
    return even and _HAN.search(piece) is not None and not piece.startswith("&")


def _words_after(piece: str) -> list[str]:
    """Returns the words after each '#'; none if the first '#' follows a word or an '&'."""
    before, *words = _SIGN.split(piece)
    before = before.rstrip(ATTACHED)
    character = before[-1:]
    blocked = character in ("&", "_") or unicodedata.category(character or " ")[0] in "LMN"
    return [] if blocked else words
