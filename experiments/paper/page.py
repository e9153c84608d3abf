"""Writes the study as one self-contained page, and its tables and figures as files."""

import pathlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.paper import claims as claims_lib
from experiments.paper import figures, layout, summary, tables
from experiments.paper.claims import Claim, Verdict
from experiments.paper.drawing import COLORS
from experiments.paper.layout import Table
from experiments.paper.summary import Cell
from uhman_jax.dataset.view import View
from uhman_jax.report.plots import inline_svg
from uhman_jax.report.rendering import render_page
from uhman_jax.report.tables import count
from uhman_jax.run_directory import VIEW
from uhman_jax.runtime.errors import count_of
from uhman_jax.runtime.storage import atomic_write

_TEMPLATES = pathlib.Path(__file__).parent / "templates"


def write_all(
    cells: Sequence[Cell], folder: pathlib.Path, results: pathlib.Path | None = None
) -> list[pathlib.Path]:
    """Writes `tables.md`, every figure with cells, and `study.html`; returns their paths.

    Args:
        cells: finished and failed cells; may be empty.
        folder: folder of the files; created if it does not exist.
        results: folder that the cells' `per_video` paths are relative to; None: `folder`. Fig. 3
            is drawn from `runs/<cell>/<fingerprint>/view.npz` in it; without these files, the page
            shows the figure in `folder`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    results = folder if results is None else results
    found, built = claims_lib.claims(cells, results), tables.build_all(cells, results)
    written = [tables.write_markdown(found, built, folder)]
    written += figures.write_figures(cells, hashtag_counts(cells, results), folder)
    drawn = {path.stem: path.read_text("utf-8") for path in folder.glob("*.svg")}
    with atomic_write(folder / "study.html") as file:
        file.write(render(cells, found, built, drawn).encode("utf-8", "replace"))
    return [*written, folder / "study.html"]


def hashtag_counts(
    cells: Sequence[Cell], results: pathlib.Path
) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns the training uses of hashtags in the natural and the balanced view of one dataset."""
    for world in summary.present(cells, "world", summary.WORLDS):
        counts = []
        for view in summary.PAIR:
            for cell in summary.select(cells, world=world, view=view, world_seed=0):
                path = results / "runs" / cell["cell"] / cell["fingerprint"] / VIEW
                if path.is_file():
                    counts.append(View.load(path).counts_T)
                    break
        if len(counts) == 2:
            return counts[0], counts[1]
    return None


def render(
    cells: Sequence[Cell], found: Sequence[Claim], built: Sequence[Table], drawn: dict[str, str]
) -> str:
    """Returns the page as text, given SVG documents by name."""
    done = summary.select(cells, part=None)
    trained = {cell["fingerprint"]: cell for cell in done}.values()
    models = sum(len(cell["seeds"]) for cell in trained)
    worlds = len({(cell["world"], cell["world_seed"]) for cell in done})
    badges = [count_of(worlds, "world"), f"{len(done)} cells, {count(models)} trained models"]
    if failed := len(cells) - len(done):
        badges.append(f"{count_of(failed, 'cell')} failed")
    judged = [claim for claim in found if claim.verdict != Verdict.MISSING]
    return render_page(
        "study.html",
        _TEMPLATES,
        simulated=any(cell.get("simulated", cell["world"] in summary.WORLDS) for cell in cells),
        badges=badges,
        judged=len(judged),
        verdicts=Counter(claim.verdict.name for claim in judged),
        best=_best(judged),
        claims=tables.build_claims(found) if found else None,
        evidence=tables.build_evidence(found),
        built=built,
        drawn={name: inline_svg(svg, COLORS) for name, svg in drawn.items()},
        settings=_settings(cells),
        hours=sum(cell["seconds"] for cell in trained) / 3600,
    )


def _best(judged: Sequence[Claim]) -> dict[str, str]:
    """Returns the first judged recipe, and a sentence about the worlds in which UHMAN wins."""
    rows = [claim for claim in judged if claim.name == "UHMAN above BL, UA and 3WM, natural"]
    rows = [claim for claim in rows if claim.recipe == rows[0].recipe]
    parts = []
    for verdict, text in (
        (Verdict.HOLDS, "UHMAN beats BL, UA and 3WM"),
        (Verdict.FAILS, "one of them beats it"),
        (Verdict.UNDECIDED, "it is undecided"),
    ):
        if names := [claim.world for claim in rows if claim.verdict == verdict]:
            *others, last = names
            parts.append(f"{text} in: {', '.join(others)}{' and ' * bool(others)}{last}")
    return {"recipe": rows[0].recipe, "text": "; ".join(parts)} if rows else {}


def _settings(cells: Sequence[Cell]) -> list[tuple[str, list[tuple[str, Any]]]]:
    """Returns the size of the data and the shared settings of each world and recipe."""
    found = []
    for world, recipe in summary.settings(cells):
        chosen = summary.select(cells, world=world, view="natural", recipe=recipe)
        if chosen:
            first, *configs = (cell["config"] for cell in chosen)
            keys = ("test_videos", "train_videos", "hashtags")
            titles = ("test videos", "training videos", "hashtags")
            values = [(title, chosen[0][key]) for title, key in zip(titles, keys, strict=True)]
            values += [x for x in first.items() if all(x in config.items() for config in configs)]
            found.append((layout.setting(world, recipe), values))
    return found
