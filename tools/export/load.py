"""Hashtags for a clip and who posts it, from this folder alone: needs jax, numpy, flatbuffers.

    from load import load
    model = load(FOLDER)
    model.recommend(codes_FMC, scale_C, offset_C, gender="female", age=21, history=["dance"])

Axes: F frames, M regions of a frame, C channels, T hashtags, D entries of a vector.
"""

import json
import pathlib
import re
import unicodedata

import jax
import numpy as np
from jax import export

# How hashtags and attributes are read, as in the package that trained the model; a test of the
# package compares the two.
_SIGNS = "#\uff03\ufe5f"
_WITHIN = "\u00b7\u0387\u30fb\uff65\u05be\u30a0\uff5e\u301c"  # middle dots, maqaf, hyphen, tildes
_ENDINGS = "\u05f3\u05f4\u0f0b\u0f0c\u3003\u309b\u309c\ua67e"  # geresh, tsheg, ditto, sound marks
_BLANK = "\u2800"
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff]"
)
_DOTTED_I = re.compile("i\u0307+")  # what folding makes of the Turkish capital
_MORE_EMOJI = {0x231A, 0x231B, *range(0x23E9, 0x23FB), 0x25B6, 0x25C0, 0x2B05, 0x2B06, 0x2B07}
_MORE_EMOJI |= {0x2B1B, 0x2B1C, 0x2B50, 0x2B55}
_SEPARATOR = re.compile(
    f"[\\s{_BLANK},;|\uff0c\u3001\u060c\u055d\u1363\ufe10\ufe11\ufe50\ufe51\uff64\uff1b\u061b\u1364"
    "\ufe54\uff5c\u00a6\u2016\u2223\u2502\u2503\uffe8\u2022\u2023\u2043\u25e6\u2219\u25cf\u25aa]+"
)
# What may wrap a hashtag or a list: quotes and brackets.
_WRAPPING = (
    "\"'`\u00b4\u00ab\u00bb\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f\u2039\u203a\u300c\u300d\u300e"
    "\u300f\u301d\u301e\u301f\uff02\uff07\uff40()[]{}\uff08\uff09\uff3b\uff3d\uff5b\uff5d\u3008\u3009"
    "\u300a\u300b\u3010\u3011\u3014\u3015"
)
_STOPS = ".!?:\u2026\u3002\uff01\uff1f\uff1a\uff0e"  # that end a sentence
_ADJACENT = re.compile(f"[{re.escape(_WRAPPING)}]{{2,}}")
_LIST_ITEM = re.compile(
    r"""\s*(?:"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)'|([^\s,"'\\()\[\]{}]+))\s*(?:,|$)""", re.DOTALL
)
_STRAIGHT = str.maketrans(
    "\u201c\u201d\u201e\u201f\u00ab\u00bb\u2018\u2019\u201a\u201b", 6 * '"' + 4 * "'"
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
_FLAGS = {0x1F1E6 + i: chr(ord("a") + i) for i in range(26)} | {0x2640: "female", 0x2642: "male"}


def normalise_hashtag(text, rules=2):
    """The key of a hashtag: without '#' and white space, NFKC, case folded, what is seen only."""
    previous = None
    while text != previous:
        previous = text
        if rules == 1:
            text = unicodedata.normalize("NFKC", "".join(text.split()).strip("#")).casefold()
        else:
            text = _INVISIBLE.sub("", text.replace(_BLANK, "").replace("\uff5e", "\u301c"))
            text = unicodedata.normalize("NFKC", text).replace("#", "")
            text = "".join(text.split()).strip(_WITHIN)
            text = _DOTTED_I.sub("i", text.casefold())
        text = unicodedata.normalize("NFKC", text)
    return text


def split_hashtags(field, rules=2):
    """The keys of a list of hashtags, each once; what cannot be a hashtag is left out."""
    if rules == 1:
        keys = (normalise_hashtag(part, 1) for part in re.split(f"[\\s{_SIGNS}]+", field))
        return list(dict.fromkeys(filter(None, keys)))
    parts = [part for part in _parts(field) if len(part) <= 500 and all(map(_may_hold, part))]
    keys = dict.fromkeys(map(normalise_hashtag, parts))
    return [key for key in keys if any(map(_counts, key))]


def squeeze(text):
    """The letters and digits of an attribute, folded and without accents; flags are letters."""
    text = unicodedata.normalize("NFKD", fold_text(text).translate(_FLAGS))
    return "".join(filter(str.isalnum, text))


def fold_text(text):
    """An attribute's value, NFKC, case folded, with single spaces, without what nobody sees."""
    words = map(normalise_hashtag, unicodedata.normalize("NFKC", text[:1000]).split())
    folded = " ".join(filter(None, words))
    return folded if len(text) <= 1000 and len(folded) <= 200 else ""


def _may_hold(character):
    if character in _WITHIN + _ENDINGS + "_" or _INVISIBLE.match(character):
        return True
    category = unicodedata.category(character)
    if category[0] not in "LN" and category not in ("Mn", "Mc") and not _is_emoji(character):
        return False
    parts = "".join(unicodedata.normalize("NFKC", character).split())
    return all(part == character or _may_hold(part) for part in parts)


def _is_emoji(character):
    code = ord(character)
    if 0x1F3FB <= code <= 0x1F3FF:
        return True
    pictures = 0x2600 <= code <= 0x27BF or 0x1F000 <= code <= 0x1FAFF or code in _MORE_EMOJI
    return pictures and not 0x275B <= code <= 0x2761 and unicodedata.category(character) == "So"


def _counts(character):
    return character.isalnum() or _is_emoji(character)


def _parts(field):
    bare = field.strip()
    if bare.strip(_WRAPPING).casefold() in _MISSING:
        return
    if bare.startswith(("{", "[{")) and _OBJECT.search(bare):
        return
    items = _items(bare)
    for item in [field] if items is None else items:
        if items is None or len(item.split()) < 2 or re.search(f"[{_SIGNS}]", item):
            yield from _words(item)


def _items(field):
    brackets = field[:1] in ("[", "(", "{") and field[-1:] in ("]", ")", "}") and len(field) > 1
    text = (field[1:-1] if brackets else field).translate(_STRAIGHT).strip()
    items, position, quoted = [], 0, False
    while position < len(text):
        match = _LIST_ITEM.match(text, position)
        if not match:
            return None
        position = match.end()
        if match[3] is None:
            quoted = True
            items.append(_unescape(match[1] if match[1] is not None else match[2]).strip())
        elif not (brackets and match[3].casefold() in _MISSING):
            items.append(match[3])
    return items if brackets or (quoted and len(items) > 1) else None


def _unescape(text):
    def character(match):
        code = match[1] or match[2] or match[3]
        if not code:
            return " " if match[4] in "nrt" else match[4]
        return chr(int(code, 16)) if int(code, 16) < 0x110000 else "\ufffd"

    if "\\" not in text:
        return text
    halves = _ESCAPE.sub(character, text)
    return halves.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _words(field):
    for chunk in re.split(f"[\\s{_BLANK}]+", field):
        if ("/" in chunk or "?" in chunk) and _ADDRESS.search(chunk):
            continue
        for token in _SEPARATOR.split(chunk):
            words = re.split(f"(?<!&)[{_SIGNS}]+", token)
            bare = [word.lstrip(_WRAPPING).rstrip(_WRAPPING + _STOPS) for word in words]
            if not (len(words) == 2 and bare[0] and not bare[1]):
                yield from (part for word in bare for part in _ADJACENT.split(word) if part)


def load(folder):
    """The model of an exported folder.

    Raises:
        OSError, ValueError: a file is missing or damaged.
    """
    return Recommender(pathlib.Path(folder))


class Recommender:
    """Ranks the hashtags of the vocabulary; give `load` the folder to make one.

    Attributes:
        hashtags: the T names, as most users write them.
        vectors_TD: float32; a hashtag's score is its vector times the query.
        shapes: sizes of a clip and a history, type of codes, most hashtags (`top_k`).
    """

    def __init__(self, folder):
        def read(name):
            return json.loads((folder / name).read_text("utf-8"))

        def program(name):
            data = bytearray((folder / f"{name}.jax_export").read_bytes())
            return jax.jit(export.deserialize(data).call)

        self.hashtags = read("hashtags.json")
        self.vectors_TD = np.load(folder / "hashtags.npy", allow_pickle=False)
        self._encodings = read("encodings.json")
        self.shapes = read("model.json")["shapes"]
        self._confidence = read("confidence.json")
        self._ids = {key: t for t, key in enumerate(read("keys.json"))}
        self._query, self._recommend = program("query"), program("recommend")

    def recommend(self, codes_FMC, scale_C, offset_C, *, top_k=None, **profile):
        """[(hashtag, score, confidence)], best first.

        The confidence is the probability that the user attaches it, fitted on validation clips;
        None where the run had none.

        Args:
            codes_FMC: the clip's features as stored, `shapes["codes"]`; at most F frames.
            scale_C: float, a feature is code * scale + offset.
            offset_C: float.
            top_k: how many; default: 10, or all if they are fewer.
            **profile: gender, age (years), country and history (hashtags used before, in any
                spelling); what is left out or not in the training data counts as unknown.

        Raises:
            ValueError: the features or `top_k` don't fit the model.
        """
        most = self.shapes["top_k"]
        top_k = min(10, most) if top_k is None else top_k
        if not 1 <= top_k <= most:
            raise ValueError(f"top_k must be from 1 to {most}, got {top_k}")
        batch = self._batch(codes_FMC, scale_C, offset_C, **profile)
        ids_K, scores_K = (np.asarray(array)[0] for array in self._recommend(*batch))
        columns = ids_K.tolist(), scores_K.tolist(), self._probability(scores_K)
        return [(self.hashtags[t], *values) for t, *values in zip(*columns, strict=True)][:top_k]

    def query(self, codes_FMC, scale_C, offset_C, **profile):
        """query_D, float32, to look up in an index of `vectors_TD`; arguments as of `recommend`."""
        batch = self._batch(codes_FMC, scale_C, offset_C, **profile)
        return np.asarray(self._query(*batch))[0]

    def _probability(self, scores_K):
        """Confidence in each of the best hashtags: regression on scores and rank, then rates."""
        if not self._confidence:
            return [None] * len(scores_K)
        scores_K = scores_K.astype(np.float64)
        ranks_K, ones_K = np.log(np.arange(1, len(scores_K) + 1)), np.ones(len(scores_K))
        columns = np.stack([scores_K, scores_K[0] * ones_K, ranks_K, ones_K], axis=-1)
        logits_K = columns @ np.array(self._confidence["weights"])
        return np.interp(logits_K, self._confidence["logits"], self._confidence["rates"]).tolist()

    def _batch(self, codes_FMC, scale_C, offset_C, *, gender="", age=None, country="", history=()):
        """The arguments of both programs for one clip."""
        codes_FMC = np.asarray(codes_FMC)
        most, *frame = (self.shapes[axis] for axis in ("frames", "regions", "channels"))
        if codes_FMC.ndim != 3 or list(codes_FMC.shape[1:]) != frame or len(codes_FMC) > most:
            raise ValueError(
                f"codes must be at most {most} frames of {frame[0]} regions and {frame[1]} "
                f"channels, got {codes_FMC.shape}; take {most} frames spread evenly over the clip"
            )
        if codes_FMC.dtype.name != self.shapes["codes"]:
            raise ValueError(f"codes must be {self.shapes['codes']}, got {codes_FMC.dtype}")
        padded_FMC = np.zeros((most, *frame), codes_FMC.dtype)
        padded_FMC[: len(codes_FMC)] = codes_FMC
        history_R = np.zeros(self.shapes["history"], np.int32)
        ids = self._history(history)
        history_R[: len(ids)] = ids
        arrays = (
            padded_FMC,
            np.asarray(scale_C, np.float32).reshape(frame[1]),
            np.asarray(offset_C, np.float32).reshape(frame[1]),
            np.arange(most) < len(codes_FMC),
            np.int32(self._attribute("genders", gender)),
            np.int32(self._age(age)),
            np.int32(self._attribute("countries", country)),
            history_R,
            np.arange(len(history_R)) < len(ids),
        )
        return [np.asarray(array)[np.newaxis] for array in arrays]

    def _attribute(self, kind, value):
        """Place of a value, however spelled; 0, unknown, where the training data lack it."""
        names, wanted = self._encodings[kind], str(value or "").strip()
        if wanted in names:
            return names.index(wanted)
        if self._encodings["rules"] == 1:
            folded = [name.casefold() for name in names]
            return folded.index(wanted.casefold()) if wanted.casefold() in folded else 0
        spellings = self._encodings["spellings"][kind]
        folded = fold_text(wanted)
        return spellings.get(squeeze(wanted)) or spellings.get(f" {folded}", 0)

    def _age(self, years):
        """Place of the bucket that an age lies in; 0, unknown, for None."""
        if years is None:
            return 0
        if years < 0:
            raise ValueError(f"age must be a number of years, got {years}; leave it out instead")
        return [bucket["id"] for bucket in self._encodings["ages"] if bucket["from"] <= years][-1]

    def _history(self, history):
        """Ids of the hashtags that are known, each once, as many as the model takes."""
        history = [history] if isinstance(history, str) else history
        rules = self._encodings["rules"]
        names = [name for text in history for name in split_hashtags(text, rules)]
        ids = dict.fromkeys(self._ids[name] for name in names if name in self._ids)
        return list(ids)[: self.shapes["history"]]
