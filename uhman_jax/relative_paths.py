"""Resolves the relative paths of a run's settings, for a command started in any folder.

The settings keep the paths as the user wrote them, so that equal runs have equal settings.
`config.json` also stores the folder in which the run began.
"""

import copy
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from uhman_jax.config import Config
from uhman_jax.prepare import dataset_root, features_dir
from uhman_jax.runtime.errors import UserError

FOLDER = "folder"  # key in config.json, beside the settings
PATHS = ("data.root", "data.simulated_dir", "preprocess.output_dir", "preprocess.weights")
_NO_FILES = ("random", "imagenet")  # weights


def located(config: Config, facts: dict[str, Any], workdir: pathlib.Path) -> Config:
    """Returns a run's settings with absolute paths.

    Relative paths start from the first of these folders in which the features exist, or else the
    dataset: the folder where the run began, the working folder, the run directory, its parents. If
    none fits, they start from the first folder. A new run uses the working folder.

    Args:
        config: settings of the run.
        facts: the other data in its config.json; empty for a new run.
        workdir: the run directory.

    Raises:
        UserError: the settings name weights that cannot be read.
    """
    candidates = [_based(config, folder) for folder in dict.fromkeys(_folders(facts, workdir))]
    for find in (features_dir, dataset_root):
        for candidate in candidates:
            try:
                if find(candidate).is_dir():
                    return candidate
            except UserError:  # the weights are missing
                continue
    return candidates[0]


def same_path(one: str, folder: str, other: str) -> bool:
    """Returns whether `one` relative to `folder` is `other` relative to the working folder.

    >>> same_path("data", os.getcwd(), "./data"), same_path("", os.getcwd(), "data")
    (True, False)
    """
    if not one or not other or "://" in one + other:
        return one == other
    return os.path.realpath(os.path.join(folder, one)) == os.path.realpath(other)


def _folders(facts: dict[str, Any], workdir: pathlib.Path) -> Iterator[str]:
    if folder := facts.get(FOLDER):
        yield str(folder)
    yield os.getcwd()
    if facts and "://" not in str(workdir):
        run = pathlib.Path(os.path.abspath(workdir))
        yield from map(str, (run, *run.parents))


def _based(config: Config, folder: str) -> Config:
    """Returns a copy of the settings with absolute paths; relative ones start from a folder."""
    config = copy.deepcopy(config)
    for path in PATHS:
        section, name = path.split(".")
        value = getattr(getattr(config, section), name)
        if value and "://" not in value and (name != "weights" or value not in _NO_FILES):
            setattr(getattr(config, section), name, os.path.join(folder, value))
    return config
