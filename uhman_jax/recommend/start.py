"""Checks arguments and starts the extractor of a run, without the slow import of JAX."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from uhman_jax.prepare import features_dir
from uhman_jax.preprocess import ledger
from uhman_jax.preprocess.feature_client import OnDemand
from uhman_jax.relative_paths import located
from uhman_jax.run_directory import CONFIG, read_config, require, which_seed
from uhman_jax.runtime import storage
from uhman_jax.runtime.errors import UserError


def check_choice(top_k: int, min_confidence: float) -> None:
    """Raises UserError if `top_k` or `min_confidence` is out of range."""
    if top_k < 1:
        raise UserError(f"top_k must be at least 1, got {top_k}; use e.g. 10")
    if not 0 <= min_confidence <= 1:
        raise UserError(f"min_confidence must be in [0, 1], got {min_confidence}; use e.g. 0.1")


def check_output(path: str | os.PathLike[str]) -> pathlib.Path:
    """Checks and returns the path of an explanation to write.

    Raises:
        UserError: the suffix is wrong, the path is a folder, or its folder is missing or read-only.
    """
    output = pathlib.Path(path)
    if output.suffix.lower() not in (".html", ".png"):
        raise UserError(
            f"--explain must name a .html or .png file, got {os.fspath(path)!r}; "
            "write e.g. --explain=why.html"
        )
    if output.is_dir():
        raise UserError(f"--explain must name a file, got the folder {output}; use another name")
    if not output.parent.is_dir():
        raise UserError(
            f"--explain must be in an existing folder, got {output.parent}; create the folder"
        )
    storage.check_folder(output.parent, "the folder of --explain")
    return output


def start_extractor(
    run: str | os.PathLike[str],
    features: str | os.PathLike[str] = "",
    bounds: Mapping[str, Any] | None = None,
    first: Sequence[str] = (),
    seed: int | None = None,
) -> OnDemand:
    """Starts the process that encodes clips with a run's extractor; see `Recommender.load`.

    It begins with the clips `first` at once; the first request must ask for these clips.

    Raises:
        UserError: there is no such run or seed, or the extractor differs from the run's.
    """
    workdir = storage.path(run)
    require(workdir / CONFIG)
    config, facts = read_config(workdir)
    which_seed(config, seed)
    if features:
        directory = storage.path(features)
    else:
        directory = features_dir(located(config, facts, workdir))
    _check_extractor(directory, facts)
    return OnDemand(directory, dataclasses.replace(config.preprocess, **(bounds or {})), first)


def _check_extractor(directory: pathlib.Path, facts: dict[str, Any]) -> None:
    expected = facts.get("features", {}).get("fingerprint")
    if not expected:
        raise UserError(
            "suggestions need a run that was trained on clips, got one that was trained on "
            "simulated features; train another with uhman_jax.main --config=configs/natural.py"
        )
    if not (directory / ledger.SETTINGS_FILE).exists():
        raise UserError(
            "suggestions need the extractor that made the run's features, got none in "
            f"{directory}; name the features folder with --features"
        )
    found = str(ledger.read_json(directory / ledger.SETTINGS_FILE).get("fingerprint"))
    if found != expected:
        raise UserError(
            f"the extractor must have the run's fingerprint {expected[:12]}, got {found[:12]} in "
            f"{directory}; name another folder with --features"
        )
