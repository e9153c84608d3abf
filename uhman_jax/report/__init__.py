"""The report page of a run: what was trained, how good it is and what it looked at.

`write_report(workdir, root)` turns the files of a run directory into one self-contained
`report.html`. Plots are drawn by `plots`, clips by `clips`, and `page` puts them together.
"""

import os
import pathlib

from uhman_jax import storage
from uhman_jax.report.page import render
from uhman_jax.report.run import load_run

__all__ = ["write_report"]


def write_report(
    workdir: str | os.PathLike[str], root: str | os.PathLike[str] | None = None
) -> pathlib.Path:
    """Writes `report.html` into a run directory, whole or not at all.

    Args:
        workdir: folder of a trained and evaluated run.
        root: raw dataset whose clips are drawn as thumbnails; None: attention maps alone.

    Returns:
        Path of the page. It loads nothing from elsewhere and holds no script.

    Raises:
        UserError: a file of the run is missing or damaged.
    """
    workdir = storage.path(workdir)
    page = render(load_run(workdir), None if root is None else storage.path(root))
    path = workdir / "report.html"
    with storage.replacing(path) as file:
        # A path in the settings may hold bytes that are no text; they must not lose the page.
        file.write(page.encode("utf-8", errors="replace"))
    return path
