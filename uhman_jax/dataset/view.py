"""Builds and stores a view: splits, and vocabulary, attributes and histories from train only."""

import collections
import dataclasses
import functools
import hashlib
import io
import json
import os
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any, assert_never

import numpy as np

from uhman_jax.config import Duplicates, ViewConfig
from uhman_jax.dataset.attributes import AGE_BUCKETS, age_bucket, encode_attribute
from uhman_jax.dataset.duplicates import (
    count_copies,
    find_copies,
    find_groups,
    leave_out_copies,
)
from uhman_jax.dataset.hashtags import normalise_hashtag
from uhman_jax.dataset.history import Ragged, build_histories, history_parts
from uhman_jax.dataset.raw import RawDataset, User, Video
from uhman_jax.dataset.split import (
    TEST,
    TRAIN,
    VALIDATION,
    assign_splits,
    surplus_train,
)
from uhman_jax.dataset.vocabulary import (
    Vocabulary,
    count_without_hashtag,
    describe_min_count,
    fitting_min_count,
    leave_out,
    select_hashtags,
)
from uhman_jax.runtime import storage
from uhman_jax.runtime.errors import UserError

__all__ = ["TEST", "TRAIN", "VALIDATION", "Ragged", "View", "build_view"]

_FORMAT = 3  # version of the file format; 2 had neither spellings nor rules
_DIGEST_SIZE = 64  # characters of a SHA-256 in hexadecimal


@dataclasses.dataclass(frozen=True, eq=False)
class View:
    """All data of the videos that training and evaluation use, except the features.

    Rows are videos in the order of their ids. Views with equal fingerprints have equal content. In
    `genders`, `ages` and `countries`, index 0 is "unknown".
    """

    hashtags: tuple[str, ...]  # T names, most used in train first, then by name
    spellings: tuple[str, ...]  # as most users write them, for display; `hashtags` under rules 1
    counts_T: np.ndarray  # int64, uses in the train rows (of `positives`)
    kept_T: np.ndarray  # float64 in (0, 1], fraction of the uses that `balanced` keeps, else 1
    genders: tuple[str, ...]  # most used in train first, then by name
    ages: tuple[str, ...]  # buckets of years, ascending
    countries: tuple[str, ...]  # in the order of `genders`
    video_ids: tuple[str, ...]  # id of each row
    user_ids: tuple[str, ...]  # poster of each row
    split_V: np.ndarray  # int8, TRAIN, VALIDATION or TEST
    gender_V: np.ndarray  # int32 index into `genders`
    age_V: np.ndarray  # int32 index into `ages`
    country_V: np.ndarray  # int32 index into `countries`
    history: Ragged  # hashtag ids that the user used elsewhere, most used first, each once
    positives: Ragged  # hashtag ids of the video itself, ascending, at least one
    max_positives: int  # length of the longest row of `positives`, at least 1
    max_history: int  # length of the longest row of `history`, at least 1
    report: dict[str, int]  # counts of videos and uses, mostly of left-out ones, by reason
    rules: int  # version of the rules for reading the tables, see `dataset.rules`
    min_count: int  # minimum training uses of a hashtag; 0 in files of earlier versions
    fingerprint: str  # SHA-256 of what decides training; under rules 1 without spellings, rules

    def rows(self, split: int) -> np.ndarray:
        """Returns the rows of TRAIN, VALIDATION or TEST, int64, ascending."""
        return np.flatnonzero(self.split_V == split).astype(np.int64)

    def find(self, hashtag: str) -> int | None:
        """Returns the id of a hashtag in any spelling; None if it is not in the vocabulary."""
        found = self._ids.get(hashtag)
        return self._ids.get(normalise_hashtag(hashtag, self.rules)) if found is None else found

    def next_history(self, user_id: str) -> list[int]:
        """Returns the history that a further video of a user would have; [] for other users.

        It has the hashtags of all train videos of the user and those of their list in users.csv,
        most used first, then by name, at most `max_history`. A view has this list only as a part of
        the histories, so a hashtag that is both in the list and on two train videos or more counts
        once less if all videos of the user are in train.
        """
        rows = [row for row, name in enumerate(self.user_ids) if name == user_id]
        for row in rows:
            if self.split_V[row] != TRAIN:
                return self.history.row(row).tolist()
        own = {row: set(self.positives.row(row).tolist()) for row in rows}
        count = collections.Counter(t for hashtags in own.values() for t in hashtags)
        listed = {
            t
            for row, hashtags in own.items()
            for t in self.history.row(row).tolist()
            if count[t] == (t in hashtags)  # no other video has it
        }
        count.update(listed)
        ranked = sorted(count, key=lambda t: (-count[t], self.hashtags[t]))
        return ranked[: self.max_history]

    @functools.cached_property
    def user_V(self) -> np.ndarray:
        """The index of each row's user among the ids in order, int64."""
        return np.unique(np.array(self.user_ids, dtype=object), return_inverse=True)[1]

    @functools.cached_property
    def history_parts(self) -> np.ndarray:
        """The parts of the user's other videos for each value of `history`, int32."""
        return history_parts(self.user_V, self.split_V == TRAIN, self.positives, self.history)

    @functools.cached_property
    def _ids(self) -> dict[str, int]:
        """The ids by hashtag and by spelling."""
        ids = {name: t for t, name in enumerate(self.spellings)}
        return ids | {name: t for t, name in enumerate(self.hashtags)}

    def save(self, path: str | os.PathLike) -> None:
        """Writes one .npz file without pickled objects, whole or not at all."""
        header = {name: getattr(self, name) for name in _HEADER_FIELDS} | {"format": _FORMAT}
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            header=np.frombuffer(json.dumps(header).encode(), dtype=np.uint8),
            **_arrays(self),
        )
        # The digest follows as the ZIP comment; the last two bytes of the archive are its length.
        data = buffer.getvalue()[:-2] + _DIGEST_SIZE.to_bytes(2, "little")
        with storage.atomic_write(path) as file:
            file.write(data + hashlib.sha256(data).hexdigest().encode())

    @classmethod
    def load(cls, path: str | os.PathLike) -> "View":
        """Reads what `save` wrote.

        Raises:
            UserError: the file is missing or damaged, or its format is unknown.
        """
        try:
            content = storage.path(path).read_bytes()
        except OSError as error:
            raise UserError(
                f"a view must be a readable file, got {path} ({error.strerror}); build it again"
            ) from None
        data, digest = content[:-_DIGEST_SIZE], content[-_DIGEST_SIZE:]
        if hashlib.sha256(data).hexdigest().encode() != digest:
            raise UserError(
                f"a view must match its checksum, got the damaged or foreign file {path}; "
                "delete it and build the view again"
            )
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            header: dict[str, Any] = json.loads(archive["header"].tobytes())
            if (format_ := header.pop("format")) not in (2, _FORMAT):
                raise UserError(
                    f"a view must be of format 2 or {_FORMAT}, got {format_} in {path}; "
                    "delete it and build the view again"
                )
            header.setdefault("min_count", 0)
            if format_ == 2:
                header |= {"spellings": header["hashtags"], "rules": 1}
            fields: dict[str, Any] = {n: archive[n] for n in archive.files if n != "header"}
        for name in ("history", "positives"):
            fields[name] = Ragged(fields.pop(f"{name}_values"), fields.pop(f"{name}_offsets"))
        for name, value in header.items():
            fields[name] = tuple(value) if isinstance(value, list) else value
        return cls(**fields)


