"""Measures the milliseconds and the memory of a full evaluation of a test split.

    python -m tools.bench.ranking [--num_hashtags=1000000 --nopeers] [--json=FILE]

"ours" computes the ranks of all true hashtags among all T and every metric at every cut-off from
the vectors of videos and hashtags. "floor" is only the product of these vectors. LightFM (an extra:
`pip install lightfm-next`) computes precision_at_k, one metric at one cut-off, with two threads and
vectors of the same size. Its row is left out if it is not installed.
"""

import resource
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from tools.bench import synthetic, table
from uhman_jax import metrics
from uhman_jax.evaluate.block_ranking import fitting_block, rank_queries
from uhman_jax.runtime.streams import run_app

_VIDEOS = flags.DEFINE_integer("num_videos", 8233, "Videos to rank for.")
_HASHTAGS = flags.DEFINE_integer("num_hashtags", 669, "Size of the vocabulary, T.")
_SIZE = flags.DEFINE_integer("embedding_size", 32, "Size of the vectors, d.")
_BATCH = flags.DEFINE_integer("batch_size", 64, "Videos per batch.")
_ROUNDS = flags.DEFINE_integer("rounds", 15, "Measurements per contestant.")
_PEERS = flags.DEFINE_bool("peers", True, "Run LightFM too, if it is installed.")
_JSON = flags.DEFINE_string("json", "", "File to write the figures to.")


def rank(query_NBD: jax.Array, hashtags_TD: jax.Array, ids_NBP: jax.Array, mask_NBP: jax.Array):
    """Returns the ranks of the true hashtags, ranks_NBP, batch by batch."""

    def one(batch):
        query_BD, ids_BP, mask_BP = batch
        return rank_queries(query_BD, hashtags_TD, ids_BP, mask_BP, top_k=0)[0]

    return jax.lax.map(one, (query_NBD, ids_NBP, mask_NBP))


def product(query_NBD: jax.Array, hashtags_TD: jax.Array) -> jax.Array:
    """Returns the best score of every video, best_NB, in blocks of hashtags."""
    block = fitting_block(query_NBD.shape[1], len(hashtags_TD), jax.default_backend())
    padding = ((0, -len(hashtags_TD) % block), (0, 0))
    blocks_YXD = jnp.pad(hashtags_TD, padding, mode="edge").reshape(-1, block, _SIZE.value)

    def best(query_BD):
        def one(hashtags_XD):
            return jnp.max(query_BD @ hashtags_XD.T, axis=1)

        return jnp.max(jax.lax.map(one, blocks_YXD), axis=0)

    return jax.lax.map(best, query_NBD)


def lightfm(ids_VP: np.ndarray, mask_VP: np.ndarray) -> Callable[[], Any]:
    """Returns a function that computes P@10 with LightFM, for a model trained for one epoch."""
    from lightfm import LightFM
    from lightfm.evaluation import precision_at_k

    model = LightFM(no_components=_SIZE.value, loss="warp", random_state=0)
    uses = synthetic.interactions(ids_VP, mask_VP, _HASHTAGS.value)
    model.fit(uses, epochs=1, num_threads=2)
    rows = uses.tocsr()
    return lambda: precision_at_k(model, rows, k=10, num_threads=2).mean()


def main(_: list[str]) -> None:
    """Prints the table."""
    rng = np.random.default_rng(0)
    size, num_batches = _BATCH.value, -(-_VIDEOS.value // _BATCH.value)
    shape_ND = (num_batches, size, _SIZE.value)
    query_NBD = jnp.asarray(rng.normal(size=shape_ND), jnp.float32)
    hashtags_TD = jnp.asarray(rng.normal(size=(_HASHTAGS.value, _SIZE.value)), jnp.float32)
    ids_VP, mask_VP = synthetic.positives(rng, _VIDEOS.value, _HASHTAGS.value)
    ids_NBP, mask_NBP = (
        jnp.asarray(synthetic.in_batches(array_VP, size)) for array_VP in (ids_VP, mask_VP)
    )
    run, floor = jax.jit(rank), jax.jit(product)

    def evaluation() -> Any:
        ranks_NBP = np.asarray(run(query_NBD, hashtags_TD, ids_NBP, mask_NBP))
        return metrics.summary(ranks_NBP.reshape(-1, ids_VP.shape[1])[: len(ids_VP)], mask_VP)

    calls: dict[str, Callable[[], Any]] = {
        "ours, all metrics": evaluation,
        "floor": lambda: jax.block_until_ready(floor(query_NBD, hashtags_TD)),
    }
    ratios = [("ours, all metrics", "floor")]
    versions: tuple[str, ...] = ("jax", "jaxlib", "numpy")
    if _PEERS.value and table.installed("lightfm"):
        calls["LightFM, P@10 alone"] = lightfm(ids_VP, mask_VP)
        ratios.append(("LightFM, P@10 alone", "ours, all metrics"))
        versions += ("lightfm-next",)
    evaluation()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    facts = {"videos": _VIDEOS.value, "batch": size, "T": _HASHTAGS.value, "d": _SIZE.value}
    facts |= {"peak memory of the process, GiB": round(peak, 2)}
    if stats := jax.devices()[0].memory_stats():
        facts |= {"peak memory of the device, GiB": round(stats["peak_bytes_in_use"] / 2**30, 2)}
    contestants = {name: table.milliseconds(call) for name, call in calls.items()}
    facts |= {"device": jax.devices()[0].device_kind} | table.machine(versions)
    table.compare("Evaluation", "ms", contestants, _ROUNDS.value, ratios, facts, _JSON.value)


if __name__ == "__main__":
    run_app(main)
