"""Reference rankings: from counts of training uses, from mean features, and from the truth."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from uhman_jax.dataset.view import TRAIN, View
from uhman_jax.evaluate.clip_inputs import ClipInputs
from uhman_jax.evaluate.knn_ranking import knn_ranks
from uhman_jax.evaluate.ranking import rank_scores, summaries
from uhman_jax.evaluate.ridge_ranking import fit_ridge, ridge_ranks
from uhman_jax.input_pipeline import pad
from uhman_jax.scores import Score, Scores
from uhman_jax.simulator.truth import Truth


def positives_of(view: View, rows_V: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the positives of view rows as (ids, mask), int32 and bool, both (V, P)."""
    return pad(view.positives, rows_V, view.max_positives)


class ReferenceRanking(NamedTuple):
    """The ranking of some clips by one reference.

    Attributes:
        index_V: which of the clips to rank it has ranked; ascending.
        ranks_VP: int32, their positives' ranks.
        settings: settings that were chosen on the validation split, by name.
    """

    index_V: np.ndarray
    ranks_VP: np.ndarray
    settings: dict[str, Any]


def rank_references(
    view: View, rows_V: np.ndarray, truth: Truth | None, inputs: ClipInputs | None = None
) -> dict[str, ReferenceRanking]:
    """Returns the reference rankings of some videos, by system.

    `popularity`, `user_history` and `user_attributes` count uses in the training split. With
    `inputs` there are also `knn` and `ridge`, for the videos that have mean features. With the
    truth there are the oracles of `oracle_scores`.
    """
    positives_VP, mask_VP = positives_of(view, rows_V)
    ranks = {
        "popularity": popularity_ranks(positives_VP),
        "user_history": user_history_ranks(view, rows_V, positives_VP),
        "user_attributes": user_attributes_ranks(view, rows_V, positives_VP),
    }
    found = {}
    if inputs is not None:
        index_V = np.flatnonzero(np.isin(rows_V, inputs.means.rows_V))
        ranks_VP, settings = knn_ranks(inputs, rows_V[index_V])
        found["knn"] = ReferenceRanking(index_V, ranks_VP, settings._asdict())
        fitted = fit_ridge(inputs)
        ranks_VP = ridge_ranks(fitted, inputs, rows_V[index_V])
        found["ridge"] = ReferenceRanking(index_V, ranks_VP, {"penalty": fitted.penalty})
    oracles = {}
    if truth is not None:
        for name, scores_VT in oracle_scores(truth, view, rows_V):
            oracles[name] = rank_scores(scores_VT, positives_VP, mask_VP)

    def of_all(ranks: dict[str, np.ndarray]) -> dict[str, ReferenceRanking]:
        every_V = np.arange(len(rows_V))
        return {name: ReferenceRanking(every_V, found, {}) for name, found in ranks.items()}

    return of_all(ranks) | found | of_all(oracles)


def reference_scores(rankings: Mapping[str, ReferenceRanking], mask_VP: np.ndarray) -> Scores:
    """Returns all metrics of reference rankings; `mask_VP` is of the clips to rank."""
    return Scores(
        {
            (name, metric): Score(seeds[0])
            for name, (index_V, ranks_VP, _) in rankings.items()
            for metric, seeds in summaries(ranks_VP[None], mask_VP[index_V]).items()
        }
    )


def popularity_ranks(positives_VP: np.ndarray) -> np.ndarray:
    """Returns ranks_VP by number of training uses; all videos have the same ranking.

    A view's hashtags are in this order (by name if equally frequent), so the rank of a hashtag is
    its id plus 1.
    """
    return positives_VP + 1


def user_history_ranks(view: View, rows_V: np.ndarray, positives_VP: np.ndarray) -> np.ndarray:
    """Returns ranks_VP with the user's earlier hashtags first and the others by popularity.

    The earlier hashtags are in the order of the view's histories: most used by this user first, by
    name if equally used.
    """
    history_VR, mask_VR = pad(view.history, rows_V, view.max_history)
    used_V1R = np.where(mask_VR, history_VR, -1)[:, None, :]
    is_slot_VPR = used_V1R == positives_VP[:, :, None]
    less_popular_VP = np.sum(used_V1R > positives_VP[:, :, None], axis=2)
    others_VP = positives_VP + 1 + less_popular_VP
    ranks_VP = np.where(is_slot_VPR.any(axis=2), is_slot_VPR.argmax(axis=2) + 1, others_VP)
    return ranks_VP.astype(np.int32)