_HEADER_FIELDS = tuple(
    field.name for field in dataclasses.fields(View) if field.type not in (np.ndarray, Ragged)
)


def _arrays(view: View) -> dict[str, Any]:
    """Returns the arrays of a view by their names in its file."""
    arrays = {}
    for field in dataclasses.fields(view):
        value = getattr(view, field.name)
        if isinstance(value, Ragged):
            arrays[f"{field.name}_values"] = value.values
            arrays[f"{field.name}_offsets"] = value.offsets
        elif isinstance(value, np.ndarray):
            arrays[field.name] = value
    return arrays


def _fingerprint(view: View) -> str:
    digest = hashlib.sha256()
    left_out = ["report", "min_count", "fingerprint"]
    if view.rules == 1:  # as before rules 2
        left_out += ["spellings", "rules"]
    header = [getattr(view, name) for name in _HEADER_FIELDS if name not in left_out]
    digest.update(json.dumps(header).encode())
    for name, array in _arrays(view).items():
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def build_view(
    raw: RawDataset,
    available_ids: Collection[str],
    config: ViewConfig,
    contents: Mapping[str, str] = MappingProxyType({}),
    duplicates: Duplicates = Duplicates.TOGETHER,
    log: Callable[[str], object] = lambda line: None,
) -> View:
    """Returns the view of a raw dataset under a config.

    Everything is derived from train: no label of a validation or test video changes a train row,
    the vocabulary, an attribute value or a history. The order of the raw rows changes nothing. A
    video without a hashtag of the vocabulary is not a row of the view; the report counts it.

    Args:
        raw: the dataset.
        available_ids: ids of the videos that have features; other videos are left out.
        config: settings of the view.
        contents: hash of the content by video_id, if known.
        duplicates: how to treat videos with equal content.
        log: function that logs a line about the hashtags that `config.min_count` drops.

    Raises:
        UserError: no video can be trained on, or a requested split is empty.
    """
    available = set(available_ids)
    videos = sorted((v for v in raw.videos if v.video_id in available), key=lambda v: v.video_id)
    if not videos:
        raise UserError(
            f"a view must have videos with features, got none of {len(raw.videos)}; "
            "preprocess them first, and look for failures in the ledger"
        )
    divide = functools.partial(
        assign_splits,
        split=config.split,
        test_share=config.test_share,
        validation_share=config.validation_share,
        seed=config.seed,
    )
    report = {
        "raw_videos": len(raw.videos),
        "videos_without_features": len(raw.videos) - len(videos),
        "videos_without_timestamp": sum(video.timestamp is None for video in videos),
    }
    copies, groups = find_copies(videos, contents), find_groups(videos)
    report |= count_copies(videos, copies, duplicates, functools.partial(divide, copies=groups))
    match duplicates:
        case Duplicates.TOGETHER:
            split_V = divide(videos, copies=[*copies, *groups])
        case Duplicates.DROP:
            videos = leave_out_copies(videos, copies)
            split_V = divide(videos, copies=find_groups(videos))
        case Duplicates.KEEP:
            split_V = divide(videos, copies=groups)
        case _:
            assert_never(duplicates)
    min_count = config.min_count or fitting_min_count(int(np.sum(split_V == TRAIN)))
    log(describe_min_count(videos, split_V, min_count))
    config = dataclasses.replace(config, min_count=min_count)
    vocabulary = select_hashtags(videos, split_V, config)
    report |= vocabulary.report | count_without_hashtag(vocabulary, split_V, min_count)
    video_ids = [video.video_id for video in videos]
    surplus_V = surplus_train(video_ids, split_V, config.train_share, config.seed)
    if surplus_V.any():
        report["surplus_train_videos"] = int(surplus_V[np.unique(vocabulary.video)].sum())
        vocabulary = leave_out(vocabulary, surplus_V, split_V == TRAIN)
    is_row_V = np.bincount(vocabulary.video, minlength=len(videos)) > 0
    videos = [video for video, kept in zip(videos, is_row_V, strict=True) if kept]
    split_V = split_V[is_row_V]
    use_video = (np.cumsum(is_row_V) - 1)[vocabulary.video]
    uses = use_video, vocabulary.hashtag
    return _assemble(raw, videos, split_V, vocabulary, uses, config, report)


