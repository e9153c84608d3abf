"""Rankings to compare a model with: three by counting, and oracles where the truth is known."""

from collections.abc import Iterator

import numpy as np

from uhman_jax.dataset.truth import Truth
from uhman_jax.dataset.view import TRAIN, View
from uhman_jax.evaluate.ranking import rank_scores, summaries
from uhman_jax.input_pipeline import pad
from uhman_jax.scores import Score, Scores


def positives_of(view: View, rows_V: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positives of view rows as (ids, mask), int32 and bool, both (V, P)."""
    return pad(view.positives, rows_V, view.max_positives)


def reference_scores(view: View, rows_V: np.ndarray, truth: Truth | None) -> Scores:
    """Returns all metrics of the reference rankings of some videos.

    `popularity`, `user_history` and `user_attributes` count uses in train; the oracles are there
    where the truth is known (see `oracle_scores`).
    """
    positives_VP, mask_VP = positives_of(view, rows_V)
    ranks = {
        "popularity": popularity_ranks(positives_VP),
        "user_history": user_history_ranks(view, rows_V, positives_VP),
        "user_attributes": user_attributes_ranks(view, rows_V, positives_VP),
    }
    if truth is not None:
        for name, scores_VT in oracle_scores(truth, view, rows_V):
            ranks[name] = rank_scores(scores_VT, positives_VP, mask_VP)
    return Scores(
        {
            (name, metric): Score(seeds[0])
            for name, ranks_VP in ranks.items()
            for metric, seeds in summaries(ranks_VP[None], mask_VP).items()
        }
    )


def popularity_ranks(positives_VP: np.ndarray) -> np.ndarray:
    """Ranks (V, P) when all videos get the hashtags in order of their training uses.

    A view's hashtags stand in that order already, equally frequent ones by name, so the rank of a
    hashtag is its id plus 1.
    """
    return positives_VP + 1


def user_history_ranks(view: View, rows_V: np.ndarray, positives_VP: np.ndarray) -> np.ndarray:
    """Ranks (V, P) when a user's own earlier hashtags come first and the rest by popularity.

    The earlier ones stand in the order of the view's histories: most used by this user first,
    equally used ones by name.
    """
    history_VR, mask_VR = pad(view.history, rows_V, view.max_history)
    used_V1R = np.where(mask_VR, history_VR, -1)[:, None, :]
    is_slot_VPR = used_V1R == positives_VP[:, :, None]
    overtaken_by_VP = np.sum(used_V1R > positives_VP[:, :, None], axis=2, dtype=np.int32)
    ranks_VP = np.where(
        is_slot_VPR.any(axis=2), is_slot_VPR.argmax(axis=2) + 1, positives_VP + 1 + overtaken_by_VP
    )
    return ranks_VP.astype(np.int32)


def user_attributes_ranks(view: View, rows_V: np.ndarray, positives_VP: np.ndarray) -> np.ndarray:
    """Ranks (V, P) by p(hashtag | gender, age, country), as naive Bayes has it from train counts.

    A hashtag's score is its log probability p(t) plus, for each of the three attributes, the log of
    p(t | value) / p(t). Both are smoothed by one use per hashtag on average: p(t) by adding 1 to
    each count, p(t | value) by adding T uses that are spread as p(t). So a value that train has
    seldom seen says little, and a profile whose values are all new gets the popularity ranking.
    "unknown" is a value like others. Equal scores rank by popularity.

    Counting whole profiles (and falling back on popularity where one is rare) is worse: on
    configs/paper_features.py 0.050 to 0.056 in validation P@10, depending on the smoothing, where
    this has 0.057.
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
            if value in uses:  # up to a factor that all hashtags share, which changes no rank
                ids, count = uses[value]
                score_T[ids] += np.log1p(count / (prob_T[ids] * num_hashtags))
        rank_T[np.argsort(-score_T, kind="stable")] = np.arange(1, num_hashtags + 1)
        ranks_VP[members] = rank_T[positives_VP[members]]
    return ranks_VP


def _uses_by_value(
    values: np.ndarray, hashtags: np.ndarray, num_hashtags: int
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """The hashtags (ids, ascending) used with each value of an attribute, and how often."""
    pairs, counts = np.unique(values.astype(np.int64) * num_hashtags + hashtags, return_counts=True)
    value, ids = np.divmod(pairs, num_hashtags)
    found, starts = np.unique(value, return_index=True)
    parts = zip(np.split(ids, starts[1:]), np.split(counts, starts[1:]), strict=True)
    return dict(zip(found.tolist(), parts, strict=True)) if len(pairs) else {}


def oracle_scores(truth: Truth, view: View, rows_V: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Name and scores (V, T) of each oracle: what a simulated world knows of a hashtag.

    `oracle` has the true probability, `observable_oracle` its mean over what no model can see (a
    user's private taste). `content_oracle` knows the clip and not the user, `user_oracle` the user
    and not the clip.

    `additive_oracle` knows both but adds them up: log p(t | clip) + log p(t | user) - log p(t), no
    probability below 1e-9. That is Bayes' rule where clip and user are independent given the
    hashtag, so about the best that scores which add, as UA's do, can reach; what is missing to the
    observable oracle needs the two to interact. Without the last term a hashtag's popularity would
    count twice: on configs/paper_features.py P@10 falls from 0.27 to 0.22, the content oracle's is
    0.25.

    A balanced view keeps a share of a hashtag's uses, each by a draw of its own, and so the same
    share of all these probabilities.

    Args:
        truth: of the simulated world; one without the tables of clip and user has two oracles.
        view: whose videos and hashtags are ranked.
        rows_V: view rows.

    Raises:
        UserError: the truth lacks a video of the view.
    """
    videos = truth.rows([view.video_ids[row] for row in rows_V])
    column = {name: index for index, name in enumerate(truth.hashtags)}
    columns = np.array([column[name] for name in view.hashtags])

    def part(table_VT: np.ndarray) -> np.ndarray:
        return table_VT[np.ix_(videos, columns)] * view.kept_T[None, :]

    def log(probability: np.ndarray) -> np.ndarray:
        return np.log(np.maximum(probability, 1e-9))

    if truth.content_VT is not None and truth.user_VT is not None:
        content_VT, user_VT = part(truth.content_VT), part(truth.user_VT)
        prior_T = truth.content_VT.mean(axis=0)[columns] * view.kept_T
        yield "content_oracle", content_VT
        yield "user_oracle", user_VT
        yield "additive_oracle", log(content_VT) + log(user_VT) - log(prior_T)[None, :]
    yield "observable_oracle", part(truth.observable_VT)
    yield "oracle", part(truth.probability_VT)
