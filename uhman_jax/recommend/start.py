"""Starts a run's extractor, before anything heavy is imported: it takes the longest to be ready."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from uhman_jax import storage
from uhman_jax.errors import UserError
from uhman_jax.prepare import features_of
from uhman_jax.preprocess import ledger
from uhman_jax.preprocess.on_demand import OnDemand
from uhman_jax.run import read_config


def start_extractor(
    run: str | os.PathLike[str],
    features: str | os.PathLike[str] = "",
    bounds: Mapping[str, Any] | None = None,
) -> OnDemand:
    """The process that encodes clips as those of a run were; see `Recommender.load`.

    Raises:
        UserError: no run, or not the extractor that made its features.
    """
    workdir = storage.path(run)
    try:
        config, facts = read_config(workdir)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            "--run must be the folder of a trained and evaluated run, got "
            f"{os.fspath(run)} without config.json; name another, or train and evaluate it first"
        ) from None
    directory = storage.path(features) if features else features_of(config)
    _check_extractor(directory, facts)
    return OnDemand(directory, dataclasses.replace(config.preprocess, **(bounds or {})))


def _check_extractor(directory: pathlib.Path, facts: dict[str, Any]) -> None:
    """Raises UserError where a folder does not hold the extractor of a run's features."""
    wanted = facts.get("features", {}).get("fingerprint")
    if not wanted:
        raise UserError(
            "clips can be given to a run that was trained on clips, this one was trained on "
            "simulated features; train another, e.g. --config=configs/natural.py"
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


SUFFIXES = (".html", ".png")


def check_output(path: str | os.PathLike[str]) -> pathlib.Path:
    """The path of a page or a picture.

    Raises:
        UserError: it is called otherwise, or its folder is not there.
    """
    output = pathlib.Path(path)
    if output.suffix.lower() not in SUFFIXES:
        raise UserError(
            f"--explain must name a .html or .png file, got {os.fspath(path)!r}; "
            "write e.g. --explain=why.html"
        )
    if not output.parent.is_dir():
        raise UserError(f"--explain must lie in a folder, got none at {output.parent}; make it")
    return output
