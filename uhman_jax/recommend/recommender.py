"""Suggests the hashtags that a user would attach to a clip, with the model of a run."""

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from uhman_jax.backbone import BACKBONES
from uhman_jax.evaluate.confidence import Calibration
from uhman_jax.input_pipeline import pad_videos
from uhman_jax.kernels.video_input import VideoInput
from uhman_jax.models.layers import score
from uhman_jax.models.two_paths import num_channels
from uhman_jax.preprocess.feature_client import OnDemand
from uhman_jax.recommend.profile import Profile, ProfileEncoder, profile_of, read_list
from uhman_jax.recommend.start import check_choice, start_extractor
from uhman_jax.run import keep_compiled_programs
from uhman_jax.run_directory import which_seed
from uhman_jax.runtime import storage
from uhman_jax.runtime.errors import UserError
from uhman_jax.shards.record import FrameRecord, Schema
from uhman_jax.trained_run import Trained, open_run

_UNKNOWN_USER = Profile()


class Suggestion(NamedTuple):
    """A hashtag for a clip.

    The confidence is the probability that the user attaches the hashtag, fitted on the validation
    split; None if it was not fitted.
    """

    hashtag: str  # in its most common spelling, without '#'
    score: float  # orders the hashtags of one clip; it has no unit
    confidence: float | None


class Answer(NamedTuple):
    """The result for one of several clips."""

    index: int  # of the clip in the request
    readable: bool  # whether at least one frame could be read
    suggestions: list[Suggestion]  # best first
    problem: str  # error of the clip, even if some frames could be read; "" if there is none


