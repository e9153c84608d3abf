"""Training: state, step, loop, checkpoints.

`train(...)` takes a run to its last step; it may be stopped and resumed after any step, with equal
results. `restore(...)` reads its checkpoints. All seeds of a population are trained together over
one read of the features.
"""

from uhman_jax.train.loop import Interrupted, restore, steps_per_epoch, total_steps, train
from uhman_jax.train.state import State, build_model, init_state
from uhman_jax.train.step import make_train_step

__all__ = [
    "Interrupted",
    "State",
    "build_model",
    "init_state",
    "make_train_step",
    "restore",
    "steps_per_epoch",
    "total_steps",
    "train",
]
