"""The study's tables: as data for the page, and as Markdown.

    main_table(cells, world="selection", view="natural", recipe="plus")  # Table 1, Markdown
    write_markdown(claims(cells), build_all(cells), folder)              # all of them: tables.md

What was not measured is a dash. Numbers of the paper stand in columns of their own: they are of
another data set.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

from experiments.paper import published, summary
from experiments.paper.breakdowns import (
    build_attention,
    build_recipe,
    build_samples,
    build_slices,
    build_sweep,
)
from experiments.paper.claims import Claim, Verdict, corrected, p_text, signed
from experiments.paper.layout import Entry, Row, Table, markdown, score, setting, share
from experiments.paper.overview import build_gaps, build_overview
from experiments.paper.stats import MIN_WORLDS
from experiments.paper.summary import Cell
from uhman_jax.storage import replacing

INTRODUCTION = """# The paper's tables, measured again

All numbers but those in columns headed "paper" are of test videos, every hashtag ranked. Worlds are
simulated, so the paper's values cannot be met, only its order and its trends.
"""
ABLATIONS = (
    "(a): mean over regions. (b): mean over frames. (c), not in the paper: attention that is the "
    "same for all users."
)
TITLES = {
    "natural": "Table 1: natural distribution",
    "balanced": "Table 2: balanced distribution",
    "temporal": "The latest clips, after training on earlier ones",
    "cold_user": "Clips by users who were never seen in training",
}
BASELINES = ("BL", "UA", "3WM", "UHMAN")
TOPS = ("oracle", "observable_oracle")  # whose P@10 a system's is a share of
ABLATION = ("UHMAN(a)", "UHMAN(b)", "UHMAN(c)", "UHMAN")


def main_table(cells: Sequence[Cell], **where: Any) -> str:
    """Table 1, 2 or (`systems=ABLATION`) 3 as Markdown; `where` is `build_main`'s."""
    return markdown(build_main(cells, **where))


def build_main(
    cells: Sequence[Cell],
    *,
    world: str,
    view: str,
    recipe: str,
    systems: Sequence[str] = BASELINES,
    results: str | pathlib.Path = ".",
) -> Table:
    """Systems and references beside the paper's numbers.

    Args:
        cells: finished ones; those for "tables" of the world, view and recipe are used.
        world: kind of world.
        view: "natural" is Table 1, "balanced" Table 2.
        recipe: how the systems were trained.
        systems: rows, UHMAN the last of them; p is of UHMAN against each other one.
        results: folder that the cells' `per_video` paths are relative to.
    """
    fitting = summary.select(cells, world=world, view=view, recipe=recipe)
    rows = {name: [cell for cell in fitting if cell["system"] == name] for name in systems}
    others = [name for name in systems if name != "UHMAN"]
    pairs = [(name, rows[name], "UHMAN", rows.get("UHMAN", [])) for name in others]
    steps = {step.low: step for step in corrected(pairs, results)}
    ablation = tuple(systems) == ABLATION
    metrics = [m for m in published.METRICS if not (ablation and m.endswith("50"))]
    printed = view in ("natural", "balanced")
    num_worlds = len({cell["world_seed"] for cell in fitting})
    body = []
    for name in systems:
        scores = [score(summary.estimate(rows[name], metric)) for metric in metrics]
        shares = [share(summary.share(rows[name], top)) for top in TOPS]
        step = steps.get(name)
        test = Entry(p_text(step.p), signed(step.gap.mean)) if step and step.gap else Entry()
        test = Entry("") if name == "UHMAN" else test
        paper = [Entry(published.printed(view, name, m) or "–") for m in metrics if printed]
        kind = "model" if name == "UHMAN" else "system"
        label = name + _worlds_of(rows[name], num_worlds)
        body.append(Row(label, (*scores, *shares, test, *paper), kind))
    for name in [] if ablation else _references(fitting):
        scores = [score(summary.reference(fitting, name, metric)) for metric in metrics]
        shares = [share(summary.reference_share(fitting, name, top)) for top in TOPS]
        blanks = [Entry("")] * (1 + (len(metrics) if printed else 0))
        body.append(Row(summary.REFERENCES[name], (*scores, *shares, *blanks), "reference"))
    title = "Table 3: ablation, natural distribution" if ablation else TITLES.get(view, view)
    columns = (*metrics, "P@10 of oracle's", "of observable oracle's", "p, UHMAN − row")
    return Table(
        kind="main" if printed else "views",
        title=title,
        setting=setting(world, recipe),
        columns=columns + (tuple(metrics) if printed else ()),
        rows=tuple(body),
        notes=tuple(_main_notes(cells, fitting, world, view, recipe, ablation)),
        paper=len(metrics) if printed else 0,
    )


