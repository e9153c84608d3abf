"""The state of a run between steps, for all seeds of a population at once."""

import functools
from typing import Any, NamedTuple, assert_never

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from uhman_jax.config import Config, Optimiser, TrainConfig
from uhman_jax.input_pipeline import pad_videos
from uhman_jax.kernels.video_input import ChannelStatistics
from uhman_jax.losses import default_temperature
from uhman_jax.models.layers import UserInput
from uhman_jax.shards.record import Schema


class State(NamedTuple):
    """Everything that a resumed run needs; parameters and optimiser states have a leading axis S.

    Attributes:
        step: int32, updates made so far.
        params: parameters of the seeds' models.
        average: exponential moving average of the parameters; () if `train.ema` is 0.
        opt_state: states of the seeds' optimisers.
        statistics: the fields of `ChannelStatistics` as a dict, constants of the model, without S.
        rate_scale_S: float32, factor on the learning rate, which plateaus reduce.
        loss_sum_S: float32, sum of the losses of the steps since the last validation.
        loss_steps: int32, number of these steps.
        best_params: parameters of the best validation so far; before the first, the initial ones.
        best_score_S: float32, its score; -inf before the first.
        best_step_S: int32, its step.
        stale_S: int32, validations since the last improvement; of earlier versions, since then or
            since the last decay, which gives the same decays.
        validated_step: int32, step of the last validation; 0 before the first.
    """

    step: jax.Array
    params: Any
    average: Any
    opt_state: Any
    statistics: Any
    rate_scale_S: jax.Array
    loss_sum_S: jax.Array
    loss_steps: jax.Array
    best_params: Any
    best_score_S: jax.Array
    best_step_S: jax.Array
    stale_S: jax.Array
    validated_step: jax.Array

    @property
    def evaluated(self) -> Any:
        """The parameters to validate: the moving average, or `params` if there is none."""
        return self.average or self.params

    @property
    def kept(self) -> Any:
        """The parameters of the trained model: the best, or `evaluated` before any validation."""
        return self.best_params if int(self.validated_step) else self.evaluated


def optimiser(config: TrainConfig) -> optax.GradientTransformation:
    """Returns the optimiser of one seed, without the learning rate.

    Clips the norm of the gradient. Weight decay applies to matrices only: SGD adds it before
    momentum, AdamW after its moments. Last, `user_rate`, `attention_rate` and `hashtag_rate` scale
    the updates of some parameters: rows of tables take larger steps, because only a few examples
    of a batch use a row, but all use a dense matrix. The hashtags' biases are not scaled: they
    start near their values, and their gradients do not pass through another matrix.
    """
    parts = []
    if config.clip_norm:
        parts.append(optax.clip_by_global_norm(config.clip_norm))
    decay = optax.add_decayed_weights(config.weight_decay, mask=_is_matrix)
    match config.optimiser:
        case Optimiser.ADAMW:
            parts += [optax.scale_by_adam(), decay]
        case Optimiser.SGD:
            parts += [decay] if config.weight_decay else []
            parts += [optax.trace(config.momentum)] if config.momentum else []
        case _:
            assert_never(config.optimiser)
    parts.append(optax.stateless(lambda updates, params: _scale(updates, config)))
    return optax.chain(*parts)


def _is_matrix(params: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.ndim >= 2, params)


def _scale(updates: Any, config: TrainConfig) -> Any:
    rates = dict.fromkeys(("gender_AK", "age_AK", "country_AK", "history_TK"), config.user_rate)
    rates |= dict.fromkeys(("query_KHW", "key_KHW"), config.attention_rate)
    rates["hashtag_TK"] = config.hashtag_rate

    def scale(path: Any, leaf: jax.Array) -> jax.Array:
        rate = rates.get(path[-1].key)
        return leaf * rate if rate else leaf

    return jax.tree_util.tree_map_with_path(scale, updates)


def seed_keys(config: Config) -> tuple[jax.Array, jax.Array]:
    """Returns the seeds' typed keys for the initial parameters and for the steps, each (S,)."""
    seeds_S = config.seed + jnp.arange(config.train.num_seeds)
    keys_SA = jax.vmap(lambda seed: jax.random.split(jax.random.key(seed)))(seeds_S)
    return keys_SA[:, 0], keys_SA[:, 1]


