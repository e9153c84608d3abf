"""Peers: LightFM, logistic regression, ridge regression and nearest neighbours.

A peer is a function that fits its model on some training clips and returns scores of all clips.
`tune` chooses the settings of any peer on the validation split, with the same budget.
"""

import itertools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Ridge
from sklearn.neural_network import MLPClassifier

from experiments.real_tags.inputs import Inputs, Sparse
from uhman_jax import metrics
from uhman_jax.evaluate.clip_inputs import unit_rows
from uhman_jax.evaluate.ranking import rank_scores

BUDGET = 12  # settings that are tried for each peer
_SEED = 0  # of the choice of settings and of the fits

Setting = Mapping[str, Any]
Predict = Callable[[np.ndarray], np.ndarray]  # rows of clips -> scores_VT


class Peer(NamedTuple):
    """A peer and the values of its settings.

    Attributes:
        fit: (inputs, training rows, setting, seed) -> Predict.
        grid: values of each setting.
        is_random: whether fits with other seeds differ; else fits get bootstrap samples.
    """

    fit: Callable[[Inputs, np.ndarray, Setting, int], Predict]
    grid: dict[str, Sequence[Any]]
    is_random: bool = False


class Tuned(NamedTuple):
    """The result of `tune`.

    Attributes:
        predict: scores of clips under the chosen setting.
        chosen: the setting; "fits" is the number of fits whose mean is used.
        tried: validation P@10 and NDCG@10 by setting, in the order of trial.
    """

    predict: Predict
    chosen: dict[str, Any]
    tried: list[tuple[dict[str, Any], tuple[float, float]]]


def lightfm(inputs: Inputs, rows: np.ndarray, setting: Setting, seed: int) -> Predict:
    """Fits LightFM with WARP: the clip is its "user", described by features; hashtags are items.

    The epoch is chosen on validation at every fit, as the package chooses a checkpoint.
    """
    from lightfm import LightFM  # an extra

    reduced_ND = _reduced(inputs, rows, setting["components"])
    described_NF = _joined(inputs, sp.csr_array(reduced_ND), setting)
    model = LightFM(
        no_components=setting["size"],
        loss="warp",
        learning_rate=setting["rate"],
        user_alpha=setting["alpha"],
        random_state=seed,
    )
    labels_RT = _with_int32(inputs.labels_NT[rows]).tocoo()
    described_NF, known_RF = _with_int32(described_NF), _with_int32(described_NF[rows])
    best, scores_NT = (-1.0, -1.0), np.zeros(inputs.labels_NT.shape, np.float32)
    for _ in range(_LIGHTFM_ROUNDS):
        model.fit_partial(labels_RT, user_features=known_RF, epochs=_LIGHTFM_EPOCHS)
        bias_T, item_TK = model.get_item_representations()
        _, clip_NK = model.get_user_representations(described_NF)
        now_NT = clip_NK @ item_TK.T + bias_T  # the clip's own bias changes no rank
        found = validation_score(inputs, now_NT[inputs.validation])
        if found > best:
            best, scores_NT = found, now_NT
    return lambda rows: scores_NT[rows]


_LIGHTFM_ROUNDS, _LIGHTFM_EPOCHS = 8, 5  # at most 40 epochs


def logistic(inputs: Inputs, rows: np.ndarray, setting: Setting, seed: int) -> Predict:
    """Fits a logistic regression per hashtag, all at once: a network without hidden layers."""
    reduced_ND = _reduced(inputs, rows, setting["components"])
    described_NF = _joined(inputs, reduced_ND, setting)
    model = MLPClassifier((), solver="lbfgs", alpha=setting["alpha"], max_iter=60)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(described_NF[rows], inputs.labels_NT[rows].toarray())
    return lambda rows: described_NF[rows] @ model.coefs_[0] + model.intercepts_[0]


def ridge(inputs: Inputs, rows: np.ndarray, setting: Setting, seed: int) -> Predict:
    """Fits a ridge regression to the 0/1 labels."""
    described_NF = _joined(inputs, _scaled(inputs.features_NC), setting)
    model = Ridge(setting["alpha"]).fit(described_NF[rows], inputs.labels_NT[rows].toarray())
    return lambda rows: model.predict(described_NF[rows])


def knn(inputs: Inputs, rows: np.ndarray, setting: Setting, seed: int) -> Predict:
    """Adds the labels of the most similar training clips and the tags that the user used.

    Neighbours vote with their cosine to a power. Popularity breaks ties.
    """
    unit_NC = unit_rows(inputs.features_NC)
    labels_RT = inputs.labels_NT[rows]
    used_UT = inputs.users_NU[rows].T @ labels_RT
    popularity_T = labels_RT.mean(axis=0)
    count = min(setting["neighbours"], len(rows))

    def predict(asked: np.ndarray) -> np.ndarray:
        cosine_VR = unit_NC[asked] @ unit_NC[rows].T
        nearest_VK = np.argpartition(-cosine_VR, count - 1)[:, :count]
        weight_VK = np.take_along_axis(cosine_VR, nearest_VK, 1).clip(1e-6) ** setting["power"]
        weight_VK /= weight_VK.sum(axis=1, keepdims=True)
        starts = np.arange(0, nearest_VK.size + 1, count)
        votes = weight_VK.ravel(), nearest_VK.ravel(), starts
        votes_VR = sp.csr_array(votes, shape=cosine_VR.shape)
        own_VT = inputs.users_NU[asked] @ used_UT + setting["history"] * inputs.history_NT[asked]
        own_VT = own_VT.toarray() / np.maximum(own_VT.sum(axis=1)[:, None], 1e-12)
        neighbours_VT = (votes_VR @ labels_RT).toarray()
        return neighbours_VT + setting["user"] * own_VT + 1e-3 * popularity_T

    return predict


