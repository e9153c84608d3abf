"""Training: state, step, loop, checkpoints.

`train(...)` trains a run to its end; a run that is interrupted after any step and resumed gives the
same result. `restore(...)` reads the newest checkpoint. All seeds of a population train
together, on the same batches.
"""

from uhman_jax.train.checkpoints import restore
from uhman_jax.train.loop import (
    Interrupted,
    steps_per_epoch,
    stopped_early,
    total_steps,
    train,
)
from uhman_jax.train.state import State, init_state
from uhman_jax.train.step import make_train_step

__all__ = [
    "Interrupted",
    "State",
    "init_state",
    "make_train_step",
    "restore",
    "steps_per_epoch",
    "stopped_early",
    "total_steps",
    "train",
]
