"""Formats numbers for pages, and builds the tables of metrics by group of test clips."""

from typing import Any, NamedTuple

from uhman_jax.scores import Slice, is_number

_TITLES = {
    "frequency": "By training uses of the hashtags",
    "user": "By known profile of the user",
}
_NOTES = {"frequency": "Only hashtags of the group count, over the clips that have one."}


def number(value: Any) -> str:
    """Formats a number with four decimals, as in the paper; a dash if it is undefined.

    >>> number(0.08491), number(None), number(12)
    ('0.0849', '–', '12.0000')
    """
    return f"{value:.4f}" if is_number(value) else "–"


def percent(fraction: Any, decimals: int = 0) -> str:
    r"""Formats a fraction as a percentage; a dash if it is undefined.

    >>> percent(0.125), percent(-0.031), percent(0.6035, decimals=1)
    ('12\u202f%', '−3\u202f%', '60.4\u202f%')
    """
    if not is_number(fraction):
        return "–"
    return f"{100 * fraction:.{decimals}f}\u202f%".replace("-", "−")


def count(value: Any) -> str:
    r"""Formats an integer with spaces between thousands, a float with four digits, others as text.

    >>> count(10291), count("natural")
    ('10\u202f291', 'natural')
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}".replace(",", "\u202f")
    return f"{value:.4g}" if is_number(value) else str(value)


class SliceTable(NamedTuple):
    """Metrics of the groups of one kind."""

    title: str
    note: str  # a sentence below the table, or ""
    best: dict[str, float]  # largest value of each metric
    groups: list[Slice]


def slice_tables(groups: list[Slice]) -> list[SliceTable]:
    """Returns a table for each kind of group, in order of appearance."""
    tables = []
    for by in dict.fromkeys(group.by for group in groups):
        own = [group for group in groups if group.by == by]
        best: dict[str, float] = {}
        for group in own:
            for name, value in group.means.items():
                best[name] = max(best.get(name, 0.0), value if is_number(value) else 0.0)
        tables.append(SliceTable(_TITLES.get(by, f"By {by}"), _NOTES.get(by, ""), best, own))
    return tables