def share_logits(counts_T: np.ndarray, num_videos: int) -> np.ndarray:
    """Returns the logit of the fraction of videos that have each hashtag, float32.

    Half a video more is counted with and without the hashtag, so that no logit is infinite.

    >>> share_logits(np.array([0, 1, 2]), 2).round(3).tolist()  # logs of 0.5/2.5, 1.5/1.5, 2.5/0.5
    [-1.6089999675750732, 0.0, 1.6089999675750732]
    """
    return np.log((counts_T + 0.5) / (num_videos - counts_T + 0.5)).astype(np.float32)


def init_state(
    model: nn.Module,
    config: Config,
    statistics: ChannelStatistics,
    logits_T: np.ndarray | None = None,
) -> State:
    """Returns the state before the first step.

    Args:
        model: the result of `models.build.build_model`.
        config: seed s of the population draws its parameters from `config.seed + s`.
        statistics: mean and standard deviation of the channels over the training split.
        logits_T: `share_logits`, at which the biases of hashtags start after multiplication by
            the loss's temperature; None: at 0. Without `model.bias` it has no effect.
    """
    # This runs once. On a CPU, XLA would optimise it for 10 s; unoptimised it runs in 10 ms.
    unoptimised = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    options = unoptimised if jax.default_backend() == "cpu" else None
    init = functools.partial(_initial, model, config)
    return jax.jit(init, compiler_options=options)(statistics, logits_T)


def abstract_state(model: nn.Module, config: Config, num_channels: int) -> State:
    """Returns the state as shapes and dtypes, for reading a checkpoint."""
    zeros_C = np.zeros(num_channels, np.float32)
    statistics = ChannelStatistics(zeros_C, zeros_C)
    return jax.eval_shape(functools.partial(_initial, model, config), statistics)


def _initial(
    model: nn.Module,
    config: Config,
    statistics: ChannelStatistics,
    logits_T: np.ndarray | None = None,
) -> State:
    num_seeds, num_channels = config.train.num_seeds, len(statistics.mean_C)
    video = pad_videos([None], Schema(num_channels), max_frames=1)
    unknown_B, history_BR = jnp.zeros(1, jnp.int32), jnp.zeros((1, 1), jnp.int32)
    user = UserInput(unknown_B, unknown_B, unknown_B, history_BR, history_BR.astype(bool))
    init_keys_S, _ = seed_keys(config)
    params: Any = jax.vmap(lambda key: model.init(key, video, user)["params"])(init_keys_S)
    if config.model.bias and logits_T is not None:
        temperature = config.loss.temperature or default_temperature(len(logits_T))
        params["bias_T"] += temperature * logits_T[None, :]
    return State(
        step=jnp.int32(0),
        params=params,
        average=params if config.train.ema else (),
        opt_state=jax.vmap(optimiser(config.train).init)(params),
        statistics=statistics._asdict(),
        rate_scale_S=jnp.ones(num_seeds),
        loss_sum_S=jnp.zeros(num_seeds),
        loss_steps=jnp.int32(0),
        best_params=params,
        best_score_S=jnp.full(num_seeds, -jnp.inf, jnp.float32),
        best_step_S=jnp.zeros(num_seeds, jnp.int32),
        stale_S=jnp.zeros(num_seeds, jnp.int32),
        validated_step=jnp.int32(0),
    )


def record_validation(
    state: State, score_S: jax.Array, *, patience: int, decay_factor: float
) -> State:
    """Returns the state after a validation: updates the best parameters and the learning rate.

    Args:
        state: at the validated step.
        score_S: higher is better. At a tie the new parameters replace the best ones, but a tie
            does not count as an improvement. NaN counts as worse.
        patience: the learning rate falls after each such number of validations without
            improvement; 0: never.
        decay_factor: factor on the learning rate when it falls.
    """
    improved_S = score_S > state.best_score_S
    as_good_S = score_S >= state.best_score_S  # at a tie, prefer the longer training

    def keep_best(new: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.where(as_good_S.reshape((-1,) + (1,) * (new.ndim - 1)), new, old)

    stale_S = jnp.where(improved_S, 0, state.stale_S + 1)
    decay_S = ~improved_S & (stale_S % patience == 0) if patience else jnp.zeros_like(improved_S)
    return state._replace(
        rate_scale_S=jnp.where(decay_S, state.rate_scale_S * decay_factor, state.rate_scale_S),
        loss_sum_S=jnp.zeros_like(state.loss_sum_S),
        loss_steps=jnp.zeros_like(state.loss_steps),
        best_params=jax.tree.map(keep_best, state.evaluated, state.best_params),
        best_score_S=jnp.where(as_good_S, score_S, state.best_score_S),
        best_step_S=jnp.where(as_good_S, state.step, state.best_step_S),
        stale_S=stale_S,
        validated_step=state.step,
    )