def _assemble(
    raw: RawDataset,
    videos: list[Video],
    split_V: np.ndarray,
    vocabulary: Vocabulary,
    uses: tuple[np.ndarray, np.ndarray],
    config: ViewConfig,
    report: dict[str, int],
) -> View:
    """Joins the videos that are rows of the view with the data of their users."""
    is_train_V = split_V == TRAIN
    user_id_V = np.array([video.user_id for video in videos], dtype=object)
    user_ids, user_V = np.unique(user_id_V, return_inverse=True)
    users = [raw.users.get(user_id, User("")) for user_id in user_ids]
    user_of = [users[u] for u in user_V]
    genders, gender_V = encode_attribute([user.gender for user in user_of], is_train_V)
    countries, country_V = encode_attribute([user.country for user in user_of], is_train_V)
    buckets = [age_bucket(user.age) for user in user_of]
    ages, age_V = encode_attribute(buckets, is_train_V, AGE_BUCKETS)

    index = {name: t for t, name in enumerate(vocabulary.hashtags)}
    past = [
        (u, index[name]) for u, user in enumerate(users) for name in user.history if name in index
    ]
    past_user, past_hashtag = np.array(past, dtype=np.int64).reshape(-1, 2).T
    history = build_histories(
        user_V,
        is_train_V,
        uses,
        (past_user, past_hashtag),
        name_rank_T=np.argsort(np.argsort(np.array(vocabulary.hashtags, dtype=object))),
        max_history=config.max_history,
    )
    order = np.lexsort((uses[1], uses[0]))
    positives = Ragged.build(uses[0][order], uses[1][order], len(videos))
    view = View(
        hashtags=vocabulary.hashtags,
        spellings=vocabulary.spellings,
        counts_T=vocabulary.counts_T,
        kept_T=vocabulary.kept_T,
        genders=genders,
        ages=ages,
        countries=countries,
        video_ids=tuple(video.video_id for video in videos),
        user_ids=tuple(user_id_V),
        split_V=split_V,
        gender_V=gender_V,
        age_V=age_V,
        country_V=country_V,
        history=history,
        positives=positives,
        max_positives=int(np.diff(positives.offsets).max(initial=1)),
        max_history=int(np.diff(history.offsets).max(initial=1)),
        report=report,
        rules=raw.rules if any(video.group for video in raw.videos) else min(raw.rules, 2),
        min_count=config.min_count,
        fingerprint="",
    )
    return dataclasses.replace(view, fingerprint=_fingerprint(view))
