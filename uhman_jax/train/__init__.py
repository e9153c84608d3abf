"""Training: state, step, loop, checkpoints.

`train(...)` takes a run to its last step. A run that is stopped after any step and resumed has the
same result. `restore(...)` reads the newest checkpoint. All seeds of a population are trained
together and read the features once.
"""

from uhman_jax.train.checkpoints import restore
from uhman_jax.train.loop import Interrupted, steps_per_epoch, total_steps, train
from uhman_jax.train.state import State, init_state
from uhman_jax.train.step import make_train_step

__all__ = [
    "Interrupted",
    "State",
    "init_state",
    "make_train_step",
    "restore",
    "steps_per_epoch",
    "total_steps",
    "train",
]
