"""The losses: WARP (paper, section 2.4) and logistic, from sampled or all hashtags, and softmax.

The paper samples four negatives per positive and sums the hinges of the negatives that violate the
margin, without a rank weight: `rank_weight="none"`. The original WARP (WSABIE, the paper's
reference [15]) weighs a positive by L(rank), so that errors far down the ranking cost little:
`rank_weight="wsabie"`. Both can be computed from a few sampled negatives, at a cost independent of
the vocabulary, or exactly from the scores of all hashtags.

The logistic loss asks of every hashtag whether the video has it. WARP improves the top of the
ranking, the logistic loss all of it; a mixture is their weighted sum on the same scores.

A higher score is better (the paper's f is the negative score). A NaN score violates every margin,
so that the loss is NaN.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from uhman_jax.models.layers import score

_RANK_WEIGHTS = ("none", "wsabie")


class LossFunction(NamedTuple):
    """A loss with its settings.

    Attributes:
        num_hashtags: T.
        num_negatives: N, draws for each positive; 0 if the loss scores all hashtags.
        per_example: (query_BD, hashtags_TD, positives_BP, positives_mask_BP, negatives_BPN) ->
            loss_B, float32. `negatives_BPN` is None if none are drawn.
    """

    num_hashtags: int
    num_negatives: int
    per_example: Callable

    def sample(self, key, positives_BP, positives_mask_BP):
        """Returns negatives_BPN by `sample_negatives`; None if the loss scores all hashtags."""
        if not self.num_negatives:
            return None
        sizes = {"num_hashtags": self.num_hashtags, "num_negatives": self.num_negatives}
        return sample_negatives(key, positives_BP, positives_mask_BP, **sizes)


def make_loss(
    name,
    *,
    estimator,
    rank_weight,
    margin,
    num_negatives,
    temperature,
    mixture,
    num_hashtags,
    platform=None,
) -> LossFunction:
    """Returns the named loss. To add a loss, add a function, a case here and a member of `Loss`.

    "logistic" is `(1 - mixture)` times the logistic loss of `scores / temperature` plus `mixture`
    times WARP of the scores.

    >>> settings = dict(rank_weight="none", margin=0.1, num_negatives=4, temperature=1.0, mixture=0)
    >>> make_loss("warp", estimator="sampled", num_hashtags=9, **settings).num_negatives
    4

    Args:
        name: "warp", "softmax" or "logistic".
        estimator: "sampled" or "exact"; not softmax.
        rank_weight: "none" or "wsabie"; WARP only.
        margin: m, above 0; WARP only.
        num_negatives: N, draws for each positive; not softmax.
        temperature: divides the scores; not WARP. 0: `default_temperature`.
        mixture: weight of WARP in the logistic loss, in [0, 1].
        num_hashtags: T. `hashtags_TD` may have more rows (padding), and with "sampled" fewer.
        platform: see `warp_exact`.

    Raises:
        ValueError: the name or the estimator is unknown.
    """
    temperature = temperature or default_temperature(num_hashtags)

    def softmax(query_BD, hashtags_TD, positives_BP, mask_BP, _):
        scores_BT = score(query_BD, hashtags_TD[:num_hashtags])
        return softmax_cross_entropy(scores_BT / temperature, positives_BP, mask_BP)

    warp = {"margin": margin, "rank_weight": rank_weight}
    warp_share = 1 if name == "warp" else mixture

    def exact(query_BD, hashtags_TD, positives_BP, mask_BP, _):
        scores_BT = score(query_BD, hashtags_TD[:num_hashtags])
        how = {"num_negatives": num_negatives, "platform": platform, **warp}
        loss_B = 0.0
        if warp_share:
            loss_B += warp_share * warp_exact(scores_BT, positives_BP, mask_BP, **how)
        if warp_share < 1:
            more_B = logistic_exact(scores_BT / temperature, positives_BP, mask_BP)
            loss_B += (1 - warp_share) * more_B
        return loss_B

    def sampled(query_BD, hashtags_TD, positives_BP, mask_BP, negatives_BPN):
        # Only the vectors of the positives and of the drawn negatives are scored.
        own_BP = jnp.einsum("bd,bpd->bp", query_BD, hashtags_TD[positives_BP])
        others_BPN = jnp.einsum("bd,bpnd->bpn", query_BD, hashtags_TD[negatives_BPN])
        loss_B, how = 0.0, {"num_hashtags": num_hashtags}
        if warp_share:
            loss_B += warp_share * warp_sampled(own_BP, mask_BP, others_BPN, **how, **warp)
        if warp_share < 1:
            logits = own_BP / temperature, mask_BP, others_BPN / temperature
            loss_B += (1 - warp_share) * logistic_sampled(*logits, **how)
        return loss_B

    match name, estimator:
        case "softmax", _:
            return LossFunction(num_hashtags, 0, softmax)
        case "warp" | "logistic", "exact":
            return LossFunction(num_hashtags, 0, exact)
        case "warp" | "logistic", "sampled":
            return LossFunction(num_hashtags, num_negatives, sampled)
    raise ValueError(
        "a loss must be softmax, warp or logistic (the last two exact or sampled), got "
        f"{name!r} ({estimator!r}); add a case to losses.make_loss"
    )


def default_temperature(num_hashtags):
    """Returns 1 / (1.5 ln T): a score of 1 instead of 0 multiplies the odds by T ** 1.5.

    Scores of unit vectors lie in -1..1, and the more hashtags there are, the rarer is each: the
    range of the logits must grow with ln T. The factor was chosen on validation clips at T = 30
    and T = 669.

    >>> round(default_temperature(30), 2), round(default_temperature(669), 2)
    (0.2, 0.1)
    """
    return 1 / (1.5 * math.log(max(num_hashtags, 2)))


def harmonic_numbers(highest_rank):
    """Returns L(r) = 1 + 1/2 + ... + 1/r for r = 0..highest_rank, NumPy float32 [15].

    The sum is in float64, so the result is exact to float32 at any rank.

    >>> [round(float(number), 4) for number in harmonic_numbers(3)]
    [0.0, 1.0, 1.5, 1.8333]
    """
    terms = 1.0 / np.arange(1, highest_rank + 1, dtype=np.float64)
    return np.concatenate([[0.0], np.cumsum(terms)]).astype(np.float32)


def warp_exact(
    scores_BT,
    positives_BP,
    positives_mask_BP,
    *,
    margin,
    rank_weight,
    num_negatives=4,
    platform=None,
):
    """Returns the WARP loss of each example from the scores of all hashtags.

    A non-positive hashtag t violates positive p when `margin - score_p + score_t` (the hinge) is
    above 0. With r violators, p contributes

    - "wsabie": L(r) times the mean hinge of the violators, that is WSABIE with the exact rank and
      the mean over violators instead of an estimated rank and one sampled violator;
    - "none": `num_negatives` times the mean hinge over all non-positives, which is the expectation
      of `warp_sampled`.

    The weight passes no gradient. An example without positives, or whose positives are the whole
    vocabulary, has loss 0. The memory is O(B T).

    >>> scores = jnp.array([[0.5, 0.5, 0.75, 0.0]])
    >>> positive, mask = jnp.array([[0]]), jnp.array([[True]])  # hinges 0.25, 0.5, none
    >>> # L(2) times the mean of 0.25 and 0.5
    >>> warp_exact(scores, positive, mask, margin=0.25, rank_weight="wsabie").tolist()
    [0.5625]
    >>> warp_exact(scores, positive, mask, margin=0.25, rank_weight="none").tolist()  # 4 * 0.75 / 3
    [1.0]

    Args:
        scores_BT: float.
        positives_BP: int32 hashtag ids, without repetition.
        positives_mask_BP: bool, True for a real slot; the values of other slots have no effect.
        margin: m, above 0.
        rank_weight: "none" or "wsabie".
        num_negatives: scale of "none", see above.
        platform: "cpu" loops over the slots and sums over hashtags by products with ones, which a
            CPU vectorises. Other platforms compute all slots at once, which XLA fuses into two
            reductions. None: JAX's default backend.

    Returns:
        loss_B, float32: the sum over the example's positives.
    """
    _check_rank_weight(rank_weight)
    num_hashtags = scores_BT.shape[1]
    weights = harmonic_numbers(num_hashtags)
    ones_T = jnp.ones(num_hashtags, jnp.float32)

    scores_BT, positives_mask_BP = scores_BT.astype(jnp.float32), jnp.asarray(positives_mask_BP)
    positives = jnp.where(positives_mask_BP, positives_BP, num_hashtags)  # T: out of range
    example_B1 = jnp.arange(positives.shape[0])[:, None]
    negative_BT = jnp.ones(scores_BT.shape, bool).at[example_B1, positives].set(False, mode="drop")
    num_negative_B = jnp.maximum(jnp.sum(negative_BT, axis=1), 1)
    own_BP = jnp.take_along_axis(scores_BT, jnp.where(positives_mask_BP, positives_BP, 0), axis=1)
    # The violators, and hence all weights, pass no gradient.
    fixed_BT, fixed_BP = jax.lax.stop_gradient((scores_BT, own_BP))

    def violators(own_BX):
        """Returns violates_BXT, float32: whether hashtag t violates the positive in slot x."""
        hinge_BXT = _hinge(margin, own_BX[:, :, None], fixed_BT[:, None, :])
        return (_violates(hinge_BXT) & negative_BT[:, None, :]).astype(jnp.float32)

    def weigh(rank_BX, mask_BX):
        if rank_weight == "wsabie":
            weight_BX = jnp.asarray(weights)[rank_BX.astype(jnp.int32)] / jnp.maximum(rank_BX, 1)
        else:
            weight_BX = num_negatives / num_negative_B[:, None]
        return jnp.where(mask_BX, weight_BX, 0.0)

    def slot(p, carry):
        plus_BT, minus_BP = carry
        above_BT = violators(fixed_BP[:, p, None])[:, 0]
        rank_B = above_BT @ ones_T  # exact below 2 ** 24
        weight_B = weigh(rank_B[:, None], positives_mask_BP[:, p, None])[:, 0]
        return plus_BT + weight_B[:, None] * above_BT, minus_BP.at[:, p].set(weight_B * rank_B)

    # For a fixed set of violators the loss is linear in the scores: `plus_BT` has the coefficients
    # of the negatives' scores, and `minus_BP` the coefficients of the positives' scores times -1.
    if (platform or jax.default_backend()) == "cpu":
        zeros = jnp.zeros_like(scores_BT), jnp.zeros(positives.shape, jnp.float32)
        plus_BT, minus_BP = jax.lax.fori_loop(0, slots_in_use(positives_mask_BP), slot, zeros)
    else:
        above_BPT = violators(fixed_BP)
        rank_BP = jnp.sum(above_BPT, axis=2)
        weight_BP = weigh(rank_BP, positives_mask_BP)
        plus_BT, minus_BP = jnp.sum(weight_BP[:, :, None] * above_BPT, axis=1), weight_BP * rank_BP
    loss_B = jnp.sum(jnp.where(minus_BP > 0, minus_BP * (margin - own_BP), 0.0), axis=1)
    return loss_B + jnp.where(plus_BT > 0, plus_BT * scores_BT, 0.0) @ ones_T


def slots_in_use(mask_BP):
    """Returns the number of leading slots that include all real slots of a batch, int32.

    >>> int(slots_in_use(jnp.array([[True, False, False], [True, True, False]])))
    2
    """
    return jnp.max(jnp.where(mask_BP, jnp.arange(1, mask_BP.shape[1] + 1)[None, :], 0), initial=0)


def warp_sampled(
    positive_scores_BP, positives_mask_BP, negative_scores_BPN, *, margin, rank_weight, num_hashtags
):
    """Returns the WARP loss of each example from N sampled negatives for each positive.

    - "none": a positive contributes the sum of the hinges of its negatives (section 2.4);
    - "wsabie": a positive contributes L(floor((T - 1) / n)) times the hinge of its first violator,
      the n-th draw, or 0 without a violator. This is WSABIE [15] with at most N draws instead of
      T - 1.

    The weight passes no gradient. An example without positives, or whose positives are the whole
    vocabulary (then there is no negative to sample), has loss 0. The cost is independent of T.

    >>> positive, mask = jnp.array([[0.5]]), jnp.array([[True]])
    >>> negatives = jnp.array([[[0.0, 0.75, 0.5]]])  # hinges none, 0.5 and 0.25
    >>> settings = dict(margin=0.25, num_hashtags=5)
    >>> warp_sampled(positive, mask, negatives, rank_weight="none", **settings).tolist()
    [0.75]
    >>> warp_sampled(positive, mask, negatives, rank_weight="wsabie", **settings).tolist()  # L(2)
    [0.75]

    Args:
        positive_scores_BP: float.
        positives_mask_BP: bool, True for a real slot; the values of other slots have no effect.
        negative_scores_BPN: float, scores of the negatives in the order of drawing.
        margin: m, above 0.
        rank_weight: "none" or "wsabie".
        num_hashtags: T.

    Returns:
        loss_B, float32: the sum over the example's positives.
    """
    _check_rank_weight(rank_weight)
    hinge_BPN = _hinge(
        margin,
        positive_scores_BP.astype(jnp.float32)[:, :, None],
        negative_scores_BPN.astype(jnp.float32),
    )
    if rank_weight == "wsabie":
        num_negatives = negative_scores_BPN.shape[2]
        ranks_N = (num_hashtags - 1) // np.arange(1, num_negatives + 1)
        weight_N = harmonic_numbers(num_hashtags)[ranks_N]
        violates_BPN = _violates(hinge_BPN)
        first_BPN = violates_BPN & (jnp.cumsum(violates_BPN, axis=2) == 1)
        hinge_BPN = jnp.where(first_BPN, hinge_BPN * weight_N[None, None, :], 0.0)
    any_negative_B = jnp.sum(positives_mask_BP, axis=1) < num_hashtags
    counted_BP = positives_mask_BP & any_negative_B[:, None]
    return jnp.sum(jnp.where(counted_BP, jnp.sum(hinge_BPN, axis=2), 0.0), axis=1)


def softmax_cross_entropy(scores_BT, positives_BP, positives_mask_BP):
    """Returns the cross-entropy between a uniform target over the positives and softmax over all T.

    An example without positives has loss 0. Divide bounded scores (of vectors of unit length) by a
    temperature first.

    >>> scores = jnp.log(jnp.array([[0.5, 0.25, 0.25]]))  # probabilities; 1/2 log 2 + 1/2 log 4
    >>> loss = softmax_cross_entropy(scores, jnp.array([[0, 2]]), jnp.array([[True, True]]))
    >>> round(float(loss[0] / jnp.log(2)), 4)
    1.5

    Args:
        scores_BT: float.
        positives_BP: int32 hashtag ids, without repetition.
        positives_mask_BP: bool, True for a real slot; the values of other slots have no effect.

    Returns:
        loss_B, float32: the mean over the example's positives.
    """
    log_prob_BT = jax.nn.log_softmax(scores_BT.astype(jnp.float32), axis=1)
    ids_BP = jnp.where(positives_mask_BP, positives_BP, 0)
    log_prob_BP = jnp.take_along_axis(log_prob_BT, ids_BP, axis=1)
    total_B = -jnp.sum(jnp.where(positives_mask_BP, log_prob_BP, 0.0), axis=1)
    return total_B / jnp.maximum(jnp.sum(positives_mask_BP, axis=1), 1)


def logistic_exact(logits_BT, positives_BP, positives_mask_BP):
    """Returns the binary cross-entropies of an example, summed over all T hashtags.

    The loss is sum_t softplus(s_t) - y_t s_t, where y_t is 1 for a positive and else 0, so
    sigmoid(s_t) estimates the probability that the video has hashtag t. An example without
    positives has loss 0.

    >>> logits = jnp.log(jnp.array([[3.0, 1.0]]))  # probabilities 3/4 and 1/2
    >>> loss = logistic_exact(logits, jnp.array([[0]]), jnp.array([[True]]))
    >>> bool(jnp.isclose(loss[0], -jnp.log(3 / 4 * 1 / 2)))
    True

    Args:
        logits_BT: float.
        positives_BP: int32 hashtag ids, without repetition.
        positives_mask_BP: bool, True for a real slot; the values of other slots have no effect.

    Returns:
        loss_B, float32.
    """
    logits_BT = logits_BT.astype(jnp.float32)
    ids_BP = jnp.where(positives_mask_BP, positives_BP, 0)
    own_BP = jnp.take_along_axis(logits_BT, ids_BP, axis=1)
    own_B = jnp.sum(jnp.where(positives_mask_BP, own_BP, 0.0), axis=1)
    loss_B = jnp.sum(jax.nn.softplus(logits_BT), axis=1) - own_B
    return jnp.where(jnp.any(positives_mask_BP, axis=1), loss_B, 0.0)


def logistic_sampled(positive_logits_BP, positives_mask_BP, negative_logits_BPN, *, num_hashtags):
    """Returns an unbiased estimate of `logistic_exact` from N sampled negatives for each positive.

    The positives count exactly. The mean over all draws of an example, times the number of its
    non-positives, estimates the sum over the non-positives. The cost is independent of T.

    >>> positive, mask = jnp.log(jnp.array([[3.0]])), jnp.array([[True]])  # probability 3/4
    >>> negatives = jnp.log(jnp.array([[[1.0, 1 / 3]]]))  # probabilities 1/2 and 1/4
    >>> loss = logistic_sampled(positive, mask, negatives, num_hashtags=5)  # 4 others, 2 drawn
    >>> bool(jnp.isclose(loss[0], -jnp.log(3 / 4) - 4 / 2 * jnp.log(1 / 2 * 3 / 4)))
    True

    Args:
        positive_logits_BP: float.
        positives_mask_BP: bool, True for a real slot; the values of other slots have no effect.
        negative_logits_BPN: float, of uniform draws from the non-positives.
        num_hashtags: T.

    Returns:
        loss_B, float32.
    """
    own_BP = jax.nn.softplus(-positive_logits_BP.astype(jnp.float32))
    others_BP = jnp.mean(jax.nn.softplus(negative_logits_BPN.astype(jnp.float32)), axis=2)
    count_B = jnp.sum(positives_mask_BP, axis=1)
    weight_B = (num_hashtags - count_B) / jnp.maximum(count_B, 1)
    loss_BP = own_BP + weight_B[:, None] * others_BP
    return jnp.sum(jnp.where(positives_mask_BP, loss_BP, 0.0), axis=1)


def sample_negatives(key, positives_BP, positives_mask_BP, *, num_hashtags, num_negatives):
    """Returns negatives_BPN: ids drawn uniformly, with replacement, from the non-positives.

    A uniform u selects the u-th non-positive, whose id is u plus the number of positives before it.
    Counting these takes O(P), without rejection and independent of T. Slots outside the mask get
    valid draws too. If the positives are the whole vocabulary, the ids are in range but arbitrary
    (`warp_sampled` gives loss 0).

    >>> positives, mask = jnp.array([[2, 0, 7]]), jnp.array([[True, True, False]])
    >>> sample = sample_negatives(
    ...     jax.random.key(0), positives, mask, num_hashtags=4, num_negatives=50)
    >>> sample.shape, sorted(set(sample.ravel().tolist()))
    ((1, 3, 50), [1, 3])

    Args:
        key: typed random key.
        positives_BP: int32 hashtag ids, without repetition.
        positives_mask_BP: bool, True for a real slot; the values of other slots have no effect.
        num_hashtags: T.
        num_negatives: N, draws for each positive.
    """
    num_slots = positives_BP.shape[1]
    sorted_BP = jnp.sort(jnp.where(positives_mask_BP, positives_BP, num_hashtags), axis=1)
    # Number of non-positives before each positive; T for a padding slot, which no draw reaches.
    before_BP = sorted_BP - jnp.arange(num_slots)[None, :]
    num_negative_B = num_hashtags - jnp.sum(positives_mask_BP, axis=1)
    before_BP = jnp.where(sorted_BP < num_hashtags, before_BP, num_hashtags)
    shape = (*positives_BP.shape, num_negatives)
    draw_BPN = jax.random.randint(key, shape, 0, jnp.maximum(num_negative_B, 1)[:, None, None])
    skipped_BPN = jnp.sum(before_BP[:, None, None, :] <= draw_BPN[:, :, :, None], axis=3)
    return jnp.minimum(draw_BPN + skipped_BPN, num_hashtags - 1)


def _hinge(margin, positive_scores, negative_scores):
    """Returns max(0, margin - positive + negative); its gradient at 0 is 0."""
    return jax.nn.relu(margin - positive_scores + negative_scores)


def _violates(hinge):
    return ~(hinge <= 0)  # NaN violates


def _check_rank_weight(rank_weight):
    if rank_weight not in _RANK_WEIGHTS:
        raise ValueError(f"rank_weight must be 'none' or 'wsabie', got {rank_weight!r}; use one")
