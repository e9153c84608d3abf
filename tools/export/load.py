"""Ranks hashtags with the files of this folder; needs only jax, numpy and flatbuffers.

    from load import load
    model = load(FOLDER)
    model.recommend(codes_FMC, scale_C, offset_C, gender="female", age=21, history=["dance"])

Axes: F frames, M regions of a frame, C channels, T hashtags, D entries of a vector.
"""

import json
import pathlib

import jax
import numpy as np
from jax import export

from uhman_jax.dataset.attributes import fold_text, squeeze
from uhman_jax.dataset.hashtags import split_hashtags


def load(folder):
    """Returns the model of an exported folder.

    Raises:
        OSError, ValueError: a file is missing or damaged.
    """
    return Recommender(pathlib.Path(folder))


class Recommender:
    """Ranks the hashtags of the vocabulary; `load` makes one of a folder.

    Attributes:
        hashtags: the T names, as most users write them.
        vectors_TD: float32; a hashtag's score is its vector times the query.
        shapes: sizes of a clip and a history, type of codes, maximum of `top_k`.
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
        """Returns [(hashtag, score, confidence)], best first.

        The confidence is the probability that the user attaches the hashtag, fitted on validation
        clips; None if the run was not calibrated.

        Args:
            codes_FMC: the clip's features as stored, `shapes["codes"]`; at most F frames.
            scale_C: float; a feature is code * scale + offset.
            offset_C: float.
            top_k: number of hashtags; default: 10, or all if they are fewer.
            **profile: gender, age (years), country and history (hashtags used before, in any
                spelling); a value that is missing or not in the training data is unknown.

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
        """Returns query_D, float32, for an index of `vectors_TD`; see `recommend` for arguments."""
        batch = self._batch(codes_FMC, scale_C, offset_C, **profile)
        return np.asarray(self._query(*batch))[0]

    def _probability(self, scores_K):
        """Returns each hashtag's confidence: logistic regression, then interpolated hit rates."""
        if not self._confidence:
            return [None] * len(scores_K)
        scores_K = scores_K.astype(np.float64)
        ranks_K, ones_K = np.log(np.arange(1, len(scores_K) + 1)), np.ones(len(scores_K))
        columns = np.stack([scores_K, scores_K[0] * ones_K, ranks_K, ones_K], axis=-1)
        logits_K = columns @ np.array(self._confidence["weights"])
        return np.interp(logits_K, self._confidence["logits"], self._confidence["rates"]).tolist()

    def _batch(self, codes_FMC, scale_C, offset_C, *, gender="", age=None, country="", history=()):
        """Returns the arguments of both programs for one clip."""
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
        """Returns the index of a value in any spelling; 0 (unknown) if the data lack it."""
        names, text = self._encodings[kind], str(value or "").strip()
        if text in names:
            return names.index(text)
        if self._encodings["rules"] == 1:
            folded = [name.casefold() for name in names]
            return folded.index(text.casefold()) if text.casefold() in folded else 0
        spellings = self._encodings["spellings"][kind]
        return spellings.get(squeeze(text)) or spellings.get(f" {fold_text(text)}", 0)

    def _age(self, years):
        """Returns the index of the bucket of an age; 0 (unknown) for None."""
        if years is None:
            return 0
        if years < 0:
            raise ValueError(f"age must be a number of years, got {years}; leave it out instead")
        return [bucket["id"] for bucket in self._encodings["ages"] if bucket["from"] <= years][-1]

    def _history(self, history):
        """Returns the ids of the first known hashtags, each once, up to the model's maximum."""
        history = [history] if isinstance(history, str) else history
        rules = self._encodings["rules"]
        names = [name for text in history for name in split_hashtags(text, rules)]
        ids = dict.fromkeys(self._ids[name] for name in names if name in self._ids)
        return list(ids)[: self.shapes["history"]]
