"""Writes the report page of a run: its scores, curves, attention and settings.

`page` prepares the values and `templates/report.html` renders them; all pages share `style.css`.
"""

import os
import pathlib

from uhman_jax.report.page import render
from uhman_jax.run_directory import LOG, REPORT, read_log, read_run, require
from uhman_jax.runtime import storage

__all__ = ["write_report"]


def write_report(
    workdir: str | os.PathLike[str], root: str | os.PathLike[str] | None = None
) -> pathlib.Path:
    """Writes report.html into a run directory, atomically, and returns its path.

    The page is self-contained and has no script.

    Args:
        workdir: folder of a trained and evaluated run.
        root: raw dataset with the clips of the thumbnails; None: only attention maps.

    Raises:
        UserError: a file of the run is missing or damaged.
    """
    workdir = storage.path(workdir)
    run = read_run(workdir)
    require(workdir / LOG)
    page = render(run, read_log(workdir), None if root is None else storage.path(root))
    path = workdir / REPORT
    with storage.atomic_write(path) as file:
        # A path in the settings may contain bytes that are not UTF-8.
        file.write(page.encode("utf-8", errors="replace"))
    return path
