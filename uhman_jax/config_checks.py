"""Checks of a whole config: types, ranges, and rules over several fields."""

import math
from typing import Any

from uhman_jax.config import Config, flag_text, flatten, kind_of, ranges
from uhman_jax.errors import UserError

SCORES = tuple(f"{name}@{k}" for name in ("P", "R", "F1") for k in (1, 5, 10, 50))
SCORES += ("NDCG@10", "MRR", "MAP")
_AT_MOST = (  # pairs of settings of the simulator
    ("objects_per_clip", "num_classes"),
    ("frames_per_object", "num_frames"),
    ("min_seconds", "max_seconds"),
)


def validate(config: Config) -> None:
    """Checks every field before any work.

    Raises:
        UserError: one line per wrong field: the rule, the value and the remedy.
    """
    values, defaults = flatten(config), flatten(Config())
    problems = [
        f"{path} must be {kind_of(default)}, got {values[path]!r}; "
        f"its default is {flag_text(default)}"
        for path, default in defaults.items()
        if not _same_kind(values[path], default)
    ]
    if not problems:
        problems = [
            f"{path} must be in {interval}, got {values[path]}; its default is {defaults[path]}"
            for path, interval in ranges().items()
            if not _within(values[path], interval)
        ]
    if problems := problems or _combined_problems(config):
        raise UserError("\n".join(problems))


def _combined_problems(config: Config) -> list[str]:
    """Returns the rules over several settings, and over texts, that are broken."""
    simulator, model, train = config.simulator, config.model, config.train
    shares = list(train.decay_at)
    words = simulator.num_hashtags - simulator.num_generic
    checks = [
        (
            config.name not in ("", ".", "..") and not set(config.name) & set("/\\\0"),
            f"name must be a plain folder name, got {config.name!r}; write e.g. natural",
        ),
        (
            model.hidden_size % model.num_heads == 0,
            f"model.num_heads must divide model.hidden_size {model.hidden_size}, "
            f"got {model.num_heads}; use e.g. {math.gcd(model.hidden_size, model.num_heads)}",
        ),
        (
            shares == sorted(set(shares)) and all(0 < share < 1 for share in shares),
            f"train.decay_at must be rising shares of the run between 0 and 1, got "
            f"{train.decay_at}; use e.g. (0.6, 0.85)",
        ),
        (
            train.batch_size % (train.microbatch_size or 1) == 0,
            f"train.microbatch_size must divide train.batch_size {train.batch_size}, "
            f"got {train.microbatch_size}; use e.g. "
            f"{math.gcd(train.batch_size, train.microbatch_size)}, or 0 to have it chosen",
        ),
        (
            config.evaluate.select_by in SCORES,
            f"evaluate.select_by must be one of {' '.join(SCORES)}, got "
            f"{config.evaluate.select_by!r}; use e.g. P@10",
        ),
        (
            config.preprocess.weights != "",
            "preprocess.weights must be imagenet, random or a Keras .h5 file, got ''; use random",
        ),
        (
            config.data.root != "" or config.data.simulated_dir != "",
            "data.simulated_dir must name a folder where data.root is empty, got ''; use data",
        ),
        (
            "://" not in config.data.simulated_dir,
            "data.simulated_dir must be a local folder, since clips are drawn there, got "
            f"{config.data.simulated_dir!r}; copy a simulated dataset to the bucket and name it in "
            "data.root",
        ),
        (
            words >= simulator.num_classes,
            f"simulator.num_hashtags must be at least num_classes {simulator.num_classes} and "
            f"num_generic {simulator.num_generic} together, got {simulator.num_hashtags}; "
            f"use {simulator.num_classes + simulator.num_generic} or more",
        ),
        *(
            (
                low <= high,
                f"simulator.{name} must be at most {limit} {high}, got {low}; use a smaller one or "
                f"a larger {limit}",
            )
            for name, low, limit, high in (
                (a, getattr(simulator, a), b, getattr(simulator, b)) for a, b in _AT_MOST
            )
        ),
    ]
    return [problem for fine, problem in checks if not fine]


def _within(value: Any, interval: str) -> bool:
    low, high = (float(end) for end in interval[1:-1].split(","))
    above = value >= low if interval[0] == "[" else value > low
    return above and (value <= high if interval[-1] == "]" else value < high)


def _same_kind(value: object, default: object) -> bool:
    """Returns whether a value fits its field: an int fits a float, a bool fits no number."""
    if isinstance(default, tuple):
        return isinstance(value, tuple | list) and all(_same_kind(item, 0.0) for item in value)
    if isinstance(default, float):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and math.isfinite(value)
    return type(value) is type(default)
