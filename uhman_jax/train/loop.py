"""The training loop: steps, validation, checkpoints, and a stop after any step without loss."""

import functools
import math
import os
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from uhman_jax import stop, storage
from uhman_jax.config import Config, Decay, Features
from uhman_jax.dataset.view import TRAIN, VALIDATION, View
from uhman_jax.devices import Devices
from uhman_jax.errors import DivergedError, UserError
from uhman_jax.evaluate.ranking import make_ranker, rank_videos, summaries
from uhman_jax.layers import ChannelStatistics
from uhman_jax.progress import progress_bar
from uhman_jax.run_directory import CHECKPOINTS
from uhman_jax.shards.store import FrameStore
from uhman_jax.train.batch_source import OnDevice, Streamed, multi_step
from uhman_jax.train.checkpoints import Checkpoints
from uhman_jax.train.device_dataset import fits_on_device, load
from uhman_jax.train.metrics_log import MetricsLog
from uhman_jax.train.state import (
    State,
    abstract_state,
    build_model,
    init_state,
    record_validation,
)
from uhman_jax.train.step import StepMetrics, learning_rate, make_train_step

MAX_TRAIN_SAMPLE = 256  # training videos that are ranked at each validation, to see overfitting
SAVING_SHARE = 0.05  # largest fraction of the time for checkpoints, if their steps are not set
MAX_STEPS = 2**31 - 1  # steps are counted in int32


class Interrupted(Exception):
    """Reports that a run was asked to stop; its state is saved.

    Attributes:
        step: of the checkpoint.
    """

    def __init__(self, step: int):
        super().__init__(f"stopped at step {step}")
        self.step = step


