"""Rankings to compare a model with: popularity, and where the truth is known the two oracles."""

import numpy as np

from uhman_jax.dataset.truth import Truth
from uhman_jax.dataset.view import View
from uhman_jax.evaluate.ranking import rank_scores, summaries
from uhman_jax.input_pipeline import pad


def positives_of(view: View, rows_V: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positives of view rows as (ids, mask), int32 and bool, both (V, P)."""
    return pad(view.positives, rows_V, view.max_positives)


def reference_metrics(view: View, rows_V: np.ndarray, truth: Truth | None) -> dict[str, float]:
    """All metrics of the reference rankings of some videos, as `popularity/P@10` and so on.

    The two oracles are there where the truth is known.
    """
    positives_VP, mask_VP = positives_of(view, rows_V)
    ranks = {"popularity": popularity_ranks(positives_VP)}
    if truth is not None:
        ranks["observable_oracle"] = oracle_ranks(truth, view, rows_V, observable=True)
        ranks["oracle"] = oracle_ranks(truth, view, rows_V)
    return {
        f"{name}/{metric}": seeds[0]
        for name, ranks_VP in ranks.items()
        for metric, seeds in summaries(ranks_VP[None], mask_VP).items()
    }


def popularity_ranks(positives_VP: np.ndarray) -> np.ndarray:
    """Ranks (V, P) when all videos get the hashtags in order of their training uses.

    A view's hashtags stand in that order already, equally frequent ones by name, so the rank of a
    hashtag is its id plus 1.
    """
    return positives_VP + 1


def oracle_ranks(
    truth: Truth, view: View, rows_V: np.ndarray, *, observable: bool = False
) -> np.ndarray:
    """Ranks (V, P) when hashtags are ordered by their true probability; ties count against.

    In a balanced view this is still the probability before downsampling: no upper bound there.

    Args:
        truth: of the simulated world.
        view: whose videos and hashtags are ranked.
        rows_V: view rows.
        observable: average over what no model can see (a user's private taste).

    Raises:
        UserError: the truth lacks a video of the view.
    """
    table_VT = truth.observable_VT if observable else truth.probability_VT
    videos = truth.rows([view.video_ids[row] for row in rows_V])
    column = {name: index for index, name in enumerate(truth.hashtags)}
    scores_VT = table_VT[videos][:, [column[name] for name in view.hashtags]]
    return rank_scores(scores_VT, *positives_of(view, rows_V))
