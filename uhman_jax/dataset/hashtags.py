"""What a hashtag is, how people see it, and how lists and texts of hashtags are read.

A hashtag holds letters, marks, digits, underscores, emoji and the signs of `_WITHIN` and
`_ENDINGS`, nothing else, and has at most 500 characters. It has two forms: the spelling, which
people see, and the key, by which spellings are compared. Characters that nobody sees are not part
of the key; Persian and Indic spellings need them.

A list (a cell of a table, a flag) names its hashtags: white space, commas, semicolons, bars, quotes
and '#' separate them, and a hashtag needs no '#'. A text (a title, a description) marks them with
'#'. The rules for texts are those of twitter-text, with ours on top:

- Of a text a hashtag needs a letter: "#2024" and keycaps are none.
- A '#' behind a word, or within an address or an HTML entity, marks nothing. One behind a hashtag
  begins the next: "#a#b#c" are three.
- Weibo's pairs: in a Chinese text (Han letters, no kana, no hangul) the signs of a piece without
  spaces and punctuation open and close in turn if their number is even: "#a#text".
- Emoji belong to the hashtag that they follow without a space.
"""

import functools
import itertools
import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

from uhman_jax.dataset.rules import CURRENT

_SIGN = re.compile("[#\uff03\ufe5f]")
_WITHIN = "\u00b7\u0387\u30fb\uff65\u05be\u30a0\uff5e\u301c"  # middle dots, maqaf, hyphen, tildes
_ENDINGS = "\u05f3\u05f4\u0f0b\u0f0c\u3003\u309b\u309c\ua67e"  # geresh, tsheg, ditto, sound marks
_JOINERS = "\u200c\u200d"  # zero width; Persian, Indic scripts and emoji need them
# Unicode's Default_Ignorable_Code_Point: zero width, directions, variation selectors, fillers.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff]"
)
# Those that no spelling needs; of variation selectors, the two of emoji behind anything else.
_NEEDLESS = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f"
    "\u3164\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e00ff\U000e01f0-\U000e0fff]"
    "|(?<![\u2300-\u23ff\u25a0-\u27bf\u2b00-\u2bff\U0001f000-\U0001faff])[\ufe0e\ufe0f]+"
)
_SELECTORS = "".join(map(chr, [*range(0x180B, 0x1810), *range(0xFE00, 0xFE10)]))
_MAX_LENGTH = 500  # characters; Unicode's forms of text take quadratic time on many marks
_BLANK = "\u2800"  # Braille without a dot, by which people space out captions
_DOTTED_I = re.compile("i\u0307+")  # what folding makes of the Turkish capital

# What separates the hashtags of a list: white space, commas, semicolons, bars, bullets.
_SEPARATOR = re.compile(
    f"[\\s{_BLANK},;|\uff0c\u3001\u060c\u055d\u1363\ufe10\ufe11\ufe50\ufe51\uff64\uff1b\u061b\u1364"
    "\ufe54\uff5c\u00a6\u2016\u2223\u2502\u2503\uffe8\u2022\u2023\u2043\u25e6\u2219\u25cf\u25aa]+"
)
# What may wrap a hashtag or a list: quotes and brackets.
_WRAPPING = (
    "\"'`\u00b4\u00ab\u00bb\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f\u2039\u203a\u300c\u300d\u300e"
    "\u300f\u301d\u301e\u301f\uff02\uff07\uff40()[]{}<>\uff08\uff09\uff3b\uff3d\uff5b\uff5d\u3008\u3009"
    "\u300a\u300b\u3010\u3011\u3014\u3015"
)
_STOPS = ".!?:\u2026\u3002\uff01\uff1f\uff1a\uff0e"  # that end a sentence
_ADJACENT = re.compile(f"[{re.escape(_WRAPPING)}]{{2,}}")
_LIST_ITEM = re.compile(
    r"""\s*(?:"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)'|([^\s,"'\\()\[\]{}]+))\s*(?:,|$)""", re.DOTALL
)
_STRAIGHT = str.maketrans(dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb", '"')) | (
    str.maketrans(dict.fromkeys("\u2018\u2019\u201a\u201b", "'"))
)
_ESCAPE = re.compile(r"\\(?:u([0-9a-f]{4})|U([0-9a-f]{8})|x([0-9a-f]{2})|(.))", re.I | re.DOTALL)
_OBJECT = re.compile("""["']\\s*:""")
_MISSING = {"nan", "null", "none"}  # how programs write that there is nothing