class Recommender(contextlib.AbstractContextManager["Recommender"]):
    """One seed's model of a run, with the extractor of the run's features.

    >>> with Recommender.load("runs/natural") as recommender:           # doctest: +SKIP
    ...     recommender.recommend("clip.mp4", Profile(age=21), top_k=3)

    New users need no retraining: the model knows a user only by the profile.

    Attributes:
        trained: the run.
        config: settings of the run.
        view: vocabulary and attribute values.
        model: the network.
        variables: parameters and constants of the network.
        metrics: metrics.json of the run.
    """

    def __init__(
        self,
        trained: Trained,
        model: Any,
        variables: Any,
        clips: OnDemand,
        calibration: Calibration | None = None,
    ):
        self.trained = trained
        self.config, self.metrics = trained.config, trained.metrics
        self.view = view = trained.view
        self.model, self.variables = model, variables
        self._calibration, self._clips = calibration, clips
        self._profiles = ProfileEncoder(view)
        apply = model.apply
        self._hashtags_TD = jax.jit(lambda v: apply(v, method="hashtags"))(variables)
        self._query = jax.jit(lambda v, video, user: apply(v, video, user, method="query"))
        self._rank = jax.jit(_rank, static_argnums=2)

    @classmethod
    def load(
        cls,
        run: str | os.PathLike[str],
        *,
        features: str | os.PathLike[str] = "",
        seed: int | None = None,
        bounds: Mapping[str, Any] | None = None,
        clips: OnDemand | None = None,
    ) -> "Recommender":
        """Reads a run directory and starts its extractor.

        Args:
            run: the run directory.
            features: folder of the run's features, of which only the extractor's settings and
                weights are read; "": the folder in the config.
            seed: seed of the model; None: the first.
            bounds: limits on clips, by field of PreprocessConfig; None: the limits of the run.
            clips: an extractor of `start_extractor`; then `features` and `bounds` are ignored.

        Raises:
            UserError: the run is not trained, or the extractor differs from the run's.
        """
        clips = clips or start_extractor(run, features, bounds, seed=seed)
        try:
            trained = open_run(storage.path(run))
            seed = which_seed(trained.config, seed)
            keep_compiled_programs()
            return cls(trained, *trained.model(seed), clips, trained.calibration(seed))
        except BaseException:
            clips.close()
            raise

    def __exit__(self, *exc: object) -> None:
        """Closes the extractor."""
        self.close()

    def close(self) -> None:
        """Ends the extractor's process."""
        self._clips.close()

    @property
    def notes(self) -> list[str]:
        """One sentence for each value of the last profiles that the model could not use."""
        return self._profiles.notes

    def profile(self, user_id: str) -> Profile:
        """Returns the profile of a user of the run, see `profile_of`."""
        return profile_of(self.view, user_id)

    def recommend(
        self,
        video: str | os.PathLike[str],
        user: Profile = _UNKNOWN_USER,
        top_k: int = 10,
        *,
        exclude: Iterable[str] = (),
        min_confidence: float = 0.0,
    ) -> list[Suggestion]:
        """Returns the best hashtags for a clip, best first.

        Args:
            video: any file that FFmpeg reads.
            user: the user who posts it.
            top_k: maximum number of suggestions.
            exclude: hashtags to leave out, in any spelling; one text may list several.
            min_confidence: less confident suggestions are left out.

        Raises:
            UserError: the clip has no readable frame, or an argument is wrong.
        """
        (suggestions,) = self.suggest(
            self.features(video), [user], top_k, exclude=exclude, min_confidence=min_confidence
        )
        return suggestions

    def recommend_many(
        self,
        videos: Sequence[str | os.PathLike[str]],
        user: Profile = _UNKNOWN_USER,
        top_k: int = 10,
        *,
        exclude: Iterable[str] = (),
        min_confidence: float = 0.0,
    ) -> Iterator[Answer]:
        """Yields the answers for many clips as they finish; a broken clip affects no other.

        The answer for a clip without a readable frame may be late. For arguments see `recommend`.
        """
        excluded = (exclude,) if isinstance(exclude, str) else tuple(exclude)
        for clip in self._clips.encode(videos):
            suggestions = []
            if clip.record is not None:
                (suggestions,) = self.suggest(
                    clip.record, [user], top_k, exclude=excluded, min_confidence=min_confidence
                )
            problem = clip.reason if clip.state == "ok" else f"{clip.state}: {clip.reason}"
            yield Answer(clip.index, clip.record is not None, suggestions, problem)

    def features(self, video: str | os.PathLike[str]) -> FrameRecord:
        """Extracts the region features of a clip with the run's extractor.

        Raises:
            UserError: the clip has no readable frame.
        """
        (clip,) = self._clips.encode([video])
        if clip.record is None:
            raise UserError(
                f"a clip must have a frame that can be read, got {os.fspath(video)!r} "
                f"({clip.state}: {clip.reason}); try another file"
            )
        return clip.record

    def compile(
        self, user: Profile = _UNKNOWN_USER, top_k: int = 10, exclude: Iterable[str] = ()
    ) -> None:
        """Compiles the model for these arguments, e.g. while the first clip is encoded."""
        zeros_C = np.zeros(num_channels(self.variables), np.float32)
        backbone = BACKBONES[self.config.preprocess.backbone.value]
        dtype = self.config.preprocess.storage.value
        schema = Schema(len(zeros_C), dtype, backbone.num_regions)
        codes_FMC = np.zeros((1, schema.num_regions, schema.num_channels), schema.dtype)
        record = FrameRecord("", codes_FMC, zeros_C, zeros_C, np.zeros(1, np.float32))
        self.suggest(record, [user], top_k, exclude=exclude)

    def warm_up(self) -> None:
        """Compiles the model and waits until the extractor is loaded."""
        self.compile()
        list(self._clips.encode([]))

    def suggest(
        self,
        record: FrameRecord,
        users: Sequence[Profile],
        top_k: int = 10,
        *,
        exclude: Iterable[str] = (),
        min_confidence: float = 0.0,
    ) -> list[list[Suggestion]]:
        """Returns the best hashtags for the features of a clip, per user; see `recommend`."""
        check_choice(top_k, min_confidence)
        if min_confidence and self._calibration is None:
            raise UserError(
                "min_confidence needs a run with fitted confidences, got one without; evaluate it "
                "again with uhman_jax.main --mode=evaluate, with a validation split"
            )
        excluded = self._excluded(exclude)
        # One compiled ranking serves every `top_k` up to 50.
        num_candidates = min(max(top_k, 50) + len(excluded), len(self.view.hashtags))
        query_BD = self._query(
            self.variables, self.video_input(record, len(users)), self.encode(users)
        )
        scores_BT, top_BT = self._rank(query_BD, self._hashtags_TD, num_candidates)
        scores_BT, top_BT = np.asarray(scores_BT), np.asarray(top_BT)
        confidence_BT: Any = np.full(scores_BT.shape, None)
        if self._calibration:
            confidence_BT = self._calibration.confidence(scores_BT)
        answers = []
        for scores_T, top_T, confidence_T in zip(scores_BT, top_BT, confidence_BT, strict=True):
            columns = zip(top_T.tolist(), scores_T.tolist(), confidence_T.tolist(), strict=True)
            answers.append(
                [
                    Suggestion(self.view.spellings[t], score, confidence)
                    for t, score, confidence in columns
                    if self.view.hashtags[t] not in excluded
                    and (confidence or 0.0) >= min_confidence
                ][:top_k]
            )
        return answers

    def _excluded(self, exclude: Iterable[str]) -> set[str]:
        """Returns the keys of the hashtags to leave out."""
        found = read_list(exclude, self.view.rules)
        if found.rejected:
            raise UserError(
                "exclude must list hashtags of letters, marks, digits, underscores and emoji, got "
                f"{found.rejected[0]!r}; correct it or leave it out"
            )
        return set(found.keys)

    def vectors(self, hashtags: Sequence[str]) -> np.ndarray:
        """Returns the embeddings of hashtags in any spelling, float32 (T, D).

        Raises:
            UserError: a hashtag is not in the vocabulary.
        """
        rows = [self.view.find(name) for name in hashtags]
        if None in rows:
            raise UserError(
                "hashtags must be in the run's vocabulary (view.hashtags), got "
                f"{hashtags[rows.index(None)]!r}; leave it out"
            )
        return np.asarray(self._hashtags_TD)[np.array(rows, np.int64)]

    def encode(self, users: Sequence[Profile]):
        """Returns the UserInput of profiles; `notes` lists the values that could not be used."""
        return self._profiles.encode(users)

    def video_input(self, record: FrameRecord, count: int = 1) -> VideoInput:
        """Returns the VideoInput of a clip, repeated for `count` users."""
        num_frames, num_regions, num_channels = record.codes_FMC.shape
        schema = Schema(num_channels, record.codes_FMC.dtype.name, num_regions)

        def copy(codes_FMC: np.ndarray) -> tuple[int, dict[str, np.ndarray]]:
            codes_FMC[:num_frames] = record.codes_FMC
            return num_frames, {name: getattr(record, name) for name in schema.clip_fields}

        return pad_videos([copy] * count, schema, self.config.preprocess.max_frames)


def _rank(query_BD, hashtags_TD, top_k: int):
    """Returns scores_BT and top_BT of the best hashtags, best first."""
    return jax.lax.top_k(score(query_BD, hashtags_TD).astype(jnp.float32), top_k)
