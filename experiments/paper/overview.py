"""All systems in all worlds, views and recipes at one look: P@10, and what UHMAN is ahead by."""

from collections.abc import Sequence

from experiments.paper import stats, summary
from experiments.paper.claims import gap_text
from experiments.paper.layout import Entry, Row, Table, score
from experiments.paper.summary import Cell

METRIC = "P@10"
_BESIDE = ("observable_oracle", "oracle", "popularity")


def build_overview(cells: Sequence[Cell]) -> Table:
    """P@10 of every system, a row for each world, view and recipe."""
    systems = [name for name in summary.SYSTEMS if summary.select(cells, system=name)]
    rows = []
    for name, fitting in _settings(cells):
        own = [_of(fitting, system) for system in systems]
        beside = [summary.reference(fitting, reference, METRIC) for reference in _BESIDE]
        scores = [summary.estimate(row, METRIC) for row in own]
        rows.append(Row(name, tuple(map(score, [*scores, *beside]))))
    columns = (*systems, *(summary.REFERENCES[reference] for reference in _BESIDE))
    note = "Of test videos, with 95 % intervals."
    return _table("P@10 of every system", columns, rows, note)


def build_gaps(cells: Sequence[Cell]) -> Table:
    """P@10 of UHMAN less that of every other system, in the same rows."""
    systems = [
        name for name in summary.SYSTEMS if name != "UHMAN" and summary.select(cells, system=name)
    ]
    rows = []
    for name, fitting in _settings(cells):
        ours = summary.values(_of(fitting, "UHMAN"), METRIC)
        gaps = [
            stats.difference(ours, summary.values(_of(fitting, system), METRIC))
            for system in systems
        ]
        rows.append(Row(name, tuple(Entry(gap_text(gap)) for gap in gaps)))
    note = "Worlds differ more than systems do within one: differences are taken world by world."
    return _table("P@10 of UHMAN less the other's", tuple(systems), rows, note)


def _settings(cells: Sequence[Cell]) -> list[tuple[str, list[Cell]]]:
    """What a row is called, and its cells."""
    settings = [
        (f"{world}, {view}, {recipe}", summary.select(cells, world=world, view=view, recipe=recipe))
        for world, recipe in summary.settings(cells)
        for view in summary.present(cells, "view", summary.VIEWS)
    ]
    return [(name, fitting) for name, fitting in settings if fitting]


def _of(cells: Sequence[Cell], system: str) -> list[Cell]:
    return [cell for cell in cells if cell["system"] == system]


def _table(title: str, columns: tuple[str, ...], rows: list[Row], note: str) -> Table:
    return Table(
        "overview", title, columns, tuple(rows), notes=(note,), label="World, view, recipe"
    )
