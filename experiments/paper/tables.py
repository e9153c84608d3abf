"""Builds the study's tables as data and writes them as Markdown: `tables.md`.

A dash stands for a value that was not measured. The paper's numbers have their own columns,
because they were measured on another dataset.
"""

import pathlib
from collections.abc import Iterator, Sequence

from experiments.paper import breakdowns, layout, published, summary
from experiments.paper.claims import Claim, Verdict, corrected
from experiments.paper.layout import Entry, Row, Table, score, setting, share
from experiments.paper.stats import MIN_WORLDS, over_worlds
from experiments.paper.summary import PAIR, Cell
from uhman_jax.runtime.storage import atomic_write

INTRODUCTION = """# The paper's tables, measured again

Numbers are means over test videos with every hashtag ranked, except in columns headed "paper". The
data are simulated (a world is a kind of dataset), so order and trends can be compared with the
paper's, but not values.
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
ABLATION = ("UHMAN(a)", "UHMAN(b)", "UHMAN(c)", "UHMAN")
TOPS = ("oracle", "observable_oracle")  # references for the percentages of P@10


def build_main(
    cells: Sequence[Cell],
    *,
    world: str,
    view: str,
    recipe: str,
    results: pathlib.Path,
    systems: Sequence[str] = BASELINES,
) -> Table:
    """Builds a table of systems and references beside the paper's numbers.

    Args:
        cells: finished cells; only the part "tables" is used.
        world: kind of dataset.
        view: "natural" for Table 1, "balanced" for Table 2.
        recipe: recipe of the systems.
        results: folder that the cells' `per_video` paths are relative to.
        systems: rows, with UHMAN last; ABLATION for Table 3.
    """
    where = {"world": world, "view": view, "recipe": recipe}
    fitting = summary.select(cells, **where)
    ablation = tuple(systems) == ABLATION
    metrics = [m for m in published.METRICS if not (ablation and m.endswith("50"))]
    paper = metrics if view in PAIR else []
    body = list(_system_rows(fitting, systems, metrics, view, results))
    for name, label in {} if ablation else summary.REFERENCES.items():
        if summary.values(fitting, "P@10", name):
            blanks = [Entry("")] * (1 + len(paper))
            body.append(Row(label, (*_scores(fitting, metrics, name), *blanks), "reference"))
    failed = map(_failure, summary.select(cells, failed=True, **where))
    return Table(
        kind="main" if paper else "views",
        title="Table 3: ablation, natural distribution" if ablation else TITLES.get(view, view),
        setting=setting(world, recipe),
        columns=(*metrics, "P@10, % of oracle", "% of observable oracle", "p, UHMAN − row", *paper),
        rows=body,
        notes=(*_main_notes(fitting, ablation, bool(paper)), *failed),
        paper=len(paper),
    )


def _system_rows(
    cells: Sequence[Cell],
    systems: Sequence[str],
    metrics: Sequence[str],
    view: str,
    results: pathlib.Path,
) -> Iterator[Row]:
    rows = {name: summary.where(cells, system=name) for name in systems}
    tests = {"UHMAN": Entry("")}
    for step in corrected(rows, [(name, "UHMAN") for name in systems[:-1]], results):
        if step.gap:
            tests[step.low] = Entry(layout.p_text(step.p), layout.signed(step.gap.mean))
    num_worlds = len({cell["world_seed"] for cell in cells})
    for name, row in rows.items():
        texts = [published.printed(view, name, m) or "–" for m in metrics if view in PAIR]
        partial = f" ({len(row)} of {num_worlds} datasets)" if 0 < len(row) < num_worlds else ""
        entries = (*_scores(row, metrics), tests.get(name, Entry()), *map(Entry, texts))
        yield Row(name + partial, entries, "model" if name == "UHMAN" else "system")


def _scores(cells: Sequence[Cell], metrics: Sequence[str], source: str = "test") -> list[Entry]:
    """Returns a row's metrics, and its P@10 as a fraction of each oracle's on the same dataset."""
    entries = [score(summary.estimate(cells, metric, source)) for metric in metrics]
    p10 = summary.values(cells, "P@10", source)
    for top in TOPS:
        tops = {w: value for w, (value,) in summary.values(cells, "P@10", top).items() if value}
        ratios = {w: [value / tops[w] for value in p10[w]] for w in p10 if w in tops}
        entries.append(share(over_worlds(ratios)))
    return entries


def _main_notes(fitting: Sequence[Cell], ablation: bool, paper: bool) -> Iterator[str]:
    if not fitting:
        yield "Nothing was measured for this table yet."
    else:
        worlds = len({cell["world_seed"] for cell in fitting})
        seeds = sorted({len(cell["seeds"]) for cell in fitting})
        models = f"{' or '.join(map(str, seeds))} seeds each" if seeds != [1] else "one seed each"
        over = "datasets" if worlds >= MIN_WORLDS else "seeds"
        yield (
            f"{worlds} dataset{'s' * (worlds > 1)}, {models}; ± is the 95 % interval over {over}. "
            "p: P@10 of UHMAN against the row, sign-flip test over videos, Holm."
        )
    if ablation:
        yield ABLATIONS
    if paper:
        yield "Paper: Musical.ly, another dataset; compare the order, not the values."


def _failure(cell: Cell) -> str:
    return f"Failed: {cell['system']}, world seed {cell['world_seed']}: {cell['failed']}"


def build_claims(found: Sequence[Claim]) -> Table:
    """Builds the table of verdicts: one row per claim, one column per world and recipe."""
    columns = list(dict.fromkeys((claim.world, claim.recipe) for claim in found))
    verdicts = {(claim.name, claim.world, claim.recipe): claim.verdict for claim in found}
    rows = []
    for name in dict.fromkeys(claim.name for claim in found):
        row = [verdicts.get((name, *column), Verdict.MISSING) for column in columns]
        rows.append(Row(name, [Entry(verdict.value) for verdict in row]))
    heads = [f"{world}, {recipe}" for world, recipe in columns]
    return Table("claims", "The paper's claims", heads, rows, label="Claim", prose=True)


def build_evidence(found: Sequence[Claim]) -> list[Table]:
    """Builds one table per world and recipe with the numbers behind its verdicts."""
    settings: dict[str, list[Row]] = {}
    for claim in found:
        if claim.verdict != Verdict.MISSING:
            texts = (claim.verdict.value, claim.numbers, claim.paper)
            rows = settings.setdefault(setting(claim.world, claim.recipe), [])
            rows.append(Row(claim.name, list(map(Entry, texts))))
    title, columns = "Claims in numbers", ("here", "numbers", "the paper")
    return [
        Table("evidence", title, columns, rows, where, label="Claim", prose=True)
        for where, rows in settings.items()
    ]


def build_all(cells: Sequence[Cell], results: pathlib.Path) -> list[Table]:
    """Returns every table that has a measured row, in the order of the page."""
    built = breakdowns.build_overview(cells)
    for world, recipe in summary.settings(cells):
        where = {"world": world, "recipe": recipe}
        views = summary.present(cells, "view", summary.VIEWS)
        built += [build_main(cells, view=view, results=results, **where) for view in views]
        built.append(build_main(cells, view="natural", systems=ABLATION, results=results, **where))
        built += [breakdowns.build_slices(cells, view=view, **where) for view in views]
    recipes = summary.present(cells, "recipe", summary.RECIPES)
    built += [breakdowns.build_attention(cells, recipe=recipe) for recipe in recipes]
    for build in (breakdowns.build_recipe, breakdowns.build_samples):
        built += [build(cells, world=w, recipe=r) for w, r in summary.settings(cells)]
    built += [breakdowns.build_sweep(cells, part) for part in summary.SWEEPS]
    return [table for table in built if _measured(table)]


def _measured(table: Table) -> bool:
    own = len(table.columns) - table.paper
    return any(entry.text not in ("", "–") for row in table.rows for entry in row.entries[:own])


def write_markdown(
    found: Sequence[Claim], built: Sequence[Table], folder: pathlib.Path
) -> pathlib.Path:
    """Writes `folder/tables.md`: verdicts, overview, numbers behind the verdicts, other tables."""
    overview = [table for table in built if table.kind == "overview"]
    others = [table for table in built if table.kind != "overview"]
    parts = [build_claims(found), *overview, *build_evidence(found), *others]
    path = folder / "tables.md"
    with atomic_write(path) as file:
        file.write("\n".join([INTRODUCTION, *map(layout.markdown, parts)]).encode())
    return path
