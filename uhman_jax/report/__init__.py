"""The report page of a run: its settings, its scores and its attention.

`write_report(workdir, root)` makes one self-contained report.html of the files of a run directory.
`page` prepares the values and `templates/report.html` draws them, in the one style of all pages.
"""

import os
import pathlib

from uhman_jax import storage
from uhman_jax.report.examples import read_examples
from uhman_jax.report.page import render
from uhman_jax.run_directory import LOG, REPORT, read_log, read_run, require

__all__ = ["write_report"]


def write_report(
    workdir: str | os.PathLike[str], root: str | os.PathLike[str] | None = None
) -> pathlib.Path:
    """Writes report.html into a run directory, whole or not at all.

    Args:
        workdir: folder of a trained and evaluated run.
        root: raw dataset whose clips are drawn as thumbnails; None: only attention maps.

    Returns:
        Path of the page. It loads nothing and has no script.

    Raises:
        UserError: a file of the run is missing or damaged.
    """
    workdir = storage.path(workdir)
    run = read_run(workdir)
    require(workdir / LOG)
    root = None if root is None else storage.path(root)
    page = render(run, read_log(workdir), read_examples(run), root)
    path = workdir / REPORT
    with storage.atomic_write(path) as file:
        # A path in the settings may hold bytes that are not text; the page is written anyway.
        file.write(page.encode("utf-8", errors="replace"))
    return path