_ADDRESS = re.compile(
    r"[a-z][a-z0-9+.-]{0,20}://"
    r"|(?<![\w.#\uff03-])(?:(?:[^\W_][\w-]{0,62}\.)+[^\W\d_]{2,24}|(?:\d{1,3}\.){3}\d{1,3}|localhost)"
    r"(?::\d{1,5})?(?=[/?])",
    re.IGNORECASE,
)
_ADDRESS_END = re.compile(
    f'[\\s{_BLANK}<>"\u00ab\u00bb\u2018-\u201f\u2026\u3001\u3002\u3008-\u3011\uff01\uff08\uff09\uff0c'
    "\uff1a\uff1b\uff1f\uff5c()]"
)
_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_KANA_OR_HANGUL = re.compile("[\u3041-\u3096\u30a1-\u30fa\uff66-\uff9d\u1100-\u11ff\uac00-\ud7af]")
_DROPPED_OF_KEYWORDS = re.compile("[\\s\u2800'\u2019\u2010-\u2015-]+|(?<![0-9])\\.|\\.(?![0-9])")


class Hashtags(NamedTuple):
    """The hashtags of a list, in order, each key once.

    Attributes:
        keys: by which hashtags are compared.
        spellings: as people see them, one per key: the first.
        rejected: parts that cannot be hashtags, as written.
    """

    keys: tuple[str, ...]
    spellings: tuple[str, ...]
    rejected: tuple[str, ...]


def normalise_hashtag(text: str, rules: int = CURRENT) -> str:
    """Returns the key: NFKC, case folded, without '#', white space and invisible characters.

    The Turkish capital with a dot folds to a plain i. Signs that may only stand within a hashtag,
    such as middle dots, are removed from its ends. Each of these can undo another (NFKC turns a
    wide '＃' into '#', folding takes 'ῖ' apart, which NFKC joins again), so they are repeated until
    nothing moves: the result is a fixed point. Characters that no hashtag may hold stay.

    >>> normalise_hashtag("#ＬＯＶＥ"), normalise_hashtag("##"), normalise_hashtag("#İzmir")
    ('love', '', 'izmir')

    Args:
        text: one hashtag, however spelled.
        rules: version of the rules, see `dataset.rules`; 1 removes '#' at the ends only and keeps
            invisible characters.
    """
    previous = None
    while text != previous:
        previous = text
        text = _fold(text) if rules > 1 else _fold_by_rules_1(text)
    return text


def _fold(text: str) -> str:
    text = _INVISIBLE.sub("", text.replace(_BLANK, "").replace("\uff5e", "\u301c"))
    text = "".join(unicodedata.normalize("NFKC", text).replace("#", "").split()).strip(_WITHIN)
    text = _DOTTED_I.sub("i", text.replace("\u0130", "i").casefold())
    return unicodedata.normalize("NFKC", text)


def _fold_by_rules_1(text: str) -> str:
    text = unicodedata.normalize("NFKC", "".join(text.split()).strip("#")).casefold()
    return unicodedata.normalize("NFKC", text)


def spell_hashtag(text: str) -> str:
    """Returns the spelling that people see: NFC, without '#', white space and invisible ends.

    Of invisible characters only those stay that a spelling needs: zero-width joiners and
    non-joiners within, and variation selectors.

    >>> spell_hashtag("#Cafe\u0301 "), spell_hashtag("\u200d#می\u200cخواهم")
    ('Café', 'می\u200cخواهم')
    """
    text = "".join(_SIGN.sub("", text).replace(_BLANK, "").split())
    text = _NEEDLESS.sub("", unicodedata.normalize("NFC", text))
    text = text.lstrip(_WITHIN + _JOINERS + _SELECTORS).rstrip(_WITHIN + _JOINERS)
    return unicodedata.normalize("NFC", text)