def _worlds_of(cells: Sequence[Cell], num_worlds: int) -> str:
    """Says so where a row lacks some of the table's worlds."""
    return f" ({len(cells)} of {num_worlds} worlds)" if 0 < len(cells) < num_worlds else ""


def _references(cells: Sequence[Cell]) -> list[str]:
    return [name for name in summary.REFERENCES if summary.reference(cells, name, "P@10")]


def _main_notes(cells, fitting, world, view, recipe, ablation) -> list[str]:
    """What the numbers are means over, and what is not there."""
    if not fitting:
        notes = ["Nothing was measured for this table yet."]
    else:
        worlds = len({cell["world_seed"] for cell in fitting})
        seeds = sorted({len(cell.get("seeds") or []) for cell in fitting})
        many = f"{worlds} worlds" if worlds > 1 else "1 world"
        models = f"{' or '.join(map(str, seeds))} seeds each" if seeds != [1] else "one seed each"
        over = "worlds" if worlds >= MIN_WORLDS else "seeds"
        notes = [
            f"{many}, {models}; ± is the 95 % interval over {over}. p: P@10 of UHMAN against the "
            "row, sign-flip test over videos, Holm."
        ]
    if ablation:
        notes.append(ABLATIONS)
    if view in ("natural", "balanced"):
        notes.append("Paper: Musical.ly, another data set; compare the order, not the values.")
    for cell in summary.select(cells, world=world, view=view, recipe=recipe, failed=True):
        reason = cell.get("failed") or "no test scores"
        notes.append(f"Failed: {cell['system']}, world seed {cell['world_seed']}: {reason}")
    return notes


def build_claims(found: Sequence[Claim]) -> Table:
    """One row per claim, one column per world and recipe: the verdicts."""
    columns = list(dict.fromkeys((claim.world, claim.recipe) for claim in found))
    verdicts = {(claim.name, claim.world, claim.recipe): claim.verdict for claim in found}
    rows = []
    for name in dict.fromkeys(claim.name for claim in found):
        row = [verdicts.get((name, *column), Verdict.MISSING) for column in columns]
        rows.append(Row(name, tuple(Entry(verdict.value) for verdict in row)))
    heads = tuple(f"{world}, {recipe}" for world, recipe in columns)
    return Table("claims", "The paper's claims", heads, tuple(rows), label="Claim", prose=True)


def build_evidence(found: Sequence[Claim]) -> list[Table]:
    """Returns for each world and recipe the numbers behind its verdicts."""
    settings: dict[str, list[Row]] = {}
    for claim in found:
        if claim.verdict == Verdict.MISSING:
            continue
        entries = (Entry(claim.verdict.value), Entry(claim.numbers), Entry(claim.paper))
        rows = settings.setdefault(setting(claim.world, claim.recipe), [])
        rows.append(Row(claim.name, entries))
    title, columns = "Claims in numbers", ("here", "numbers", "the paper")
    return [
        Table("evidence", title, columns, tuple(rows), where, label="Claim", prose=True)
        for where, rows in settings.items()
    ]


def build_all(cells: Sequence[Cell], results: str | pathlib.Path = ".") -> list[Table]:
    """Every table that has at least one measured row, in the order of the page."""
    built = [build_overview(cells), build_gaps(cells)]
    for world, recipe in summary.settings(cells):
        where = {"world": world, "recipe": recipe}
        views = summary.present(cells, "view", summary.VIEWS)
        built += [build_main(cells, view=view, results=results, **where) for view in views]
        built.append(build_main(cells, view="natural", systems=ABLATION, results=results, **where))
        built += [build_slices(cells, view=view, **where) for view in views]
    built += [
        build_attention(cells, recipe=r) for r in summary.present(cells, "recipe", summary.RECIPES)
    ]
    built += [build_recipe(cells, world=w, recipe=r) for w, r in summary.settings(cells)]
    built += [build_samples(cells, world=w, recipe=r) for w, r in summary.settings(cells)]
    built.append(build_sweep(cells, summary.HIDDEN_SIZE, "hidden_size", "K"))
    built.append(build_sweep(cells, summary.EMBEDDING_SIZE, "embedding_size", "d"))
    return [table for table in built if _measured(table)]


def _measured(table: Table) -> bool:
    own = len(table.columns) - table.paper
    return any(entry.text not in ("", "–") for row in table.rows for entry in row.entries[:own])


def write_markdown(
    found: Sequence[Claim], built: Sequence[Table], folder: str | pathlib.Path
) -> pathlib.Path:
    """Writes `folder/tables.md`, claims first."""
    overview = [table for table in built if table.kind == "overview"]
    others = [table for table in built if table.kind != "overview"]
    parts = [build_claims(found), *overview, *build_evidence(found), *others]
    path = pathlib.Path(folder) / "tables.md"
    with replacing(path) as file:
        file.write("\n".join([INTRODUCTION, *map(markdown, parts)]).encode())
    return path
