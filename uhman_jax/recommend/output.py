"""What is asked for and where an explanation goes; checked before anything heavy is loaded."""

import os
import pathlib

from uhman_jax import storage
from uhman_jax.errors import UserError

_SUFFIXES = (".html", ".png")


def check_choice(top_k: int, min_confidence: float) -> None:
    """Raises UserError where there can be no such suggestions."""
    if top_k < 1:
        raise UserError(f"top_k must be at least 1, got {top_k}; use e.g. 10")
    if not 0 <= min_confidence <= 1:
        raise UserError(f"min_confidence must be in [0, 1], got {min_confidence}; use e.g. 0.1")


def check_output(path: str | os.PathLike[str]) -> pathlib.Path:
    """The path of a page or a picture.

    Raises:
        UserError: it is called otherwise, is a folder, or its folder is not there.
    """
    output = pathlib.Path(path)
    if output.suffix.lower() not in _SUFFIXES:
        raise UserError(
            f"--explain must name a .html or .png file, got {os.fspath(path)!r}; "
            "write e.g. --explain=why.html"
        )
    if output.is_dir():
        raise UserError(f"--explain must name a file, got the folder {output}; use another name")
    if not output.parent.is_dir():
        raise UserError(f"--explain must lie in a folder, got none at {output.parent}; make it")
    storage.check_folder(output.parent, "the folder of --explain")
    return output