def user_attributes_ranks(view: View, rows_V: np.ndarray, positives_VP: np.ndarray) -> np.ndarray:
    """Returns ranks_VP by p(hashtag | gender, age, country), naive Bayes from training uses.

    A hashtag's score is log p(t) plus, for each of the three attributes, the log of
    p(t | value) / p(t). Both are smoothed by one use per hashtag on average: p(t) by adding 1 to
    each count, p(t | value) by adding T uses that are distributed as p(t). So rare values have
    little weight, and a profile of new values gets the popularity ranking. "unknown" is a value
    like any other. Equal scores rank by popularity.

    Counts per whole profile (with popularity for rare profiles) are worse: on
    configs/paper_features.py their validation P@10 is 0.050 to 0.056, depending on the smoothing;
    that of naive Bayes is 0.057.
    """
    num_hashtags = len(view.hashtags)
    video = np.repeat(np.arange(len(view.video_ids)), np.diff(view.positives.offsets))
    in_train = view.split_V[video] == TRAIN
    video, hashtag = video[in_train], view.positives.values[in_train]
    uses_T = np.bincount(hashtag, minlength=num_hashtags)
    prob_T = (uses_T + 1) / (len(hashtag) + num_hashtags)

    value_V3 = np.stack([view.gender_V, view.age_V, view.country_V], axis=1)
    uses_3 = [_uses_by_value(value_V[video], hashtag, num_hashtags) for value_V in value_V3.T]
    profile_A3, profile_V, count_A = np.unique(
        value_V3[rows_V], axis=0, return_inverse=True, return_counts=True
    )
    members_A = np.split(np.argsort(profile_V.reshape(-1), kind="stable"), np.cumsum(count_A)[:-1])
    ranks_VP = np.zeros(positives_VP.shape, np.int32)
    rank_T = np.zeros(num_hashtags, np.int32)
    for profile, members in zip(profile_A3, members_A, strict=True):
        score_T = np.log(prob_T)
        for value, uses in zip(profile.tolist(), uses_3, strict=True):
            if value in uses:  # a factor that all hashtags share is left out: it changes no rank
                ids, count = uses[value]
                score_T[ids] += np.log1p(count / (prob_T[ids] * num_hashtags))
        rank_T[np.argsort(-score_T, kind="stable")] = np.arange(1, num_hashtags + 1)
        ranks_VP[members] = rank_T[positives_VP[members]]
    return ranks_VP


def _uses_by_value(
    values: np.ndarray, hashtags: np.ndarray, num_hashtags: int
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Returns for each value of an attribute the hashtags used with it, ascending, and counts."""
    pairs, counts = np.unique(values.astype(np.int64) * num_hashtags + hashtags, return_counts=True)
    value, ids = np.divmod(pairs, num_hashtags)
    found, starts = np.unique(value, return_index=True)
    parts = zip(np.split(ids, starts[1:]), np.split(counts, starts[1:]), strict=True)
    return dict(zip(found.tolist(), parts, strict=True)) if len(pairs) else {}


def oracle_scores(truth: Truth, view: View, rows_V: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yields name and scores (V, T) of each oracle, from the true probabilities of hashtags.

    `oracle` uses the true probability, `observable_oracle` its mean over the variables that no
    model can observe (a user's private preference). `content_oracle` uses only the clip,
    `user_oracle` only the user.

    `additive_oracle` adds both: log p(t | clip) + log p(t | user) - log p(t), with probabilities of
    at least 1e-9. This is Bayes' rule if clip and user are independent given the hashtag, so it is
    about the best that an additive model such as the baseline UA can reach. Only a model with an
    interaction of clip and user can be better. Without the last term a hashtag's popularity counts
    twice: on configs/paper_features.py P@10 falls from 0.27 to 0.22; the content oracle has 0.25.

    A balanced view keeps a random fraction of each hashtag's uses, so all these probabilities are
    multiplied by that fraction.

    Args:
        truth: truth of the simulated dataset; without its tables of clip and user only `oracle`
            and `observable_oracle` are yielded.
        view: the videos and hashtags to rank.
        rows_V: rows of the view.

    Raises:
        UserError: the truth lacks a video of the view.
    """
    truth_V = truth.rows([view.video_ids[row] for row in rows_V])
    column = {name: index for index, name in enumerate(truth.hashtags)}
    columns = np.array([column[name] for name in view.hashtags])

    def probability(table_VT: np.ndarray) -> np.ndarray:
        return table_VT[np.ix_(truth_V, columns)] * view.kept_T[None, :]

    def log(table_VT: np.ndarray) -> np.ndarray:
        return np.log(np.maximum(table_VT, 1e-9))

    if truth.content_VT is not None and truth.user_VT is not None:
        content_VT, user_VT = probability(truth.content_VT), probability(truth.user_VT)
        prior_T = truth.content_VT.mean(axis=0)[columns] * view.kept_T
        yield "content_oracle", content_VT
        yield "user_oracle", user_VT
        yield "additive_oracle", log(content_VT) + log(user_VT) - log(prior_T)[None, :]
    yield "observable_oracle", probability(truth.observable_VT)
    yield "oracle", probability(truth.probability_VT)
