"""The training loop: batches, validation, checkpoints, and a clean stop at any step."""

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
from uhman_jax.progress import progress_bar
from uhman_jax.run_directory import CHECKPOINTS
from uhman_jax.shards.store import FrameStore
from uhman_jax.train.checkpoints import Checkpoints
from uhman_jax.train.feed import Resident, Streamed, several
from uhman_jax.train.log import MetricsLog
from uhman_jax.train.on_device import load, wanted
from uhman_jax.train.state import (
    State,
    abstract_state,
    build_model,
    init_state,
    record_validation,
)
from uhman_jax.train.step import StepMetrics, learning_rate, make_train_step

MAX_TRAIN_SAMPLE = 256  # training videos that are ranked at each validation, to see overfitting
SAVING_SHARE = 0.05  # of the time, at most, where no steps are given for checkpoints
MAX_STEPS = 2**31 - 1  # steps are counted in int32


class Interrupted(Exception):
    """A run was asked to stop; its state is saved.

    Attributes:
        step: of the checkpoint.
    """

    def __init__(self, step: int):
        super().__init__(f"stopped at step {step}")
        self.step = step


def steps_per_epoch(config: Config, view: View) -> int:
    """Steps in which the training split is seen about once."""
    return -(-len(view.rows(TRAIN)) // config.train.batch_size)


def total_steps(config: Config, view: View) -> int:
    """Steps of the whole run."""
    return config.train.num_epochs * steps_per_epoch(config, view)


def restore(
    config: Config, view: View, num_channels: int, workdir: str | os.PathLike[str]
) -> State | None:
    """The state of a run directory's newest whole checkpoint; None where there is none.

    Leaves the directory as it is: a run may be training in it.

    Args:
        config: of the run.
        view: of the run.
        num_channels: C of its features; 0: as the checkpoint says, so that none are needed.
        workdir: the run directory.

    Raises:
        UserError: there are checkpoints, but none that can be read.
    """
    if not (storage.path(workdir) / CHECKPOINTS).is_dir():
        return None
    with Checkpoints(workdir, read_only=True) as checkpoints:
        num_channels = num_channels or checkpoints.num_channels() or 1
        model = build_model(config.model, view)
        return checkpoints.restore(abstract_state(model, config, num_channels))


def train(
    config: Config,
    view: View,
    store: FrameStore,
    mean_C: np.ndarray,
    std_C: np.ndarray,
    workdir: str | os.PathLike[str],
    *,
    should_stop: Callable[[], bool] = lambda: False,
    say: Callable[[str], object] = print,
    devices: Devices | None = None,
) -> State:
    """Trains the population to its last step, from its newest checkpoint or from the start.

    A run that was stopped and started again ends with the same bytes as an unbroken one.

    Args:
        config: a valid one.
        view: which videos, hashtags and users.
        store: their region features.
        mean_C: float32, channel means of the training split.
        std_C: float32, channel deviations of the training split.
        workdir: where `checkpoints/` and `metrics.jsonl` are.
        should_stop: asked after every step and before every batch of a validation.
        say: takes lines for a person.
        devices: that share the work, if there are several; else one does it. The state is the same
            to rounding, and a run may go on with others.

    Returns:
        The final state; `kept` are the parameters to use.

    Raises:
        DivergedError: a loss or its gradient is not finite.
        UserError: nothing to train on, damaged checkpoints, settings that the devices can't have.
        Interrupted: `should_stop` said so; a checkpoint is on disk.
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
        state = checkpoints.restore(abstract_state(run.model, config, len(mean_C)), say)
        if state is None:
            state = init_state(run.model, config, mean_C, std_C)
        elif int(state.step) < run.num_steps:
            say(f"Resumed at step {int(state.step)} of {run.num_steps}.")
        if not devices:
            return run.finish(state, should_stop)
        state = run.finish(devices.spread(state), agreed(devices, should_stop))
        return devices.collect(state)


def agreed(devices: Devices, should_stop: Callable[[], bool]) -> Callable[[], bool]:
    """The same question to all processes, who then all know the answer, up to 1/4 second late.

    An answer costs a wait for the device, so that they meet only now and then: after as many
    questions as the slowest of them took a quarter of a second for, and 16 at most.
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
        stop, slowest = devices.highest(should_stop(), seconds)
        left, asked, clock = min(int(0.25 / max(slowest, 1e-6)), 16), 0, time.monotonic()
        return bool(stop)

    return ask


class _Run:
    """The fixed parts of one run, and the loop over its steps."""

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
        self.primary = not devices or devices.primary
        self.checkpoints, self.log = checkpoints, MetricsLog(workdir, write=self.primary)
        rows, validation_rows = view.rows(TRAIN), view.rows(VALIDATION)
        if not len(rows):
            raise UserError("training needs at least one video in the training split, got none")
        if config.train.decay is Decay.PLATEAU and not len(validation_rows):
            raise UserError(
                "train.decay=plateau needs validation videos, got none; "
                "use --config.train.decay=steps or a larger view.validation_share"
            )
        self.eval_size = config.evaluate.batch_size
        self.num_steps = total_steps(config, view)
        if self.num_steps > MAX_STEPS:
            raise UserError(
                f"a run must have at most {MAX_STEPS} steps, got {self.num_steps} from "
                f"train.num_epochs {config.train.num_epochs}; lower it"
            )
        self.eval_every = config.train.eval_every or steps_per_epoch(config, view)
        self.checkpoint_every = config.train.checkpoint_every or self.eval_every
        self.steps_per_epoch = len(rows) / config.train.batch_size
        size = min(len(rows), MAX_TRAIN_SAMPLE, max(len(validation_rows), 1))
        sample = np.random.default_rng(config.seed).choice(rows, size, replace=False)
        self.ranked = {"train": np.sort(sample)}
        if len(validation_rows):
            self.ranked["validation"] = validation_rows
        self.pending: tuple[int, int, StepMetrics] | None = None
        self.model = build_model(config.model, view)
        places = where = None
        if devices:
            places = devices.places(abstract_state(self.model, config, store.num_channels))
            where = places, devices.everywhere()
        self.step = make_train_step(self.model, config, self.num_steps, where)
        self.ranker = make_ranker(self.model, 0, devices)
        plateau = config.train.decay is Decay.PLATEAU
        self.record = jax.jit(
            functools.partial(
                record_validation,
                patience=config.train.patience if plateau else 0,
                decay_factor=config.train.decay_factor,
            ),
            donate_argnums=0,
            out_shardings=places,
        )

    def finish(self, state: State, should_stop: Callable[[], bool]) -> State:
        """Takes the remaining steps, validating and saving where it is due."""
        start = step = int(state.step)
        validated = int(state.validated_step)
        self.saved = (step, validated) if step else None
        self.saved_at, self.saving_seconds = -math.inf, 0.0
        self.log.truncate(validated)
        if step == validated == self.num_steps:
            return state
        feed = self._feed(step, should_stop)
        if feed is None:
            raise self._interrupted(state, step, validated)
        record = self._compile(state, feed)
        self.clock, self.clock_step = time.monotonic(), step
        how: dict[str, Any] = {"desc": "Training", "unit": "step", "disable": not self.primary}
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
                    bar.unpause()  # compiling says nothing of the time left
                self._check_pending()  # the steps before: the device is busy with these
                self.pending = step, count, metrics
                step += count
                bar.update(count)

    def _feed(self, start: int, should_stop: Callable[[], bool]) -> Streamed | Resident | None:
        """What gives the batches from step `start` on; None if stopped while it was made."""
        config, rows = self.config.train, self.view.rows(TRAIN)
        how: dict[str, int] = {
            "batch_size": config.batch_size,
            "seed": self.config.seed,
            "start_step": start,
        }
        seen = np.unique(np.concatenate([rows, *self.ranked.values()]))
        condense = self.model.condense
        if self.devices or not wanted(self.view, self.store, seen, config.features, condense):
            return Streamed(self.step, self.view, self.store, rows, **how, devices=self.devices)
        on_device = load(self.view, self.store, seen, should_stop, condense)
        return None if on_device is None else Resident(several(self.step), on_device, rows, **how)

    def _compile(self, state: State, feed: Streamed | Resident) -> Callable[..., State]:
        """Makes the programs of a validation before the first step; returns that of its record.

        A signal that comes in the middle of a compilation must not cost steps.
        """
        for rows in self.ranked.values():
            batches = feed.ranked(rows[: self.eval_size], self.eval_size)
            rank_videos(self.ranker, state.evaluated, state.statistics, batches)
        return self.record.lower(state, state.best_score_S).compile()

    def _validate(
        self, state: State, step: int, feed: Streamed | Resident, should_stop: Callable[[], bool]
    ) -> np.ndarray | None:
        """Ranks, writes a line of the log, returns the score of each seed; None if stopped."""
        self._check_pending()
        seconds = time.monotonic() - self.clock
        loss_S = np.asarray(state.loss_sum_S) / int(state.loss_steps)
        scale_S = np.asarray(state.rate_scale_S)
        rate = float(learning_rate(self.config.train, self.num_steps)(jnp.int32(step - 1)))
        entry: dict[str, Any] = {
            "step": step,
            "epoch": step / self.steps_per_epoch,
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
        # Without validation videos the last parameters are the ones to keep.
        scores = entry.get(f"validation/{self.config.evaluate.select_by}", [step] * len(loss_S))
        return np.asarray(scores, np.float32)

    def _may_save(self) -> bool:
        """Whether a checkpoint that nobody asked for at this step costs little enough.

        Several processes save together, so that none may look at its own clock.
        """
        if self.config.train.checkpoint_every or jax.process_count() > 1:
            return True
        return time.monotonic() - self.saved_at > self.saving_seconds / SAVING_SHARE

    def _save(self, state: State, step: int, validated: int) -> None:
        self._check_pending()
        if self.saved != (step, validated):
            begin = time.monotonic()
            self.checkpoints.save(self.devices.collect(state) if self.devices else state)
            self.saved, self.saved_at = (step, validated), time.monotonic()
            self.saving_seconds = self.saved_at - begin

    def _interrupted(self, state: State, step: int, validated: int) -> Interrupted:
        """What to raise, with the state on disk."""
        if step:
            with stop.saving():
                self._save(state, step, validated)
                self.checkpoints.wait()
        return Interrupted(step)

    def _check_pending(self) -> None:
        """Reads the figures of the steps before, and stops the run where they are not finite."""
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
