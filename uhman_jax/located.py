"""Where the relative paths of a run's settings lead, from whatever folder a command is started.

The settings keep the paths as a person wrote them, so that equal runs have equal settings;
`config.json` also names the folder that they started from.
"""

import dataclasses
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from uhman_jax.config import Config
from uhman_jax.errors import UserError
from uhman_jax.prepare import features_of, root_of

FOLDER = "folder"  # key of what config.json says besides the settings
PATHS = ("data.root", "data.simulated_dir", "preprocess.output_dir", "preprocess.weights")
_WEIGHTS = ("", "random", "imagenet")  # no paths


def located(config: Config, facts: dict[str, Any], workdir: pathlib.Path) -> Config:
    """A run's settings with absolute paths, those where its features or else its dataset are.

    These folders are tried in turn: where the run began, the working folder, and the run directory
    with all folders around it. Where none has them, paths are those of the first. The paths of a
    new run start from the working folder.

    Args:
        config: of the run.
        facts: what its config.json says besides; empty for a new run.
        workdir: the run directory.

    Raises:
        UserError: the settings name weights that cannot be read.
    """
    candidates: list[Config] = []
    for folder in _folders(facts, workdir):
        if (candidate := _based(config, folder)) not in candidates:
            candidates.append(candidate)
    for place in (features_of, root_of):
        for candidate in candidates:
            try:
                if place(candidate).is_dir():
                    return candidate
            except UserError:  # the weights are not there
                continue
    return candidates[0]


def same_path(one: str, folder: str, other: str) -> bool:
    """Whether a path, seen from a folder, and another, seen from the working folder, are one.

    >>> same_path("data", os.getcwd(), "./data"), same_path("", os.getcwd(), "data")
    (True, False)
    """
    if not one or not other or "://" in one + other:
        return one == other
    return os.path.realpath(os.path.join(folder, one)) == os.path.realpath(other)


def _folders(facts: dict[str, Any], workdir: pathlib.Path) -> Iterator[str]:
    if began := facts.get(FOLDER):
        yield str(began)
    yield os.getcwd()
    if facts and "://" not in str(workdir):
        run = pathlib.Path(os.path.abspath(workdir))
        yield from map(str, (run, *run.parents))


def _based(config: Config, folder: str) -> Config:
    """The settings as seen from a folder."""

    def based(path: str) -> str:
        return path if not path or "://" in path else os.path.join(folder, path)

    data, preprocess = config.data, config.preprocess
    weights = preprocess.weights
    return dataclasses.replace(
        config,
        data=dataclasses.replace(
            data, root=based(data.root), simulated_dir=based(data.simulated_dir)
        ),
        preprocess=dataclasses.replace(
            preprocess,
            output_dir=based(preprocess.output_dir),
            weights=weights if weights in _WEIGHTS else based(weights),
        ),
    )
