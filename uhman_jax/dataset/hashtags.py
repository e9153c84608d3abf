"""One spelling per hashtag."""

import re
import unicodedata

# What separates hashtags in a field: white space, and '#' in its three widths, because platforms
# read "#love#fun" as two hashtags.
_SEPARATOR = re.compile("[\\s#\uff03\ufe5f]+")


def normalise_hashtag(text: str) -> str:
    """Returns the hashtag without '#' at its ends and without white space, case folded, NFKC.

    Each of these can undo another (NFKC turns a wide '＃' into '#', folding takes 'ῖ' apart, which
    NFKC joins again), so they are repeated until nothing moves: the result is a fixed point.

    >>> normalise_hashtag("#ＬＯＶＥ")
    'love'
    >>> normalise_hashtag("##")
    ''
    """
    previous = None
    while text != previous:
        previous = text
        text = unicodedata.normalize("NFKC", "".join(text.split()).strip("#")).casefold()
        text = unicodedata.normalize("NFKC", text)
    return text


def split_hashtags(field: str) -> tuple[str, ...]:
    """Returns the normalised hashtags of a space separated field, in order, each once.

    >>> split_hashtags("#Love fun  #LOVE #")
    ('love', 'fun')
    """
    hashtags = map(normalise_hashtag, _SEPARATOR.split(field))
    return tuple(dict.fromkeys(hashtag for hashtag in hashtags if hashtag))
