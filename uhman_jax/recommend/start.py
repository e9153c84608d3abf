"""Starts a run's extractor before heavy imports: it takes the longest to be ready."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from uhman_jax import storage
from uhman_jax.errors import UserError
from uhman_jax.located import located
from uhman_jax.prepare import features_dir
from uhman_jax.preprocess import ledger
from uhman_jax.preprocess.feature_client import OnDemand
from uhman_jax.run_directory import CONFIG, read_config, require, which_seed


def start_extractor(
    run: str | os.PathLike[str],
    features: str | os.PathLike[str] = "",
    bounds: Mapping[str, Any] | None = None,
    first: Sequence[str] = (),
    seed: int | None = None,
) -> OnDemand:
    """Starts the process that encodes clips with a run's extractor; see `Recommender.load`.

    It starts with the clips `first` at once; they must be its first request.

    Raises:
        UserError: no run, no such seed, or not the extractor that made its features.
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
    """Raises UserError if a folder does not hold the extractor of a run's features."""
    wanted = facts.get("features", {}).get("fingerprint")
    if not wanted:
        raise UserError(
            "clips can be given to a run that was trained on clips, this one was trained on "
            "simulated features; train another with uhman_jax.main --config=configs/natural.py"
        )
    if not (directory / ledger.SETTINGS_FILE).exists():
        raise UserError(
            "suggestions need the extractor that made the run's features, got none in "
            f"{directory}; name their folder with --features"
        )
    settings = ledger.read_json(directory / ledger.SETTINGS_FILE)
    if settings.get("fingerprint") != wanted:
        raise UserError(
            f"the extractor must be the run's, of fingerprint {wanted[:12]}, got "
            f"{str(settings.get('fingerprint'))[:12]} in {directory}; name another with --features"
        )
