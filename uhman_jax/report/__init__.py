"""Writes the report page of a run: its scores, curves, attention and settings.

`templates/report.html` renders the values that this module prepares. All pages share `style.css`.
"""

import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

from uhman_jax.config import to_dict
from uhman_jax.dataset.duplicates import describe_copies
from uhman_jax.report import plots
from uhman_jax.report.clips import read_clips
from uhman_jax.report.rendering import render_page
from uhman_jax.report.tables import slice_tables
from uhman_jax.run_directory import LOG, REPORT, FinishedRun, read_log, read_run, require
from uhman_jax.runtime import storage
from uhman_jax.scores import (
    COMPARED,
    ENSEMBLE,
    MODEL,
    Scores,
    System,
    difference,
    is_number,
    read_slices,
    signed,
    verdict,
)

__all__ = ["write_report"]

_HEADLINE = "P@5"
_RATIO = "kP/R"
_TABLES = {
    "P": "Precision: how many of the first k are right",
    "R": "Recall: how many of the clip's hashtags are found",
    "F1": "F1: harmonic mean of precision and recall",
}


def write_report(
    workdir: str | os.PathLike[str], root: str | os.PathLike[str] | None = None
) -> pathlib.Path:
    """Writes report.html into a run directory, atomically, and returns its path.

    The page is self-contained and has no script.

    Args:
        workdir: folder of a trained and evaluated run.
        root: raw dataset, whose clips give the thumbnails; None: only attention maps are drawn.

    Raises:
        UserError: a file of the run is missing or damaged.
    """
    workdir = storage.path(workdir)
    run = read_run(workdir)
    require(workdir / LOG)
    page = _render(run, read_log(workdir), None if root is None else storage.path(root))
    with storage.atomic_write(workdir / REPORT) as file:
        # A path in the settings may contain bytes that are not UTF-8.
        file.write(page.encode("utf-8", errors="replace"))
    return workdir / REPORT


def _render(run: FinishedRun, curve: list[dict[str, Any]], root: pathlib.Path | None) -> str:
    """Returns the page as text; `curve` has one entry per validation, in step order."""
    config, metrics, scores = run.config, run.metrics, run.scores
    reliability, data = metrics.get("reliability"), metrics.get("data") or {}
    select_by, model = config.evaluate.select_by, scores.of(MODEL)
    systems = scores.systems(run.system)
    settings = to_dict(config) | ({"run": run.facts} if run.facts else {})
    return render_page(
        "report.html",
        name=config.name,
        model=run.system,
        metrics=metrics,
        num_seeds=metrics.get("num_seeds", 1),
        scores=scores,
        systems=systems,
        titles={system.key: system.title for system in systems},
        verdict=[_typeset(sentence) for sentence in verdict(scores)],
        compared=COMPARED,
        differences=_differences(scores),
        chosen=metrics.get("references"),
        headline=_HEADLINE,
        full=_full_length(run),
        tables=_metric_tables(model),
        ratios=[name for name in model if name.startswith(_RATIO)],
        seeds={name: score.seeds for name, score in model.items() if len(score.seeds) > 1},
        first_seed=config.seed,
        select_by=select_by,
        curves=curve and [plots.score_curve(curve, select_by), plots.loss_curve(curve)],
        slices=slice_tables(read_slices(metrics.get("slices"))),
        reliability=reliability and list(zip(*map(reliability.get, plots.GROUPS), strict=True)),
        reliability_plot=reliability and plots.reliability_plot(reliability),
        clips=read_clips(run, root),
        data=[(key.replace("_", " "), value) for key, value in _flatten(data)],
        copies=describe_copies(data, config.data.duplicates),
        settings=[(key, str(value)) for key, value in _flatten(settings)],
    )


def _differences(scores: Scores) -> list[tuple[System, list[str]]]:
    """Returns each reference with the formatted differences of the model, in table order."""
    return [
        (system, [_typeset(signed(scores[difference(system.key), name])) for name in COMPARED])
        for system in scores.systems("")
        if scores.of(difference(system.key))
    ]


def _typeset(text: str) -> str:
    r"""Returns a text of the terminal with the signs of a page.

    >>> _typeset("-0.0055 +- 0.0021")
    '−0.0055 ±\u202f0.0021'
    """
    return text.replace("+- ", "±\u202f").replace("-0.", "−0.")


def _full_length(run: FinishedRun) -> float:
    """Returns the score at which a bar of the first figure has full length."""
    model = run.scores[MODEL, _HEADLINE]
    drawn = [run.scores[system.key, _HEADLINE].mean for system in run.scores.systems("")]
    together = run.scores[ENSEMBLE, _HEADLINE]
    drawn += [*model.seeds, model.mean + (model.interval or model.interval_clips or 0)]
    drawn.append(together.mean + (together.interval_clips or 0))
    return 1.04 * max(filter(is_number, drawn), default=0) or 1.0


def _metric_tables(names: Iterable[str]) -> list[tuple[str, list[str]]]:
    """Returns the title and the metrics of each table."""
    tables: dict[str, list[str]] = {title: [] for title in (*_TABLES.values(), "Whole ranking")}
    for name in names:
        if not name.startswith(_RATIO):
            tables[_TABLES.get(name.partition("@")[0], "Whole ranking")].append(name)
    return [table for table in tables.items() if table[1]]


def _flatten(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the leaves of nested dicts with dotted keys."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
