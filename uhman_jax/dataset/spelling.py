"""Defines hashtags: their characters, keys and spellings.

A hashtag consists of letters, marks, digits, underscores, emoji and the signs of `WITHIN` and
`_ENDINGS`, at most 500 characters. It has two forms: the spelling for display and the key for
comparison. The key has no invisible characters; some Persian and Indic spellings need them.
"""

import functools
import re
import unicodedata

from uhman_jax.dataset.rules import CURRENT

SIGNS = "#\uff03\ufe5f"  # '#' in three widths
# Signs allowed in a hashtag: WITHIN only between other characters, _ENDINGS also at its ends.
WITHIN = "\u00b7\u0387\u30fb\uff65\u05be\u30a0\uff5e\u301c"  # middle dots, maqaf, hyphen, tildes
_ENDINGS = "\u05f3\u05f4\u0f0b\u0f0c\u3003\u309b\u309c\ua67e"  # geresh, tsheg, ditto, sound marks
# Invisible but part of spellings: zero-width joiners and non-joiners, variation selectors.
ATTACHED = "\u200c\u200d" + "".join(map(chr, [*range(0x180B, 0x1810), *range(0xFE00, 0xFE10)]))
BLANK = "\u2800"  # Braille without a dot, used as space in captions
# Unicode's Default_Ignorable_Code_Point: zero width, directions, variation selectors, fillers.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff]"
)
# Invisible characters that no spelling needs: all but `ATTACHED` and selectors of Han characters.
# Selectors of emoji are needed only after a symbol.
_NEEDLESS = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f"
    "\u3164\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e00ff\U000e01f0-\U000e0fff]"
    "|(?<![\u2300-\u23ff\u25a0-\u27bf\u2b00-\u2bff\U0001f000-\U0001faff])[\ufe0e\ufe0f]+"
)
_DOTTED_I = re.compile("i\u0307+")  # `casefold` of the Turkish capital I with a dot
_MAX_LENGTH = 500  # characters; Unicode normalisation of many combining marks is quadratic
_MORE_EMOJI = {0x231A, 0x231B, *range(0x23E9, 0x23FB), 0x25B6, 0x25C0, 0x2B05, 0x2B06, 0x2B07}
_MORE_EMOJI |= {0x2B1B, 0x2B1C, 0x2B50, 0x2B55}


def normalise_hashtag(text: str, rules: int = CURRENT) -> str:
    """Returns the key: NFKC, case-folded, without '#', white space and invisible characters.

    The Turkish capital with a dot folds to a plain i. Signs that are only allowed within a hashtag,
    such as middle dots, are removed from its ends. One of these rules can undo another (NFKC turns
    a wide '＃' into '#', and composes 'ῖ', which folding decomposes), so they are repeated until
    the text no longer changes. Characters that a hashtag may not contain are kept.

    >>> normalise_hashtag("#ＬＯＶＥ"), normalise_hashtag("##"), normalise_hashtag("#İzmir")
    ('love', '', 'izmir')

    Args:
        text: one hashtag, in any spelling.
        rules: version of the rules, see `dataset.rules`; 1 removes '#' only at the ends and keeps
            invisible characters.
    """
    previous = None
    while text != previous:
        previous = text
        text = _fold(text) if rules > 1 else _fold_by_rules_1(text)
    return text


def _fold(text: str) -> str:
    text = _INVISIBLE.sub("", text.replace(BLANK, "").replace("\uff5e", "\u301c"))
    text = "".join(unicodedata.normalize("NFKC", text).replace("#", "").split()).strip(WITHIN)
    text = _DOTTED_I.sub("i", text.casefold())
    return unicodedata.normalize("NFKC", text)


def _fold_by_rules_1(text: str) -> str:
    text = unicodedata.normalize("NFKC", "".join(text.split()).strip("#")).casefold()
    return unicodedata.normalize("NFKC", text)


def spell_hashtag(text: str) -> str:
    """Returns the spelling for display: NFC, without '#', white space and invisible ends.

    It keeps the invisible characters that a spelling needs: zero-width joiners and non-joiners
    within it, and variation selectors.

    >>> spell_hashtag("#Cafe\u0301 "), spell_hashtag("\u200d#می\u200cخواهم")
    ('Café', 'می\u200cخواهم')
    """
    text = "".join(text.translate(dict.fromkeys(map(ord, SIGNS + BLANK))).split())
    text = _NEEDLESS.sub("", unicodedata.normalize("NFC", text))
    text = text.lstrip(WITHIN + ATTACHED).rstrip(WITHIN + "\u200c\u200d")
    return unicodedata.normalize("NFC", text)


def is_legal(word: str) -> bool:
    """Returns whether a hashtag may contain all characters of a word and have its length."""
    return 0 < len(word) <= _MAX_LENGTH and all(map(may_hold, word))


@functools.lru_cache(maxsize=2**16)
def may_hold(character: str) -> bool:
    """Returns whether a hashtag may contain a character."""
    if character in f"{WITHIN}{_ENDINGS}_" or _INVISIBLE.match(character):
        return True
    category = unicodedata.category(character)
    if category[0] not in "LN" and category not in ("Mn", "Mc") and not is_emoji(character):
        return False
    # A key must be able to contain its NFKC form; that of '½' is "1⁄2", which has a slash.
    parts = "".join(unicodedata.normalize("NFKC", character).split())
    return all(part == character or may_hold(part) for part in parts)


def is_emoji(character: str) -> bool:
    """Returns whether a character is an emoji or a skin tone.

    Emoji are the symbols of U+2600 to U+27BF and U+1F000 to U+1FAFF, flags included, and a few of
    other blocks.
    """
    code = ord(character)
    if 0x1F3FB <= code <= 0x1F3FF:  # skin tones, which are not of category So
        return True
    symbols = 0x2600 <= code <= 0x27BF or 0x1F000 <= code <= 0x1FAFF or code in _MORE_EMOJI
    ornaments = 0x275B <= code <= 0x2761  # quotes
    return symbols and not ornaments and unicodedata.category(character) == "So"


def has_content(text: str) -> bool:
    """Returns whether a text has a letter, a digit or an emoji, which every hashtag needs."""
    return any(character.isalnum() or is_emoji(character) for character in text)
