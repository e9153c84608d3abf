"""Checks types, ranges and combinations of the fields of a config; formats fields for messages."""

import difflib
import enum
import math
from collections.abc import Iterator
from typing import Any

from uhman_jax.config import Config, Decay, Features, SimulatorConfig, flatten, kind_of, ranges
from uhman_jax.runtime.errors import UserError

SCORES = tuple(f"{name}@{k}" for name in ("P", "R", "F1") for k in (1, 5, 10, 50))
SCORES += ("NDCG@10", "MRR", "MAP")


def validate(config: Config) -> None:
    """Checks every field before any work.

    Raises:
        UserError: one line per wrong field with the rule, the value and the remedy.
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
    if problems := problems or list(_broken_rules(config)):
        raise UserError("\n".join(problems))


def _broken_rules(config: Config) -> Iterator[str]:
    """Yields a message for each broken rule about several fields or a string."""
    values, data, fractions = flatten(config), config.data, list(config.train.decay_at)
    if config.name in ("", ".", "..") or set(config.name) & set("/\\\0"):
        yield f"name must be a plain folder name, got {config.name!r}; write e.g. natural"
    for part, whole, remedy in (
        ("model.num_heads", "model.hidden_size", ""),
        ("train.microbatch_size", "train.batch_size", ", or 0 for an automatic size"),
    ):
        if values[part] and values[whole] % values[part]:
            yield (
                f"{part} must divide {whole} {values[whole]}, got {values[part]}; "
                f"use e.g. {math.gcd(values[whole], values[part])}{remedy}"
            )
    if fractions != sorted(set(fractions)) or not all(0 < x < 1 for x in fractions):
        yield (
            "train.decay_at must be increasing fractions of the run between 0 and 1, got "
            f"{config.train.decay_at}; use e.g. (0.6, 0.85)"
        )
    if config.train.stop_after and config.train.decay is Decay.COSINE:
        yield (
            "train.stop_after must be 0 with train.decay=cosine, which falls over all epochs, got "
            f"{config.train.stop_after}; use 0, or --config.train.decay=plateau"
        )
    if config.evaluate.select_by not in SCORES:
        yield (
            f"evaluate.select_by must be one of {' '.join(SCORES)}, got "
            f"{config.evaluate.select_by!r}; use e.g. P@10"
        )
    if not config.preprocess.weights:
        yield "preprocess.weights must be imagenet, random or a Keras .h5 file, got ''; use random"
    if not data.root and not data.simulated_dir:
        yield "data.simulated_dir must name a folder if data.root is empty, got ''; use data"
    if "://" in data.simulated_dir:
        yield (
            "data.simulated_dir must be a local folder, because clips are rendered there, got "
            f"{data.simulated_dir!r}; copy a simulated dataset to the bucket and name it in "
            "data.root"
        )
    yield from _broken_simulator_rules(config.simulator)


def _broken_simulator_rules(simulator: SimulatorConfig) -> Iterator[str]:
    least = simulator.num_classes + simulator.num_generic
    if simulator.num_hashtags < least:
        yield (
            f"simulator.num_hashtags must be at least num_classes {simulator.num_classes} and "
            f"num_generic {simulator.num_generic} together, got {simulator.num_hashtags}; "
            f"use {least} or more"
        )
    for name, limit in (
        ("objects_per_clip", "num_classes"),
        ("frames_per_object", "num_frames"),
        ("min_seconds", "max_seconds"),
    ):
        if (value := getattr(simulator, name)) > (most := getattr(simulator, limit)):
            yield (
                f"simulator.{name} must be at most {limit} {most}, got {value}; use a smaller "
                f"value or a larger {limit}"
            )


def _within(value: Any, interval: str) -> bool:
    low, high = (float(end) for end in interval[1:-1].split(","))
    above = value >= low if interval[0] == "[" else value > low
    return above and (value <= high if interval[-1] == "]" else value < high)


def _same_kind(value: object, default: object) -> bool:
    """Returns whether a value fits its field; an int fits a float, a bool fits no number."""
    if isinstance(default, tuple):
        return isinstance(value, tuple | list) and all(_same_kind(item, 0.0) for item in value)
    if isinstance(default, float):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and math.isfinite(value)
    return type(value) is type(default)


def flag_text(value: object) -> str:
    """Formats a value as a flag takes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value.value) if isinstance(value, enum.Enum) else str(value) or "''"


def flag_rule(path: str) -> tuple[str, str]:
    """Returns the rule of the setting at a path and an example flag, for error messages."""
    default = flatten(Config())[path]
    return f"--config.{path} must be {kind_of(default)}", f"--config.{path}={flag_text(default)}"


def nearest_field(path: str) -> str:
    """Returns the setting most similar to a misspelt path, by whole paths and last names."""

    def likeness(candidate: str) -> float:
        last_names = path.rsplit(".", 1)[-1], candidate.rsplit(".", 1)[-1]
        pairs = (path, candidate), last_names
        return sum(difflib.SequenceMatcher(None, *pair).ratio() for pair in pairs)

    return max(flatten(Config()), key=likeness)


def differences(before: Config, now: Config) -> list[str]:
    """Describes each field that differs, e.g. `train.batch_size: 32 before, 64 now`."""
    old, new = flatten(before), flatten(now)
    return [
        f"{path}: {flag_text(old[path])} before, {flag_text(new[path])} now"
        for path in new
        if old[path] != new[path]
    ]


def check_mesh(config: Config, shape: tuple[int, int] | None) -> None:
    """Raises UserError if settings do not fit a device mesh.

    Args:
        config: a valid config.
        shape: numbers of devices along the mesh axes `data` and `model`; None: no mesh.
    """
    if not shape:
        return
    data, model = shape
    for path in ("train.batch_size", "evaluate.batch_size"):
        if (size := flatten(config)[path]) % data:
            raise UserError(
                f"{path} must be a multiple of the {data} devices that share a "
                f"batch, got {size}; use e.g. {-(-size // data) * data}"
            )
    if config.train.features is Features.DEVICE:
        raise UserError(
            "train.features=device needs a run on one device, got a mesh of "
            f"{data * model}; use auto or stream, or leave --mesh out"
        )
