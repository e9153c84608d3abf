"""The training loop: steps, validations and checkpoints; it can stop and resume at any step."""

import functools
import math
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from uhman_jax.config import Config, Decay
from uhman_jax.dataset.view import TRAIN, VALIDATION, View
from uhman_jax.evaluate.ranking import make_ranker, rank_videos, summaries
from uhman_jax.input_pipeline import TrainOrder
from uhman_jax.kernels.video_input import ChannelStatistics
from uhman_jax.models.build import build_model
from uhman_jax.runtime import signals
from uhman_jax.runtime.errors import DivergedError, UserError, count_of
from uhman_jax.runtime.mesh import Devices
from uhman_jax.runtime.progress import progress_bar
from uhman_jax.shards.store import FrameStore
from uhman_jax.train.batch_source import OnDevice, Streamed, multi_step
from uhman_jax.train.checkpoints import Checkpoints
from uhman_jax.train.device_dataset import fits_on_device, load
from uhman_jax.train.metrics_log import MetricsLog
from uhman_jax.train.state import (
    State,
    abstract_state,
    init_state,
    record_validation,
    share_logits,
)
from uhman_jax.train.step import StepMetrics, learning_rate, make_train_step

MAX_TRAIN_SAMPLE = 256  # most training videos to rank at a validation, to show overfitting
SAVING_SHARE = 0.05  # maximum fraction of the time for checkpoints, if checkpoint_every is 0
MAX_STEPS = 2**31 - 1  # steps are counted in int32


class Interrupted(Exception):
    """Raised when a run stops on request; no step is lost.

    Attributes:
        step: number of steps taken so far, from which the run resumes.
        directory: folder of its checkpoints.
    """

    def __init__(self, step: int, directory: pathlib.Path):
        super().__init__(f"stopped at step {step}")
        self.step, self.directory = step, directory


def steps_per_epoch(config: Config, view: View) -> int:
    """Returns the number of steps that use each training video about once."""
    return -(-len(view.rows(TRAIN)) // config.train.batch_size)


def total_steps(config: Config, view: View) -> int:
    """Returns the number of steps of a run that does not stop early."""
    return config.train.num_epochs * steps_per_epoch(config, view)


def stopped_early(config: Config, view: View, state: State) -> bool:
    """Returns whether `train.stop_after` ends a run at this state, before its last step.

    The run ends if no seed had a better score at the last `stop_after` validations. The result
    depends only on the state, so a resumed run ends at the step of an unbroken one.
    """
    if not config.train.stop_after:
        return False
    is_stale = int(np.min(state.stale_S)) >= config.train.stop_after
    return is_stale and int(state.step) == int(state.validated_step) < total_steps(config, view)


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
    title: str = "Training",
) -> State:
    """Trains the population to its last step, from its newest checkpoint or from the start.

    A run that was stopped and resumed ends in the same state, bit for bit, as an unbroken one.

    Args:
        config: valid settings.
        view: the videos, hashtags and users.
        store: the region features of the videos.
        statistics: mean and standard deviation of the channels over the training split.
        workdir: holds `checkpoints/` and `metrics.jsonl`.
        should_stop: called after every step and before every batch of a validation.
        log: receives progress messages.
        title: of the progress bar.
        devices: a mesh to train on (see `config_checks.check_mesh`); None: one device. The state
            is the same up to rounding, and a run may be resumed on another mesh.

    Returns:
        The final state, of the last step or as `stopped_early`; `State.kept` has the parameters to
        use.

    Raises:
        DivergedError: a loss or its gradient is not finite.
        UserError: a split is empty, the steps are too many, or all checkpoints are damaged.
        Interrupted: `should_stop` returned True; the steps so far are saved.
    """
    with Checkpoints(workdir) as checkpoints:
        metrics_log = MetricsLog(workdir, write=not devices or devices.is_main_process)
        run = _Run(config, view, store, checkpoints, metrics_log, devices, title)
        state = checkpoints.restore(run.abstract, log)
        if state is None:
            logits_T = share_logits(view.counts_T, len(view.rows(TRAIN)))
            state = init_state(run.model, config, statistics, logits_T)
        elif int(state.step) < run.num_steps and not stopped_early(config, view, state):
            log(f"Resumed at step {int(state.step)} of {run.num_steps}.")
        if devices:
            state = run.finish(devices.shard_state(state), devices.agreed(should_stop))
            state = devices.gather_state(state)
        else:
            state = run.finish(state, should_stop)
        if stopped_early(config, view, state):
            unit = "validation" if config.train.eval_every else "epoch"
            log(
                f"Stopped after {unit} {int(state.step) // run.eval_every}: no better validation "
                f"{config.evaluate.select_by} for {count_of(config.train.stop_after, unit)}."
            )
        return state


