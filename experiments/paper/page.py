"""The study as one self-contained page, and everything that the study writes in one go."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.paper import captions, figures, html, layout, summary, tables
from experiments.paper import claims as claims_lib
from experiments.paper.claims import Claim, Verdict
from experiments.paper.layout import Table
from experiments.paper.summary import Cell
from uhman_jax import __version__
from uhman_jax.dataset.view import View
from uhman_jax.report.document import document
from uhman_jax.report.markup import Child, Markup, element
from uhman_jax.report.tables import count
from uhman_jax.run_directory import VIEW
from uhman_jax.storage import atomic_write


def write_all(
    cells: Sequence[Cell],
    folder: str | pathlib.Path,
    results: str | pathlib.Path | None = None,
) -> list[pathlib.Path]:
    """Writes `tables.md`, every figure that has cells, and `study.html`; returns what was written.

    Args:
        cells: finished ones, also failed ones; none at all is fine.
        folder: where the files go; made if it is not there.
        results: folder that the cells' `per_video` paths are relative to; None: `folder`. Fig. 3
            is drawn from `runs/<cell>/<fingerprint>/view.npz` in it, where there is one.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    results = folder if results is None else pathlib.Path(results)
    found, built = claims_lib.claims(cells, results), tables.build_all(cells, results)
    written = [tables.write_markdown(found, built, folder)]
    counts = hashtag_counts(cells, results)
    if counts:
        written += figures.hashtags(*counts, folder)
    written += figures.write_figures(cells, folder)
    return [*written, _write(cells, found, built, folder)]


def write_page(
    cells: Sequence[Cell],
    folder: str | pathlib.Path,
    results: str | pathlib.Path | None = None,
) -> pathlib.Path:
    """Writes `study.html` with the figures that `folder` holds as SVG; arguments of `write_all`."""
    folder = pathlib.Path(folder)
    results = folder if results is None else results
    found, built = claims_lib.claims(cells, results), tables.build_all(cells, results)
    return _write(cells, found, built, folder)


def hashtag_counts(
    cells: Sequence[Cell], results: str | pathlib.Path
) -> tuple[np.ndarray, np.ndarray] | None:
    """Training uses of the hashtags of one world, natural and balanced, from the runs' views."""
    for world in summary.present(cells, "world", summary.WORLDS):
        counts = []
        for view in ("natural", "balanced"):
            for cell in summary.select(cells, world=world, view=view):
                run = pathlib.Path(results) / "runs" / cell["cell"] / cell.get("fingerprint", "")
                if cell["world_seed"] == 0 and (run / VIEW).is_file():
                    counts.append(View.load(run / VIEW).counts_T)
                    break
        if len(counts) == 2:
            return counts[0], counts[1]
    return None


def _write(cells, found, built, folder: pathlib.Path) -> pathlib.Path:
    page = render(cells, found, built, {p.stem: p.read_text("utf-8") for p in _drawn(folder)})
    with atomic_write(folder / "study.html") as file:
        file.write(page.encode("utf-8", "replace"))
    return folder / "study.html"


def _drawn(folder: pathlib.Path) -> list[pathlib.Path]:
    return [
        path for path in (folder / f"{name}.svg" for name in captions.CAPTIONS) if path.is_file()
    ]


def render(
    cells: Sequence[Cell],
    found: Sequence[Claim],
    built: Sequence[Table],
    drawn: dict[str, str],
) -> str:
    """The whole page as text; `drawn` holds SVG documents by name."""
    parts = [
        _header(cells, found),
        _claims(found),
        _how_to_read(cells),
        _part(
            "The systems side by side",
            _figure(drawn, "systems"),
            _folded("P@10 in numbers", built, "overview"),
        ),
        _part("Tables 1 to 3", _by_setting(built, "main")),
        _part(
            "Sizes",
            [_figure(drawn, name) for name in ("figure4a", "figure4b", "sample_size")],
            _folded("Fig. 4 in numbers", built, "sweep"),
            _folded("More training videos in numbers", built, "sizes"),
        ),
        _part(
            "Attention",
            _figure(drawn, "attention"),
            _folded("Attention in numbers", built, "attention"),
        ),
        _part("What the recipe is worth", _by_setting(built, "recipe")),
        _part("Later clips, new users", _by_setting(built, "views")),
        _part("Who and what is hard", _by_setting(built, "slices")),
        _part("The data", _figure(drawn, "figure3")),
        _settings(cells),
    ]
    return document("UHMAN, measured again", parts, css=html.CSS)


def _part(title: str, *children: Child) -> Markup | None:
    """A section, or nothing where it would be empty."""
    if not any(children):
        return None
    return element("section", element("h2", title), children, class_="part")


def _text(text: str, css: str | None = None) -> Markup:
    return element("p", text, class_=css)


def _trained(cells: Sequence[Cell]) -> list[Cell]:
    """Cells without those that were given the row of another with equal settings."""
    return list({cell.get("fingerprint") or cell["cell"]: cell for cell in cells}.values())