def split_hashtags(field: str, rules: int = CURRENT) -> tuple[str, ...]:
    """Returns the keys of the hashtags of a list, in order, each once.

    >>> split_hashtags("#Love fun  #LOVE #"), split_hashtags('["sea", "sun"]')
    (('love', 'fun'), ('sea', 'sun'))

    Args:
        field: the list.
        rules: version of the rules; 1 knows only white space and '#' as separators.
    """
    if rules > 1:
        return read_hashtags(field).keys
    hashtags = (normalise_hashtag(part, 1) for part in re.split("[\\s#\uff03\ufe5f]+", field))
    return tuple(dict.fromkeys(hashtag for hashtag in hashtags if hashtag))


def read_hashtags(*lists: str) -> Hashtags:
    """Reads lists of hashtags, however separated, and names what cannot be one.

    Lists of JSON and Python are read as such: an item with a space in it is no hashtag. "nan",
    "null" or "none" as the whole list mean that there is nothing; with '#' they are hashtags.

    >>> read_hashtags("#Sea,sun | C++")
    Hashtags(keys=('sea', 'sun'), spellings=('Sea', 'sun'), rejected=('C++',))
    """
    found: dict[str, str] = {}
    rejected: dict[str, None] = {}
    for part, shown in itertools.chain.from_iterable(map(_parts, lists)):
        if _is_legal(part):
            spelling = spell_hashtag(part)
            key = normalise_hashtag(spelling)
            if any(map(_counts, key)):
                found.setdefault(key, spelling)
                continue
        if any(map(_counts, shown)):
            rejected[shown] = None
    return Hashtags(tuple(found), tuple(found.values()), tuple(rejected))


def marked_hashtags(text: str) -> tuple[str, ...]:
    """Returns spellings of the hashtags that a text marks with '#', in order, each key once.

    The rules stand at the top of this module.

    >>> marked_hashtags("Look #Fun#sun! a.b/c#top #2024 #été_2 &#39; #नमस्ते")
    ('Fun', 'sun', 'été_2', 'नमस्ते')
    >>> marked_hashtags("#春节#大家新年好，#红包#来了")
    ('春节', '红包')
    """
    found: dict[str, str] = {}
    chinese = bool(_HAN.search(text)) and not _KANA_OR_HANGUL.search(text)
    for piece in _pieces(text):
        for word in _pairs(piece) if chinese and _is_paired(piece) else _glued(piece):
            spelling = spell_hashtag(word) if _is_legal(word) else ""
            key = normalise_hashtag(spelling)
            if any(unicodedata.category(character)[0] == "L" for character in key):
                found.setdefault(key, spelling)
    return tuple(found.values())


def keyword_hashtag(text: str) -> str:
    """Returns a hashtag's spelling for a keyword, or "" where it has none.

    White space, hyphens, apostrophes and full stops are removed, except a full stop between digits.

    >>> keyword_hashtag("New York"), keyword_hashtag("hip-hop"), keyword_hashtag("C# tutorial")
    ('NewYork', 'hiphop', '')
    """
    word = _DROPPED_OF_KEYWORDS.sub("", text.strip().lstrip("#\uff03\ufe5f"))
    spelling = spell_hashtag(word) if _is_legal(word) else ""
    return spelling if any(map(_counts, normalise_hashtag(spelling))) else ""


def _is_legal(word: str) -> bool:
    """Returns whether a hashtag may hold all characters of a word."""
    return 0 < len(word) <= _MAX_LENGTH and all(map(_may_hold, word))


@functools.lru_cache(maxsize=2**16)
def _may_hold(character: str) -> bool:
    """Returns whether a hashtag may hold a character."""
    if character in _WITHIN or character in _ENDINGS or character == "_":
        return True
    if _INVISIBLE.match(character):
        return True
    category = unicodedata.category(character)
    if category[0] not in "LN" and category not in ("Mn", "Mc") and not _is_emoji(character):
        return False
    # What it is folded to must stand in a key: '½' becomes "1⁄2", which does not.
    parts = "".join(unicodedata.normalize("NFKC", character).split())
    return all(part == character or _may_hold(part) for part in parts)


def _is_emoji(character: str) -> bool:
    code = ord(character)
    if 0x1F3FB <= code <= 0x1F3FF:  # colours of skin
        return True
    pictures = 0x2600 <= code <= 0x27BF or 0x1F000 <= code <= 0x1FAFF or code in _MORE_EMOJI
    ornaments = 0x275B <= code <= 0x2761  # quotes
    return pictures and not ornaments and unicodedata.category(character) == "So"