def steps_per_epoch(config: Config, view: View) -> int:
    """Returns the number of steps that use each training video about once."""
    return -(-len(view.rows(TRAIN)) // config.train.batch_size)


def total_steps(config: Config, view: View) -> int:
    """Returns the number of steps of the whole run."""
    return config.train.num_epochs * steps_per_epoch(config, view)


def restore(config: Config, view: View, workdir: str | os.PathLike[str]) -> State | None:
    """Returns the state in a run directory's newest whole checkpoint; None if there is none.

    Changes nothing in the directory: a run may be training in it.

    Raises:
        UserError: no checkpoint can be read although there are some.
    """
    if not (storage.path(workdir) / CHECKPOINTS).is_dir():
        return None
    with Checkpoints(workdir, read_only=True) as checkpoints:
        return checkpoints.restore(abstract_state(build_model(config.model, view), config, 1))


def train(
    config: Config,
    view: View,
    store: FrameStore,
    statistics: ChannelStatistics,
    workdir: str | os.PathLike[str],
    *,
    should_stop: Callable[[], bool] = lambda: False,
    log: Callable[[str], object] = print,
    devices: Devices | None = None,
) -> State:
    """Trains the population to its last step, from its newest checkpoint or from the start.

    A run that was stopped and resumed ends with the same bytes as an unbroken one.

    Args:
        config: valid settings.
        view: the videos, hashtags and users.
        store: the region features of the videos.
        statistics: mean and standard deviation of the channels over the training split.
        workdir: holds `checkpoints/` and `metrics.jsonl`.
        should_stop: called after every step and before every batch of a validation.
        log: takes lines for a person.
        devices: a mesh that shares the work; None for one device. The state is the same up to
            rounding, and a run may be resumed on another mesh.

    Returns:
        The final state; its `kept` are the parameters to use.

    Raises:
        DivergedError: a loss or its gradient is not finite.
        UserError: nothing to train on, damaged checkpoints, or settings that do not fit the mesh.
        Interrupted: `should_stop` returned True; a checkpoint is saved.
    """
    if devices:
        devices.check_batch("train.batch_size", config.train.batch_size)
        devices.check_batch("evaluate.batch_size", config.evaluate.batch_size)
        if config.train.features is Features.DEVICE:
            raise UserError(
                "train.features=device needs a run on one device, got a mesh of "
                f"{devices.mesh.size}; use auto or stream, or leave --mesh out"
            )
    with Checkpoints(workdir) as checkpoints:
        run = _Run(config, view, store, checkpoints, workdir, devices)
        num_channels = len(statistics.mean_C)
        state = checkpoints.restore(abstract_state(run.model, config, num_channels), log)
        if state is None:
            state = init_state(run.model, config, statistics)
        elif int(state.step) < run.num_steps:
            log(f"Resumed at step {int(state.step)} of {run.num_steps}.")
        if not devices:
            return run.finish(state, should_stop)
        state = run.finish(devices.shard_state(state), agreed(devices, should_stop))
        return devices.gather_state(state)


def agreed(devices: Devices, should_stop: Callable[[], bool]) -> Callable[[], bool]:
    """Returns a stop check on which all processes agree.

    The all-reduce waits for the device, so it runs at most every 0.25 s (or every 16 calls).
    """
    if jax.process_count() == 1:
        return should_stop
    left = asked = 0
    clock = time.monotonic()

    def ask() -> bool:
        nonlocal left, asked, clock
        asked += 1
        if asked <= left:
            return False
        seconds = (time.monotonic() - clock) / asked
        stop, slowest = devices.all_max(should_stop(), seconds)
        left, asked, clock = min(int(0.25 / max(slowest, 1e-6)), 16), 0, time.monotonic()
        return bool(stop)

    return ask


class _Run:
    """The parts of one run that are the same in every step, and the loop over its steps."""

    def __init__(
        self,
        config: Config,
        view: View,
        store: FrameStore,
        checkpoints: Checkpoints,
        workdir: str | os.PathLike[str],
        devices: Devices | None,
    ):
        self.config, self.view, self.store, self.devices = config, view, store, devices
        self.is_main_process = not devices or devices.is_main_process
        self.checkpoints, self.log = checkpoints, MetricsLog(workdir, write=self.is_main_process)
        rows, validation_rows = view.rows(TRAIN), view.rows(VALIDATION)
        plateau = config.train.decay is Decay.PLATEAU
        self.num_steps = total_steps(config, view)
        if not len(rows):
            raise UserError("training needs at least one video in the training split, got none")
        if plateau and not len(validation_rows):
            raise UserError(
                "train.decay=plateau needs validation videos, got none; "
                "use --config.train.decay=steps or a larger view.validation_share"
            )
        if self.num_steps > MAX_STEPS:
            raise UserError(
                f"a run must have at most {MAX_STEPS} steps, got {self.num_steps} from "
                f"train.num_epochs {config.train.num_epochs}; lower it"
            )
        self.eval_size = config.evaluate.batch_size
        self.eval_every = config.train.eval_every or steps_per_epoch(config, view)
        self.checkpoint_every = config.train.checkpoint_every or self.eval_every
        size = min(len(rows), MAX_TRAIN_SAMPLE, max(len(validation_rows), 1))
        sample = np.random.default_rng(config.seed).choice(rows, size, replace=False)
        self.ranked = {"train": np.sort(sample)}
        if len(validation_rows):
            self.ranked["validation"] = validation_rows
        self.model = build_model(config.model, view)
        places = where = None
        if devices:
            places = devices.state_shardings(abstract_state(self.model, config, store.num_channels))
            where = places, devices.replicated()
        self.step = make_train_step(self.model, config, self.num_steps, where)
        self.ranker = make_ranker(self.model, 0, devices)
        self.record = jax.jit(
            functools.partial(
                record_validation,
                patience=config.train.patience if plateau else 0,
                decay_factor=config.train.decay_factor,
            ),
            donate_argnums=0,
            out_shardings=places,
        )
        # Dispatched steps whose metrics are not read yet: first step, number of steps, metrics.
        self.pending: tuple[int, int, StepMetrics] | None = None
        self.saved: tuple[int, int] | None = None  # step and validated step of the last checkpoint
        self.saved_at = -math.inf
        self.clock, self.clock_step = 0.0, 0  # end of the last validation

    def finish(self, state: State, should_stop: Callable[[], bool]) -> State:
        """Takes the remaining steps; validates and saves when it is due."""
        start = step = int(state.step)
        validated = int(state.validated_step)
        self.saved = (step, validated) if step else None
        self.log.truncate(validated)
        if step == validated == self.num_steps:
            return state
        feed = self._feed(step, should_stop)
        if feed is None:
            raise self._interrupted(state, step, validated)
        record = self._compile(state, feed)
        self.clock, self.clock_step = time.monotonic(), step
        how: dict[str, Any] = {
            "desc": "Training",
            "unit": "step",
            "disable": not self.is_main_process,
        }
        with progress_bar(total=self.num_steps, initial=step, **how) as bar:
            while True:
                if validated < step and (step % self.eval_every == 0 or step == self.num_steps):
                    scores_S = self._validate(state, step, feed, should_stop)
                    if scores_S is None:
                        raise self._interrupted(state, step, validated)
                    score_S = jax.device_put(scores_S, state.best_score_S.sharding)
                    state, validated = record(state, score_S), step
                    score = self.config.evaluate.select_by
                    bar.set_postfix(
                        {f"validation {score}": f"{np.mean(scores_S):.3f}"}, refresh=False
                    )
                if step and (step % self.checkpoint_every == 0 or step == self.num_steps):
                    if step == self.num_steps or self._may_save():
                        self._save(state, step, validated)
                if step == self.num_steps:
                    return state
                if should_stop():
                    raise self._interrupted(state, step, validated)
                due = [every - step % every for every in (self.eval_every, self.checkpoint_every)]
                state, metrics, count = feed.advance(state, min(self.num_steps - step, *due))
                if step == self.clock_step == start:
                    bar.unpause()  # compilation does not count for the estimate of the time left
                self._check_pending()  # of the steps before, while the device computes these
                self.pending = step, count, metrics
                step += count
                bar.update(count)

    def _feed(self, start: int, should_stop: Callable[[], bool]) -> Streamed | OnDevice | None:
        """Returns the source of the batches from step `start` on; None if stopped while loading."""
        config, rows = self.config.train, self.view.rows(TRAIN)
        how: dict[str, int] = {
            "batch_size": config.batch_size,
            "seed": self.config.seed,
            "start_step": start,
        }
        seen = np.unique(np.concatenate([rows, *self.ranked.values()]))
        pool_features = self.model.pool_features
        if self.devices or not fits_on_device(
            self.view, self.store, seen, config.features, pool_features
        ):
            return Streamed(self.step, self.view, self.store, rows, **how, devices=self.devices)
        on_device = load(self.view, self.store, seen, should_stop, pool_features)
        return (
            None if on_device is None else OnDevice(multi_step(self.step), on_device, rows, **how)
        )

    def _compile(self, state: State, feed: Streamed | OnDevice) -> Callable[..., State]:
        """Compiles the programs of a validation and returns the one that records its scores.

        This happens before the first step: a signal during a compilation must not lose steps.
        """
        for rows in self.ranked.values():
            batches = feed.ranked(rows[: self.eval_size], self.eval_size)
            rank_videos(self.ranker, state.evaluated, state.statistics, batches)
        return self.record.lower(state, state.best_score_S).compile()

    def _validate(
        self, state: State, step: int, feed: Streamed | OnDevice, should_stop: Callable[[], bool]
    ) -> np.ndarray | None:
        """Ranks, adds a line to the log, and returns the score of each seed; None if stopped."""
        self._check_pending()
        seconds = time.monotonic() - self.clock
        loss_S = np.asarray(state.loss_sum_S) / int(state.loss_steps)
        scale_S = np.asarray(state.rate_scale_S)
        rate = float(learning_rate(self.config.train, self.num_steps)(jnp.int32(step - 1)))
        entry: dict[str, Any] = {
            "step": step,
            "epoch": step / (len(self.view.rows(TRAIN)) / self.config.train.batch_size),
            "loss": loss_S.tolist(),
            "learning_rate": (rate * scale_S).tolist(),
        }
        for split, rows in self.ranked.items():
            batches = feed.ranked(rows, self.eval_size)
            ranking = rank_videos(
                self.ranker, state.evaluated, state.statistics, batches, should_stop
            )
            if ranking is None:
                return None
            values = summaries(ranking.ranks_SVP, ranking.mask_VP)
            names = values if split == "validation" else [self.config.evaluate.select_by]
            entry |= {f"{split}/{name}": values[name] for name in names}
        entry["seconds"] = self.log.seconds + seconds
        entry["steps_per_second"] = (step - self.clock_step) / seconds if seconds else 0.0
        self.log.append(entry)
        self.clock, self.clock_step = time.monotonic(), step
        # Without validation videos the last parameters are kept.
        scores = entry.get(f"validation/{self.config.evaluate.select_by}", [step] * len(loss_S))
        return np.asarray(scores, np.float32)

    def _may_save(self) -> bool:
        """Returns whether a checkpoint at this step is requested or cheap enough.

        Several processes save together, so they do not decide by their own clocks.
        """
        if self.config.train.checkpoint_every or jax.process_count() > 1:
            return True
        return time.monotonic() - self.saved_at > self.checkpoints.seconds / SAVING_SHARE

    def _save(self, state: State, step: int, validated: int) -> None:
        self._check_pending()
        if self.saved != (step, validated):
            self.checkpoints.save(self.devices.gather_state(state) if self.devices else state)
            self.saved, self.saved_at = (step, validated), time.monotonic()

    def _interrupted(self, state: State, step: int, validated: int) -> Interrupted:
        """Saves the state and returns the exception to raise."""
        if step:
            with stop.defer_exit:
                self._save(state, step, validated)
                self.checkpoints.wait()
        return Interrupted(step)

    def _check_pending(self) -> None:
        """Reads the metrics of the previous dispatch; raises DivergedError if one is not finite."""
        if self.pending is None:
            return
        step, count, metrics = self.pending
        self.pending = None
        loss_NS, norm_NS = (np.asarray(figures)[:count] for figures in metrics)
        finite_NS = np.isfinite(loss_NS) & np.isfinite(norm_NS)
        if finite_NS.all():
            return
        first, bad = np.argwhere(~finite_NS)[0]
        self.checkpoints.wait()
        latest = self.checkpoints.latest_step
        saved = f"step {latest} in {self.checkpoints.directory}" if latest else "none yet"
        train = self.config.train
        raise DivergedError(
            f"the loss and its gradient must stay finite, got a loss of "
            f"{loss_NS[first, bad]} at step {step + first} with seed "
            f"{self.config.seed + bad} (last good checkpoint: {saved}); lower train.learning_rate "
            f"({train.learning_rate}), or set train.clip_norm ({train.clip_norm}) to e.g. 1, "
            "in a new --workdir"
        )