def _header(cells: Sequence[Cell], found: Sequence[Claim]) -> Markup:
    simulated = any(cell.get("simulated", cell["world"] in summary.WORLDS) for cell in cells)
    done = summary.select(cells, part=None)
    models = sum(len(cell.get("seeds") or []) for cell in _trained(done))
    worlds = len({(cell["world"], cell["world_seed"]) for cell in done})
    badges = [
        element("li", "Simulated data", class_="simulated")
        if simulated
        else element("li", "Real data"),
        element("li", f"{worlds} world{'s' * (worlds != 1)}"),
        element("li", f"{len(done)} cells, {count(models)} trained models"),
    ]
    if len(done) < len(cells):
        failed = len(cells) - len(done)
        badges.append(element("li", f"{failed} cell{'s' * (failed != 1)} failed"))
    return element(
        "header",
        _text("Hashtag recommendation for micro-videos · the paper's study", "eyebrow"),
        element("h1", "UHMAN, measured again"),
        element("ul", badges, class_="badges"),
        _text(_lead(found), "lead"),
    )


def _lead(found: Sequence[Claim]) -> str:
    """What came out, in one or two sentences."""
    counts = {verdict: sum(claim.verdict == verdict for claim in found) for verdict in Verdict}
    judged = len(found) - counts[Verdict.MISSING]
    if not judged:
        return "No claim of the paper can be judged yet."
    return (
        f"Of {judged} checks of what the paper says, each claim in every world and under every way "
        f"of training that was run, {counts[Verdict.HOLDS]} hold, {counts[Verdict.FAILS]} do not "
        f"and {counts[Verdict.UNDECIDED]} are undecided. {_best(found)}"
    )


def _best(found: Sequence[Claim]) -> str:
    """Where UHMAN beats the three others, under the first recipe that was judged."""
    name = "UHMAN above BL, UA and 3WM, natural"
    rows = [c for c in found if c.name == name and c.verdict != Verdict.MISSING]
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
    return f"Recipe {rows[0].recipe}, natural distribution: {'; '.join(parts)}." if rows else ""


def _claims(found: Sequence[Claim]) -> Markup | None:
    """All verdicts at a glance, and the numbers behind them folded away by setting."""
    if not found:
        return None
    settings = list(dict.fromkeys((claim.world, claim.recipe) for claim in found))
    evidence = []
    for world, recipe in settings:
        rows = [c for c in found if (c.world, c.recipe) == (world, recipe)]
        rows = [claim for claim in rows if claim.verdict != Verdict.MISSING]
        if rows:
            summary_line = element("summary", f"In numbers: {layout.setting(world, recipe)}")
            table = html.bare_table(tables.build_evidence(rows))
            evidence.append(element("details", summary_line, table))
    overview = html.bare_table(tables.build_claims(found))
    text = (
        "A column is a world and a recipe. A claim holds when every comparison that it makes is "
        "settled its way, does not hold when one is settled the other way, and is undecided else; "
        "a dash was not measured."
    )
    card = element("div", overview, class_="card")
    return _part("Does it hold?", _text(text), card, _fold(evidence))


def _fold(details: Sequence[Markup]) -> Markup | None:
    """Folded pieces under each other in one card."""
    return element("div", details, class_="card fold") if details else None


def _how_to_read(cells: Sequence[Cell]) -> Markup | None:
    if not cells:
        return None
    rows = [(element("dt", word), element("dd", meaning)) for word, meaning in captions.GLOSSARY]
    summary_line = element("summary", "How to read this page")
    return element("details", summary_line, element("dl", rows, class_="glossary"), class_="card")


def _figure(drawn: dict[str, str], name: str) -> Markup | None:
    if name not in drawn:
        return None
    title, text = captions.CAPTIONS[name]
    return element(
        "figure",
        element("figcaption", title),
        element("div", html.inline_svg(drawn[name], title), class_="scroll"),
        _text(text, "note"),
        class_="card",
    )


def _by_setting(built: Sequence[Table], kind: str) -> Markup | None:
    """The tables of a kind, folded by world and recipe; the first ones are open."""
    chosen = [table for table in built if table.kind == kind]
    folded = []
    for setting in dict.fromkeys(table.setting for table in chosen):
        own = [html.table_figure(table) for table in chosen if table.setting == setting]
        summary_line = element("summary", setting[0].upper() + setting[1:])
        folded.append(element("details", summary_line, own, open=not folded))
    return _fold(folded)


def _folded(title: str, built: Sequence[Table], kind: str) -> Markup | None:
    own = [html.table_figure(table) for table in built if table.kind == kind]
    return element("details", element("summary", title), own, class_="card") if own else None


def _settings(cells: Sequence[Cell]) -> Markup | None:
    """What all cells of a world and recipe share, and what each system has of its own."""
    cards = []
    for world, recipe in summary.settings(cells):
        chosen = summary.select(cells, world=world, view="natural", recipe=recipe)
        configs = [cell.get("config") or {} for cell in chosen]
        if not configs:
            continue
        shared = {
            key: value
            for key, value in configs[0].items()
            if all(config.get(key) == value for config in configs)
        }
        rows: dict[str, Any] = {
            "test videos": chosen[0].get("test_videos"),
            "training videos": chosen[0].get("train_videos"),
            "hashtags": chosen[0].get("hashtags"),
            **shared,
        }
        facts = [
            element("div", element("dt", key), element("dd", count(value)))
            for key, value in rows.items()
            if value is not None
        ]
        summary_line = element("summary", f"Settings: {layout.setting(world, recipe)}")
        shared_list = element("dl", facts, class_="facts")
        cards.append(element("details", summary_line, shared_list))
    hours = sum(cell.get("seconds") or 0 for cell in _trained(cells)) / 3600
    note = f"{hours:.1f} hours of training. Written by uhman_jax {__version__}."
    text = "What differs from the defaults of uhman_jax.config and is the same for all systems."
    return _part("Settings", _text(text) if cards else None, _fold(cards), _text(note, "note"))