_WEIGHTS = (0.15, 0.3, 0.6, 1.2)  # of a block beside the clip's features, which have 1
_BLOCKS: dict[str, Sequence[Any]] = {"user": _WEIGHTS, "history": _WEIGHTS}
PEERS = {
    "lightfm": Peer(
        lightfm,
        _BLOCKS
        | {
            "components": (64, 128, 256),
            "size": (64, 128),
            "rate": (0.02, 0.05),
            "alpha": (0.0, 1e-5, 1e-4),
        },
        is_random=True,
    ),
    "logistic": Peer(logistic, _BLOCKS | {"components": (256, 512), "alpha": (0.01, 0.03, 0.1)}),
    "ridge": Peer(ridge, _BLOCKS | {"alpha": (0.1, 0.3, 1.0, 3.0)}),
    "knn": Peer(
        knn,
        {
            "user": (1.0, 2.0, 4.0),  # of the user's tags; the neighbours have 1
            "history": (0.3, 1.0, 3.0),  # among the user's tags
            "neighbours": (20, 40, 80, 160),
            "power": (3, 4, 6, 8),
        },
    ),
}


def tune(peer: Peer, inputs: Inputs, num_fits: int, budget: int = BUDGET) -> Tuned:
    """Chooses the setting with the best P@10 on validation, at a tie with the best NDCG@10.

    The settings are drawn from the grid without repetition. Then the chosen setting is fitted
    `num_fits` times, with other seeds or on bootstrap samples of the training clips, and the mean
    of the scores is used if it is better on validation than one fit. No label of a test clip is
    read, and nothing is fitted on validation clips.
    """
    inputs = inputs.without_test()
    rng = np.random.default_rng(_SEED)
    combinations = list(itertools.product(*peer.grid.values()))
    drawn = rng.permutation(len(combinations))[:budget]
    tried, best = [], None
    for index in drawn:
        setting = dict(zip(peer.grid, combinations[index], strict=True))
        predict = peer.fit(inputs, inputs.train, setting, _SEED)
        found = validation_score(inputs, predict(inputs.validation))
        tried.append((setting, found))
        if best is None or found > best[0]:
            best = found, setting, predict
    assert best is not None  # because the budget is at least 1
    found, setting, predict = best
    fits = []
    for seed in range(_SEED, _SEED + num_fits):
        sample = inputs.train if peer.is_random else rng.choice(inputs.train, len(inputs.train))
        fits.append(peer.fit(inputs, sample, setting, seed))
    if fits and validation_score(inputs, _mean(fits)(inputs.validation)) > found:
        return Tuned(_mean(fits), setting | {"fits": num_fits}, tried)
    return Tuned(predict, setting | {"fits": 1}, tried)


def per_clip(scores_VT: np.ndarray, labels_VT: Sparse) -> tuple[np.ndarray, np.ndarray]:
    """Returns P@10 and NDCG@10 of each clip; ties are pessimistic, see `metrics.ranks`."""
    count_V = np.diff(labels_VT.indptr)
    mask_VP = np.arange(count_V.max(initial=1)) < count_V[:, None]
    ids_VP = np.zeros(mask_VP.shape, np.int32)
    ids_VP[mask_VP] = labels_VT.indices
    ranks_VP = rank_scores(scores_VT.astype(np.float32), ids_VP, mask_VP)
    return metrics.precision_at_k(ranks_VP, mask_VP, 10), metrics.ndcg_at_k(ranks_VP, mask_VP, 10)


def validation_score(inputs: Inputs, scores_VT: np.ndarray) -> tuple[float, float]:
    """Returns the mean P@10 and NDCG@10 of the validation clips."""
    precision_V, ndcg_V = per_clip(scores_VT, inputs.labels_NT[inputs.validation])
    return float(precision_V.mean()), float(ndcg_V.mean())


def _mean(fits: Sequence[Predict]) -> Predict:
    return lambda rows: np.mean([fit(rows) for fit in fits], axis=0)


def _scaled(features_NC: np.ndarray) -> np.ndarray:
    """Returns features whose rows have a length of about 1, as the rows of the other blocks."""
    return features_NC / np.sqrt(features_NC.shape[1], dtype=np.float32)


def _reduced(inputs: Inputs, rows: np.ndarray, num_components: int) -> np.ndarray:
    """Returns the first principal components of the scaled features."""
    features_NC = _scaled(inputs.features_NC)
    most = min(num_components, len(rows), features_NC.shape[1])
    pca = PCA(most, svd_solver="randomized", random_state=_SEED).fit(features_NC[rows])
    return pca.transform(features_NC).astype(np.float32)


def _joined(inputs: Inputs, features_ND: Any, setting: Setting) -> Any:
    """Returns features, user, attributes and history side by side, sparse if the features are."""
    blocks = [
        setting["user"] * inputs.users_NU,
        setting["user"] * inputs.attributes_NA,
        setting["history"] * inputs.history_NT,
    ]
    if sp.issparse(features_ND):
        return sp.csr_array(sp.hstack([features_ND, *blocks]))
    return np.hstack([features_ND, *(block.toarray() for block in blocks)], dtype=np.float32)


def _with_int32(matrix: Sparse) -> Sparse:
    """Returns the matrix with the types that LightFM takes."""
    arrays = matrix.data, *(array.astype(np.int32) for array in (matrix.indices, matrix.indptr))
    return sp.csr_matrix(arrays, shape=matrix.shape, dtype=np.float32)
