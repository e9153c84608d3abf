"""Prepares the values of the report page and renders it."""

import pathlib
from typing import Any

from uhman_jax.config import to_dict
from uhman_jax.dataset.duplicates import describe_copies
from uhman_jax.report import plots
from uhman_jax.report.clips import read_clips
from uhman_jax.report.rendering import render_page
from uhman_jax.report.tables import slice_tables
from uhman_jax.run_directory import FinishedRun
from uhman_jax.scores import MODEL, is_number, read_slices

_HEADLINE = "P@5"
_RATIO = "kP/R"
_TABLES = {
    "P": "Precision: how many of the first k are right",
    "R": "Recall: how many of the clip's hashtags are found",
    "F1": "F1: both in one number",
}


def render(run: FinishedRun, curve: list[dict[str, Any]], root: pathlib.Path | None) -> str:
    """Returns the page as text; see `write_report`.

    `curve` has one entry per validation, in step order.
    """
    config, metrics, scores = run.config, run.metrics, run.scores
    reliability, data = metrics.get("reliability"), metrics.get("data") or {}
    settings = to_dict(config) | ({"run": run.facts} if run.facts else {})
    return render_page(
        "report.html",
        name=config.name,
        model=run.system,
        metrics=metrics,
        num_seeds=metrics.get("num_seeds", 1),
        scores=scores,
        systems=scores.systems(run.system),
        headline=_HEADLINE,
        full=_full_length(run),
        tables=_metric_tables(list(scores.of(MODEL))),
        ratios=[name for name in scores.of(MODEL) if name.startswith(_RATIO)],
        seeds={name: x.seeds for name, x in scores.of(MODEL).items() if len(x.seeds) > 1},
        first_seed=config.seed,
        select_by=config.evaluate.select_by,
        curves=[plots.score_curve(curve, config.evaluate.select_by), plots.loss_curve(curve)]
        if curve
        else [],
        slices=slice_tables(read_slices(metrics.get("slices"))),
        reliability=reliability and list(zip(*map(reliability.get, plots.GROUPS), strict=True)),
        reliability_plot=reliability and plots.reliability_plot(reliability),
        clips=read_clips(run, root),
        data=[(key.replace("_", " "), value) for key, value in _flatten(data)],
        copies=describe_copies(data, config.data.duplicates),
        settings=[(key, str(value)) for key, value in _flatten(settings)],
    )


def _full_length(run: FinishedRun) -> float:
    """Returns the value of a bar of full length in the first figure."""
    model = run.scores[MODEL, _HEADLINE]
    drawn = [run.scores[system.key, _HEADLINE].mean for system in run.scores.systems("")]
    drawn += [*model.seeds, model.mean + (model.interval or 0)]
    return 1.04 * max(filter(is_number, drawn), default=0) or 1.0


def _metric_tables(names: list[str]) -> list[tuple[str, list[str]]]:
    """Returns the title and the metrics of each table."""
    kinds = {name: name.partition("@")[0] for name in names}
    tables = [
        (title, [name for name in names if kinds[name] == kind]) for kind, title in _TABLES.items()
    ]
    others = [name for name in names if kinds[name] not in (*_TABLES, _RATIO)]
    return [table for table in (*tables, ("Whole ranking", others)) if table[1]]


def _flatten(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Returns the leaves of nested dicts with dotted keys."""
    leaves = []
    for key, value in tree.items():
        nested = isinstance(value, dict)
        leaves += _flatten(value, f"{prefix}{key}.") if nested else [(prefix + key, value)]
    return leaves
