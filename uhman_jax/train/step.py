"""One update of every seed's model on one shared batch (paper, section 2.4)."""

from collections.abc import Callable
from typing import Any, NamedTuple, assert_never

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from uhman_jax.batch import Batch, microbatch_size, split
from uhman_jax.config import Config, Decay, TrainConfig, to_dict
from uhman_jax.losses import LossFunction, make_loss
from uhman_jax.train import sparse_update
from uhman_jax.train.state import State, optimiser, seed_keys


class StepMetrics(NamedTuple):
    """Metrics of one step, before its update; the host reads them one dispatch later."""

    loss_S: jax.Array
    gradient_norm_S: jax.Array


def learning_rate(config: TrainConfig, num_steps: int) -> Callable[[jax.Array], jax.Array]:
    """Returns the schedule, step -> learning rate; `State.rate_scale_S` then scales it."""
    match config.decay:
        case Decay.COSINE:
            cosine = optax.cosine_decay_schedule(config.learning_rate, num_steps)
            return lambda step: jnp.asarray(cosine(step))
        case Decay.STEPS | Decay.PLATEAU:
            fractions = config.decay_at if config.decay is Decay.STEPS else ()
            falls = jnp.array([round(part * num_steps) for part in fractions], jnp.int32)
            return lambda step: config.learning_rate * config.decay_factor ** jnp.sum(step >= falls)
        case _:
            assert_never(config.decay)


