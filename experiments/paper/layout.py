"""Represents tables as data, and formats them as Markdown; the page formats them as HTML."""

import dataclasses
from collections.abc import Sequence

from experiments.paper.stats import Estimate
from experiments.paper.summary import WORLDS
from uhman_jax.report.tables import number, percent


@dataclasses.dataclass(frozen=True)
class Entry:
    """A cell of a table: a text, and a smaller text beside it."""

    text: str = "–"
    small: str = ""


@dataclasses.dataclass(frozen=True)
class Row:
    """A row; `kind` is "system", "model" (UHMAN) or "reference"."""

    label: str
    entries: Sequence[Entry]
    kind: str = "system"


@dataclasses.dataclass(frozen=True)
class Table:
    """A table.

    `kind` is "claims", "overview", "evidence", "main", "views", "attention", "slices", "recipe",
    "sweep" or "sizes".
    """

    kind: str
    title: str  # without the setting
    columns: Sequence[str]  # heads of all columns but the first
    rows: Sequence[Row]
    setting: str = ""  # phrase for world and recipe; "" if there are several
    notes: Sequence[str] = ()  # sentences below the table
    label: str = "System"  # head of the first column
    paper: int = 0  # number of columns at the end with the paper's numbers
    prose: bool = False  # whether the columns have words instead of numbers


def markdown(table: Table) -> str:
    """Formats a table with its title and notes."""
    own = len(table.columns) - table.paper
    marks = ["---" if table.prose else "---:"] * len(table.columns)
    heads = [table.label, *table.columns[:own], *(f"*paper {x}*" for x in table.columns[own:])]
    title = f"{table.title} · {table.setting}" if table.setting else table.title
    lines = [f"### {title}", "", _line(heads), _line(["---", *marks])]
    for row in table.rows:
        bold = "**" if row.kind == "model" else ""
        cells = [f"{entry.text} {entry.small}".strip() for entry in row.entries]
        cells = [f"*{x}*" if x not in ("", "–") and i >= own else x for i, x in enumerate(cells)]
        lines.append(_line([f"{bold}{row.label}{bold}", *cells]))
    return "\n".join([*lines, "", *(f"{note}\n" for note in table.notes)])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def setting(world: str, recipe: str) -> str:
    """Returns a phrase for world and recipe.

    >>> setting("selection", "plus"), setting("data", "plus")
    ('selection world, recipe plus', 'data, recipe plus')
    """
    return f"{world} world, recipe {recipe}" if world in WORLDS else f"{world}, recipe {recipe}"


def score(estimate: Estimate | None) -> Entry:
    """Formats a metric and its interval."""
    if estimate is None:
        return Entry()
    width = "" if estimate.half_width is None else f"±\u202f{estimate.half_width:.4f}"
    return Entry(number(estimate.mean), width)


def share(estimate: Estimate | None) -> Entry:
    """Formats a fraction as a percentage with its interval."""
    if estimate is None:
        return Entry()
    width = "" if estimate.half_width is None else f"±\u202f{100 * estimate.half_width:.1f}"
    return Entry(percent(estimate.mean, decimals=1), width)


def gap_text(gap: Estimate | None) -> str:
    r"""Formats a difference with its sign and interval.

    >>> gap_text(Estimate(-0.01234, 0.002, True))
    '−0.0123\u202f±\u202f0.0020'
    """
    if gap is None:
        return "–"
    width = "" if gap.half_width is None else f"\u202f±\u202f{gap.half_width:.4f}"
    return signed(gap.mean) + width


def signed(value: float) -> str:
    """Formats a number with four decimals and a sign."""
    return f"{value:+.4f}".replace("-", "−")


def percent_change(before: float | None, after: float | None) -> str:
    r"""Formats a relative change; a dash if a value is missing or `before` is 0.

    >>> percent_change(0.0849, 0.0507)
    '−40.3\u202f%'
    """
    if not before or after is None:
        return "–"
    return f"{100 * (after / before - 1):+.1f}\u202f%".replace("-", "−")


def p_text(p: float | None) -> str:
    """Formats a p value with two digits.

    >>> p_text(0.00029997), p_text(None), p_text(1.0)
    ('0.0003', '–', '1')
    """
    return "–" if p is None else f"{p:.2g}"