_MORE_EMOJI = {0x231A, 0x231B, *range(0x23E9, 0x23FB), 0x25B6, 0x25C0, 0x2B05, 0x2B06, 0x2B07}
_MORE_EMOJI |= {0x2B1B, 0x2B1C, 0x2B50, 0x2B55}


def _counts(character: str) -> bool:
    """Returns whether a character can make a hashtag by itself."""
    return character.isalnum() or _is_emoji(character)


def _parts(field: str) -> Iterator[tuple[str, str]]:
    """Yields the parts of a list: without what wraps them, and as written."""
    bare = field.strip()
    if bare.casefold() in _MISSING:
        return
    if bare.startswith(("{", "[{")) and _OBJECT.search(bare):
        yield "", bare  # of objects nothing says which of their texts are hashtags
        return
    items = _items(bare)
    if items is None:
        yield from _words(field)
        return
    for item in items:
        if len(item.split()) > 1 and not _SIGN.search(item):
            yield item, item
        else:
            yield from _words(item)


def _items(field: str) -> list[str] | None:
    """Returns the items of a list as JSON or Python write it, or None if it is none."""
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
        elif not (brackets and bare.casefold() in _MISSING):
            items.append(bare)
    return items if quoted and (brackets or len(items) > 1) else None


def _unescape(text: str) -> str:
    """Returns a quoted text without backslashes; tabs and line ends become spaces."""
    if "\\" not in text:
        return text

    def character(match: re.Match[str]) -> str:
        code = match[1] or match[2] or match[3]
        if not code:
            return " " if match[4] in "nrt" else match[4]
        return chr(int(code, 16)) if int(code, 16) < 0x110000 else "\ufffd"

    halves = _ESCAPE.sub(character, text)  # JSON writes one emoji as two
    return halves.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _words(field: str) -> Iterator[tuple[str, str]]:
    """Yields the words of a list, without what wraps them and as written."""
    for chunk in re.split(f"[\\s{_BLANK}]+", field):
        if ("/" in chunk or "?" in chunk) and _ADDRESS.search(chunk):
            yield "", chunk
            continue
        for token in _SEPARATOR.split(chunk):
            words = re.split("(?<!&)[#\uff03\ufe5f]+", token)
            bare = [word.lstrip(_WRAPPING).rstrip(_WRAPPING + _STOPS) for word in words]
            if len(words) == 2 and bare[0] and not bare[1]:
                yield "", token  # "c#"
                continue
            for word, written in zip(bare, words, strict=True):
                for part in _ADJACENT.split(word):
                    yield part, written


def _pieces(text: str) -> Iterator[str]:
    """Yields the stretches of a text, without spaces and punctuation, that hold a '#'.

    Each begins with the character before it that bears on its first '#', where there is one.
    """
    position = 0
    taken = _addresses(text)
    for begin, end in [*taken, (len(text), len(text))]:
        yield from _pieces_between(text, position, begin)
        position = max(position, end)


def _pieces_between(text: str, position: int, stop: int) -> Iterator[str]:
    while (sign := _SIGN.search(text, position, stop)) is not None:
        begin = sign.start()
        while begin > position and _may_hold(text[begin - 1]):
            begin -= 1
        if begin > position and text[begin - 1] == "&":
            begin -= 1
        end = sign.end()
        while end < stop and (_may_hold(text[end]) or _SIGN.match(text[end])):
            end += 1
        position = end
        yield text[begin:end]


def _addresses(text: str) -> Iterator[tuple[int, int]]:
    """Yields begins and ends of the addresses in a text, with all of their path and query."""
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
    """Returns whether signs open and close in turn."""
    words = _SIGN.split(piece)
    return len(words) % 2 == 1 and all(words[1::2]) and not piece.startswith("&")


def _pairs(piece: str) -> list[str]:
    return _SIGN.split(piece)[1::2]


def _glued(piece: str) -> list[str]:
    """Returns the words behind the signs, none where a word stands before the first sign."""
    before, *words = _SIGN.split(piece)
    before = before.rstrip(_JOINERS + _SELECTORS)
    character = before[-1:]
    blocked = character in ("&", "_") or unicodedata.category(character or " ")[0] in "LMN"
    return [] if blocked else words