class _Run:
    """The constant parts of one run, and its loop over steps."""

    def __init__(
        self,
        config: Config,
        view: View,
        store: FrameStore,
        checkpoints: Checkpoints,
        log: MetricsLog,
        devices: Devices | None,
        title: str,
    ):
        self.config, self.view, self.store, self.devices = config, view, store, devices
        self.title = title
        self.checkpoints, self.log = checkpoints, log
        rows, validation_rows = view.rows(TRAIN), view.rows(VALIDATION)
        plateau = config.train.decay is Decay.PLATEAU
        self.num_steps = total_steps(config, view)
        if not len(rows):
            raise UserError("training needs at least one video in the training split, got none")
        for is_set, setting, other in (
            (plateau, "decay=plateau", "--config.train.decay=steps"),
            (
                config.train.stop_after,
                f"stop_after={config.train.stop_after}",
                "--config.train.stop_after=0",
            ),
        ):
            if is_set and not len(validation_rows):
                raise UserError(
                    f"train.{setting} needs validation videos, got none; "
                    f"use {other} or a larger view.validation_share"
                )
        if self.num_steps > MAX_STEPS:
            raise UserError(
                f"a run must have at most {MAX_STEPS} steps, got {self.num_steps} from "
                f"train.num_epochs {config.train.num_epochs}; lower it"
            )
        self.eval_every = config.train.eval_every or steps_per_epoch(config, view)
        self.checkpoint_every = config.train.checkpoint_every or self.eval_every
        size = min(len(rows), MAX_TRAIN_SAMPLE, max(len(validation_rows), 1))
        sample = np.random.default_rng(config.seed).choice(rows, size, replace=False)
        self.ranked_rows = {"train": np.sort(sample)}
        if len(validation_rows):
            self.ranked_rows["validation"] = validation_rows
        self.model = build_model(config.model, view)
        self.abstract = abstract_state(self.model, config, store.num_channels)
        state_shardings = devices and devices.state_shardings(self.abstract)
        shardings = devices and (state_shardings, devices.replicated())
        self.step = make_train_step(self.model, config, self.num_steps, shardings)
        self.ranker = make_ranker(self.model, 0, devices)
        record = functools.partial(
            record_validation,
            patience=config.train.patience if plateau else 0,
            decay_factor=config.train.decay_factor,
        )
        self.record = jax.jit(record, donate_argnums=0, out_shardings=state_shardings)
        # The last dispatch, not checked yet: its first step, number of steps and metrics.
        self.dispatched: tuple[int, int, StepMetrics] | None = None

    def finish(self, state: State, should_stop: Callable[[], bool]) -> State:
        """Takes the remaining steps, with the validations and checkpoints that are due."""
        start = step = int(state.step)
        validated = int(state.validated_step)
        self.log.truncate(validated)
        over = step == validated == self.num_steps or stopped_early(self.config, self.view, state)
        if over:
            return state
        if not (source := self._batch_source(step, should_stop)):
            raise Interrupted(step, self.checkpoints.directory)
        record = self._compile(state, source)
        saved, saved_at = (step, validated), -math.inf  # the newest checkpoint
        validation_end = time.monotonic(), step

        def is_due(every: int) -> bool:
            return step % every == 0 or step == self.num_steps

        how = {"desc": self.title, "unit": "step", "disable": not self.log.write}
        with progress_bar(total=self.num_steps, initial=step, **how) as bar:
            while True:
                if validated < step and is_due(self.eval_every):
                    self._check_finite()
                    scores = self._validate(state, step, validation_end, source, should_stop)
                    if scores is None:
                        break
                    validation_end = time.monotonic(), step
                    score_S = np.asarray(scores, np.float32)
                    score_S = jax.device_put(score_S, state.best_score_S.sharding)
                    state, validated = record(state, score_S), step
                    name = f"validation {self.config.evaluate.select_by}"
                    bar.set_postfix({name: f"{np.mean(scores):.3f}"}, refresh=False)
                    over = step == self.num_steps
                    if stopped_early(self.config, self.view, state):
                        over, bar.total = True, step
                        bar.set_description(f"{self.title}, stopped early", refresh=False)
                is_new = (step, validated) != saved
                is_due_now = over or is_due(self.checkpoint_every)
                if is_new and is_due_now and self._may_save(over, saved_at):
                    self._save(state)
                    saved, saved_at = (step, validated), time.monotonic()
                if over:
                    return state
                if should_stop():
                    break
                due = [every - step % every for every in (self.eval_every, self.checkpoint_every)]
                state, metrics, count = source.advance(state, min(self.num_steps - step, *due))
                if step == start:
                    bar.unpause()  # keeps compilation out of the estimated time left
                self._check_finite()  # while the device computes these steps
                self.dispatched = step, count, metrics
                step += count
                bar.update(count)
        with signals.defer_exit:
            if (step, validated) != saved:
                self._save(state)
            self.checkpoints.wait()
        raise Interrupted(step, self.checkpoints.directory)

    def _batch_source(
        self, start: int, should_stop: Callable[[], bool]
    ) -> Streamed | OnDevice | None:
        """Returns the source of batches from step `start` on; None if stopped while loading."""
        view, store, config = self.view, self.store, self.config.train
        rows, pool_features = view.rows(TRAIN), self.model.pool_features
        parts = self.config.model.history_sampling
        order = TrainOrder(rows, config.batch_size, self.config.seed)
        used = np.unique(np.concatenate([rows, *self.ranked_rows.values()]))
        if self.devices or not fits_on_device(store, used, config.features, pool_features):
            return Streamed(self.step, view, store, order, start, self.devices, parts)
        on_device = load(view, store, used, should_stop, pool_features, parts)
        return OnDevice(multi_step(self.step), on_device, order, start) if on_device else None

    def _compile(self, state: State, source: Streamed | OnDevice) -> Callable[..., State]:
        """Compiles the programs of a validation; returns the compiled `record`.

        Called before the first step, so that a signal during compilation loses no steps.
        """
        size = self.config.evaluate.batch_size
        for rows in self.ranked_rows.values():
            batches = source.ranked(rows[:size], size)
            rank_videos(self.ranker, state.evaluated, state.statistics, batches)
        return self.record.lower(state, state.best_score_S).compile()

    def _validate(
        self,
        state: State,
        step: int,
        last_end: tuple[float, int],
        source: Streamed | OnDevice,
        should_stop: Callable[[], bool],
    ) -> list[float] | None:
        """Ranks, logs the metrics and returns the score of each seed; None if stopped.

        `last_end` is the time and the step of the end of the last validation.
        """
        config, seconds, num_steps = self.config, time.monotonic() - last_end[0], step - last_end[1]
        rate = float(learning_rate(config.train, self.num_steps)(jnp.int32(step - 1)))
        entry: dict[str, Any] = {
            "step": step,
            "epoch": step / (len(self.view.rows(TRAIN)) / config.train.batch_size),
            "loss": (np.asarray(state.loss_sum_S) / int(state.loss_steps)).tolist(),
            "learning_rate": (rate * np.asarray(state.rate_scale_S)).tolist(),
        }
        for split, rows in self.ranked_rows.items():
            batches = source.ranked(rows, config.evaluate.batch_size)
            ranking = rank_videos(
                self.ranker, state.evaluated, state.statistics, batches, should_stop
            )
            if ranking is None:
                return None
            values = summaries(ranking.ranks_SVP, ranking.mask_VP)
            names = values if split == "validation" else [config.evaluate.select_by]
            entry |= {f"{split}/{name}": values[name] for name in names}
            if split == "validation" and (together := ranking.ensemble):
                found = summaries(together.ranks_SVP, together.mask_VP)
                entry |= {f"validation_ensemble/{name}": value for name, (value,) in found.items()}
        entry["seconds"] = self.log.seconds + seconds
        entry["steps_per_second"] = num_steps / seconds if seconds else 0.0
        self.log.append(entry)
        # Without validation videos the step is the score, so the last parameters are kept.
        return entry.get(f"validation/{config.evaluate.select_by}", [step] * len(entry["loss"]))

    def _may_save(self, over: bool, saved_at: float) -> bool:
        """Returns whether a checkpoint is requested, of the final state or cheap enough.

        Several processes must save together, so their clocks do not decide: the result is True.
        """
        is_requested = self.config.train.checkpoint_every or over
        is_cheap = time.monotonic() - saved_at > self.checkpoints.seconds / SAVING_SHARE
        return bool(is_requested) or jax.process_count() > 1 or is_cheap

    def _save(self, state: State) -> None:
        self._check_finite()
        self.checkpoints.save(self.devices.gather_state(state) if self.devices else state)

    def _check_finite(self) -> None:
        """Raises DivergedError if a loss or gradient norm of the last dispatch is not finite."""
        if self.dispatched is None:
            return
        step, count, metrics = self.dispatched
        loss_NS, norm_NS = (np.asarray(values_NS)[:count] for values_NS in metrics)
        finite_NS = np.isfinite(loss_NS) & np.isfinite(norm_NS)
        if finite_NS.all():
            return
        first, bad = np.argwhere(~finite_NS)[0]
        self.checkpoints.wait()
        latest = self.checkpoints.latest_step
        saved = (
            f"step {latest} in {self.checkpoints.directory}" if latest is not None else "none yet"
        )
        train = self.config.train
        raise DivergedError(
            f"the loss and its gradient must stay finite, got a loss of {loss_NS[first, bad]} and "
            f"a gradient norm of {norm_NS[first, bad]} at step {step + first} with seed "
            f"{self.config.seed + bad} (last good checkpoint: {saved}); lower "
            f"train.learning_rate ({train.learning_rate}), or set train.clip_norm "
            f"({train.clip_norm}) to e.g. 1, "
            "in a new --workdir"
        )
