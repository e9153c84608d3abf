"""Measures positives per second of WARP, in one epoch that trains vectors without a network.

    python -m tools.bench.warp [--num_hashtags=669] [--json=FILE]

The task is LightFM's (an extra: `pip install lightfm-next`, which runs with two threads): learn a
vector for each video and hashtag from the hashtags of each video. Ours: the exact and the sampled
loss (four negatives per positive) by plain SGD in batches. The floor of the exact loss is only the
three products of a batch's scores and their gradients. Ours updates all videos of a batch at once,
LightFM one after the other; both pass over every positive once.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from tools.bench import synthetic, table
from uhman_jax.losses import sample_negatives, warp_exact, warp_sampled
from uhman_jax.runtime.streams import run_app

_VIDEOS = flags.DEFINE_integer("num_videos", 8233, "Videos.")
_HASHTAGS = flags.DEFINE_integer("num_hashtags", 669, "Size of the vocabulary, T.")
_SIZE = flags.DEFINE_integer("embedding_size", 32, "Size of the vectors, d.")
_BATCH = flags.DEFINE_integer("batch_size", 256, "Videos per step.")
_NEGATIVES = flags.DEFINE_integer("num_negatives", 4, "Negatives per positive of the sampled loss.")
_ROUNDS = flags.DEFINE_integer("rounds", 15, "Measurements per contestant.")
_PEERS = flags.DEFINE_bool("peers", True, "Run LightFM too, if it is installed.")
_JSON = flags.DEFINE_string("json", "", "File to write the figures to.")

MARGIN, LEARNING_RATE = 0.1, 0.01


def exact(query_BD, hashtags_TD, ids_BP, mask_BP, _):
    """Returns the exact loss of a batch."""
    scores_BT = query_BD @ hashtags_TD.T
    return jnp.sum(warp_exact(scores_BT, ids_BP, mask_BP, margin=MARGIN, rank_weight="wsabie"))


def sampled(query_BD, hashtags_TD, ids_BP, mask_BP, key):
    """Returns the sampled loss of a batch."""
    negatives_BPN = sample_negatives(
        key, ids_BP, mask_BP, num_hashtags=len(hashtags_TD), num_negatives=_NEGATIVES.value
    )
    loss_B = warp_sampled(
        jnp.einsum("bd,bpd->bp", query_BD, hashtags_TD[ids_BP]),
        mask_BP,
        jnp.einsum("bd,bpnd->bpn", query_BD, hashtags_TD[negatives_BPN]),
        margin=MARGIN,
        rank_weight="wsabie",
        num_hashtags=len(hashtags_TD),
    )
    return jnp.sum(loss_B)


def products(query_BD, hashtags_TD, *_):
    """Returns the sum of the scores above 0: no hinge, no rank."""
    return jnp.sum(jax.nn.relu(query_BD @ hashtags_TD.T))


def epoch(loss: Callable[..., jax.Array]) -> Callable[..., Any]:
    """Returns (queries_NBD, hashtags_TD, ids_NBP, mask_NBP, key) -> both tables after an epoch."""

    def run(queries_NBD, hashtags_TD, ids_NBP, mask_NBP, key):
        def step(hashtags_TD, batch):
            query_BD, *rest = batch
            down_BD, down_TD = jax.grad(loss, argnums=(0, 1))(query_BD, hashtags_TD, *rest)
            return hashtags_TD - LEARNING_RATE * down_TD, query_BD - LEARNING_RATE * down_BD

        keys = jax.random.split(key, len(queries_NBD))
        hashtags_TD, queries_NBD = jax.lax.scan(
            step, hashtags_TD, (queries_NBD, ids_NBP, mask_NBP, keys)
        )
        return queries_NBD, hashtags_TD

    return jax.jit(run, donate_argnums=(0, 1))


def ours(loss: Callable[..., jax.Array], ids_VP: np.ndarray, mask_VP: np.ndarray):
    """Returns a call that trains for one more epoch."""
    rng, size = np.random.default_rng(1), _BATCH.value
    ids_NBP, mask_NBP = (
        jnp.asarray(synthetic.in_batches(array_VP, size)) for array_VP in (ids_VP, mask_VP)
    )
    shapes = (len(ids_NBP), size, _SIZE.value), (_HASHTAGS.value, _SIZE.value)
    tables = [jnp.asarray(0.1 * rng.normal(size=shape), jnp.float32) for shape in shapes]
    run, key = epoch(loss), jax.random.key(0)

    def call() -> None:
        nonlocal tables, key
        key, epoch_key = jax.random.split(key)
        tables = run(*tables, ids_NBP, mask_NBP, epoch_key)
        jax.block_until_ready(tables)

    return call


def lightfm(ids_VP: np.ndarray, mask_VP: np.ndarray) -> Callable[[], Any]:
    """Returns a call that trains LightFM's WARP for one more epoch."""
    from lightfm import LightFM

    model = LightFM(no_components=_SIZE.value, loss="warp", random_state=0)
    uses = synthetic.interactions(ids_VP, mask_VP, _HASHTAGS.value)
    return lambda: model.fit_partial(uses, epochs=1, num_threads=2)


def main(_: list[str]) -> None:
    """Prints the table."""
    ids_VP, mask_VP = synthetic.positives(np.random.default_rng(0), _VIDEOS.value, _HASHTAGS.value)
    calls = {
        "exact": ours(exact, ids_VP, mask_VP),
        "sampled": ours(sampled, ids_VP, mask_VP),
        "floor of exact": ours(products, ids_VP, mask_VP),
    }
    ratios = [("exact", "floor of exact")]
    versions: tuple[str, ...] = ("jax", "jaxlib")
    if _PEERS.value and table.installed("lightfm"):
        calls["LightFM"] = lightfm(ids_VP, mask_VP)
        ratios += [("exact", "LightFM"), ("sampled", "LightFM"), ("floor of exact", "LightFM")]
        versions += ("lightfm-next",)
    num_positives = int(mask_VP.sum())

    def rate(call: Callable[[], Any]) -> Callable[[], float]:
        milliseconds = table.milliseconds(call)
        return lambda: num_positives / milliseconds() / 1e3

    contestants = {name: rate(call) for name, call in calls.items()}
    facts = {"videos": _VIDEOS.value, "positives": num_positives, "T": _HASHTAGS.value}
    facts |= {"d": _SIZE.value, "batch": _BATCH.value, "device": jax.devices()[0].device_kind}
    facts |= table.machine(versions)
    rounds, path = _ROUNDS.value, _JSON.value
    table.compare("WARP", "million positives/s", contestants, rounds, ratios, facts, path)


if __name__ == "__main__":
    run_app(main)