def loss_and_gradient(
    model: nn.Module,
    params: Any,
    statistics: Any,
    batch: Batch,
    negatives_BPN: jax.Array | None,
    dropout_key: jax.Array,
    config: Config,
    loss: LossFunction,
    platform: str,
) -> tuple[jax.Array, Any]:
    """Returns the mean loss over the real examples of a batch, and its gradient.

    Both are accumulated over microbatches. On a CPU this is faster than a whole batch, because the
    activations of a microbatch stay in the cache until its gradient is computed.

    Args:
        model: query tower and hashtag tower, whose tables may have only some of the hashtags.
        params: parameters of one seed.
        statistics: the model's constants.
        batch: examples whose hashtag ids are rows of these tables.
        negatives_BPN: rows of these tables; None if the loss samples none.
        dropout_key: typed random key.
        config: valid settings.
        loss: the result of `losses.make_loss`.
        platform: "cpu", "gpu" or "tpu".
    """
    num_real = jnp.maximum(jnp.sum(batch.mask_B), 1)

    @jax.value_and_grad
    def part_of_mean(params, batch, negatives_BPN, key):
        variables = {"params": params, "statistics": statistics}
        towers: Any = model.apply(variables, batch, rngs={"dropout": key}, method=_towers)
        positives = batch.positives_BP, batch.positives_mask_BP
        loss_B = loss.per_example(*towers, *positives, negatives_BPN)
        return jnp.sum(jnp.where(batch.mask_B, loss_B, 0)) / num_real

    size = config.train.microbatch_size or microbatch_size(
        batch.video,
        config.model.hidden_size,
        platform,
        num_scores=loss.num_hashtags if negatives_BPN is None else 0,
        region_share=1 - config.model.region_dropout,
        num_seeds=config.train.num_seeds,
        num_parameters=sum(leaf.size for leaf in jax.tree.leaves(params)),
    )
    keys = jax.random.split(dropout_key, len(batch.mask_B) // size)
    if len(keys) == 1:
        return part_of_mean(params, batch, negatives_BPN, keys[0])

    pieces, batch_of = split(batch, size)
    shape = len(keys), size
    negatives = jax.tree.map(lambda ids: ids.reshape(*shape, *ids.shape[1:]), negatives_BPN)

    def add(total, piece_and_others):
        piece, negatives_XPN, key = piece_and_others
        more = part_of_mean(params, batch_of(piece), negatives_XPN, key)
        return jax.tree.map(jnp.add, total, more), None

    zeros = jnp.float32(0), jax.tree.map(jnp.zeros_like, params)
    return jax.lax.scan(add, zeros, (pieces, negatives, keys))[0]


def _towers(model: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
    return model.query(batch.video, batch.user, deterministic=False), model.hashtags()


def moving_average(state: State, params: Any, decay: float) -> Any:
    """Returns the moving average after a step; () if `decay` is 0.

    At step s, counted from 0, the decay is at most (s + 1) / (s + 10), so that the random initial
    parameters soon have little weight.
    """
    if not decay:
        return ()
    decay_now = jnp.minimum(decay, (state.step + 1) / (state.step + 10))
    return jax.tree.map(
        lambda old, new: decay_now * old + (1 - decay_now) * new, state.average, params
    )


def make_train_step(
    model: nn.Module,
    config: Config,
    num_steps: int,
    shardings: Any = None,
    platform: str | None = None,
) -> Callable[[State, Batch], tuple[State, StepMetrics]]:
    """Returns the jitted step, which donates its state. The key of seed s is fold_in(key_s, step).

    Args:
        model: query tower and hashtag tower, of T hashtags.
        config: valid settings.
        num_steps: number of steps of the whole run.
        shardings: shardings of the state and the metrics on several devices (see
            `Devices.state_shardings`).
        platform: "cpu", "gpu" or "tpu"; None: JAX's default backend.
    """
    platform = platform or jax.default_backend()
    schedule = learning_rate(config.train, num_steps)
    num_hashtags: int = model.num_hashtags  # type: ignore[missing-attribute]
    loss_function = make_loss(**to_dict(config.loss), num_hashtags=num_hashtags, platform=platform)
    tx = optimiser(config.train)

    def one_seed(seed, statistics, batch):
        params, opt_state, key, rate = seed
        dropout_key, negatives_key = jax.random.split(key)
        positives = batch.positives_BP, batch.positives_mask_BP
        negatives_BPN = loss_function.sample(negatives_key, *positives)
        used, ids_R = params, None
        if sparse_update.few(batch, negatives_BPN, num_hashtags, config.train):
            ids_R, batch, negatives_BPN = sparse_update.find(batch, negatives_BPN, num_hashtags)
            used = sparse_update.gather(params, ids_R)
        # After `gather` the tables have fewer rows; on several devices they have padding rows.
        run = model.resized(len(used["hashtag_TK"]))  # type: ignore[not-callable]
        inputs = run, used, statistics, batch, negatives_BPN, dropout_key
        loss, gradient = loss_and_gradient(*inputs, config, loss_function, platform)
        updates, opt_state = tx.update(gradient, opt_state, used)
        changes = jax.tree.map(lambda update: -rate * update, updates)
        if ids_R is None:
            params = optax.apply_updates(params, changes)
        else:
            params = sparse_update.add(params, changes, ids_R)
        return params, opt_state, StepMetrics(loss, optax.tree.norm(gradient))

    def all_seeds(seeds, statistics, batch):
        if config.train.num_seeds == 1:  # faster than matmuls with a batch axis of 1
            first = jax.tree.map(lambda leaf: leaf[0], seeds)
            return jax.tree.map(lambda leaf: leaf[None], one_seed(first, statistics, batch))
        return jax.vmap(one_seed, in_axes=(0, None, None))(seeds, statistics, batch)

    def train_step(state: State, batch: Batch) -> tuple[State, StepMetrics]:
        _, keys_S = seed_keys(config)
        keys_S = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys_S, state.step)
        rate_S = schedule(state.step) * state.rate_scale_S
        seeds = (state.params, state.opt_state, keys_S, rate_S)
        params, opt_state, metrics = all_seeds(seeds, state.statistics, batch)
        state = state._replace(
            step=state.step + 1,
            params=params,
            average=moving_average(state, params, config.train.ema),
            opt_state=opt_state,
            loss_sum_S=state.loss_sum_S + metrics.loss_S,
            loss_steps=state.loss_steps + 1,
        )
        return state, metrics

    return jax.jit(train_step, donate_argnums=0, out_shardings=shardings)
