"""The numbers of a run: metrics with reference rows, slices, attention against chance."""

import math
from typing import Any, NamedTuple, TypeGuard

from uhman_jax.report.markup import Markup, element, join
from uhman_jax.report.run import Run

# Systems in the order of the tables: prefix of the metrics, CSS class.
_SYSTEMS = (
    ("popularity", "popularity"),
    ("user_history", "history"),
    ("user_attributes", "attributes"),
    ("test", "model"),
    ("observable_oracle", "observable"),
    ("oracle", "oracle"),
)
_TABLES = (
    ("P", "Precision: how many of the first k are right"),
    ("R", "Recall: how many of the clip's hashtags are found"),
    ("F1", "F1: both in one number"),
    ("", "Whole ranking"),
)
_RATIO = "kP/R"
_SLICE_TITLES = {
    "frequency": "By how often a hashtag was used in training",
    "user": "By what is known of the user",
}
_SLICE_NOTES = {
    "frequency": "Only the hashtags of a group count as right, over clips that have one."
}


def number(value: Any) -> str:
    """Four decimals, as in the paper's tables; a dash where there is no finite number.

    >>> number(0.08491), number(None), number(12)
    ('0.0849', '–', '12.0000')
    """
    return f"{value:.4f}" if is_number(value) else "–"


def percent(share: Any) -> str:
    r"""A share as a whole percentage; a dash where there is no finite number.

    >>> percent(0.125), percent(-0.031)
    ('12\u202f%', '−3\u202f%')
    """
    if not is_number(share):
        return "–"
    return f"{100 * share:.0f}\u202f%".replace("-", "−")


def is_number(value: Any) -> TypeGuard[float]:
    """True for a finite int or float."""
    real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return real and math.isfinite(value)


def systems(run: Run) -> list[tuple[str, str, str]]:
    """Prefix, name and CSS class of the systems that the run has metrics of."""
    names = {
        "popularity": "Popularity",
        "user_history": "User history",
        "user_attributes": "User attributes",
        "test": run.model,
        "observable_oracle": "Observable oracle",
        "oracle": "Oracle",
    }
    return [
        (prefix, names[prefix], css)
        for prefix, css in _SYSTEMS
        if any(key.startswith(f"{prefix}/") for key in run.metrics)
    ]


def interval(run: Run, key: str) -> Markup | None:
    """The 95 % half-width beside a mean over seeds, where there is one."""
    width = run.metrics.get(f"{key}/interval")
    return element("small", f"±\u202f{width:.4f}") if is_number(width) else None


def percent_interval(run: Run, key: str) -> Markup | None:
    """The same for a share that is shown as a percentage."""
    width = run.metrics.get(f"{key}/interval")
    return element("small", f"±\u202f{percent(width)}") if is_number(width) else None


def metric_tables(run: Run) -> Markup:
    """One table per kind of metric: systems as rows, cut-offs as columns."""
    known = [key.removeprefix("test/") for key in run.metrics if key.startswith("test/")]
    known = [name for name in known if not name.endswith(("/seeds", "/interval"))]
    groups: dict[str, list[str]] = {kind: [] for kind, _ in _TABLES}
    groups[_RATIO] = []
    for name in known:
        kind = name.split("@")[0]
        groups[kind if kind in groups and "@" in name else ""].append(name)
    figures = []
    for kind, title in _TABLES:
        if groups[kind]:
            caption = element("figcaption", title)
            table = _metric_table(run, groups[kind])
            figures.append(element("figure", caption, table, class_="card"))
    grid = element("div", figures, class_="grid")
    if not groups[_RATIO]:
        return grid
    summary = element("summary", "A check: k · P@k / R@k")
    text = "About the same for every system on the same clips; a row that strays hints at a fault."
    note = element("p", text, class_="note")
    table = _metric_table(run, groups[_RATIO])
    return join(grid, element("details", summary, note, table, class_="card"))


def _metric_table(run: Run, names: list[str]) -> Markup:
    head = [element("th", name, scope="col", class_="number") for name in names]
    rows = []
    for prefix, system, css in systems(run):
        cells = []
        for name in names:
            key = f"{prefix}/{name}"
            cells.append(
                element("td", number(run.metrics.get(key)), interval(run, key), class_="number")
            )
        dot = element("i", class_=f"dot {css}")
        label = element("th", dot, system, scope="row", class_="system")
        rows.append(element("tr", label, cells, class_=css))
    head_row = element("tr", element("td"), head)
    table = element("table", element("thead", head_row), element("tbody", rows))
    return element("div", table, class_="scroll")


def seeds_table(run: Run) -> Markup | None:
    """Every seed's test metrics, folded away; None for a single seed."""
    names = [
        key.removeprefix("test/").removesuffix("/seeds")
        for key in run.metrics
        if key.startswith("test/") and key.endswith("/seeds")
    ]
    num_seeds = int(run.metrics.get("num_seeds", 1))
    if num_seeds < 2 or not names:
        return None
    first = int(run.config.get("seed", 0))
    head = [element("th", name, scope="col", class_="number") for name in names]
    rows = []
    for s in range(num_seeds):
        values = [run.metrics[f"test/{name}/seeds"][s] for name in names]
        cells = [element("td", number(value), class_="number") for value in values]
        rows.append(element("tr", element("th", f"Seed {first + s}", scope="row"), cells))
    table = element("table", element("thead", element("tr", element("td"), head)), rows)
    summary = element("summary", "Every seed by itself")
    return element("details", summary, element("div", table, class_="scroll"), class_="card")


def gap_figure(run: Run, metric: str) -> Markup:
    """Bars of all systems; the band between popularity and oracle is the gap to close."""
    values = {prefix: run.metrics.get(f"{prefix}/{metric}") for prefix, _, _ in systems(run)}
    width = run.metrics.get(f"test/{metric}/interval")
    seeds = run.metrics.get(f"test/{metric}/seeds") or []
    drawn = [value for value in [*values.values(), *seeds] if is_number(value)]
    if is_number(width) and is_number(values.get("test")):
        drawn.append(values["test"] + width)
    full = 1.04 * max(drawn, default=0) or 1.0

    def scale(value: float) -> str:
        return f"{100 * value / full:.2f}%"

    band = None
    low, high = values.get("popularity"), values.get("oracle")
    if is_number(low) and is_number(high) and low < high:
        style = f"left:{scale(low)};width:{scale(high - low)}"
        band = element("i", class_="band", style=style)
    rows = []
    for prefix, system, css in systems(run):
        value = values[prefix]
        if not is_number(value):
            continue
        marks = [element("i", class_="fill", style=f"width:{scale(value)}")]
        if prefix == "test":
            if is_number(width):
                left = max(value - width, 0)
                style = f"left:{scale(left)};width:{scale(value + width - left)}"
                marks.append(element("i", class_="whisker", style=style))
            if len(seeds) > 1:
                marks += [element("i", class_="seed", style=f"left:{scale(x)}") for x in seeds]
        text = join(number(value), interval(run, f"{prefix}/{metric}"))
        rows.append(
            element(
                "div",
                element("span", system, class_="name"),
                element("span", band, marks, class_="track"),
                element("span", text, class_="value"),
                class_=f"bar {css}",
            )
        )
    return element("div", rows, class_="bars", role="group", aria_label=f"{metric} by system")


class SliceTable(NamedTuple):
    """Metrics by group of test videos.

    Attributes:
        title: says how the videos are grouped.
        note: a sentence below, or "".
        names: of the metrics.
        rows: a group's name, number of videos, and for each metric its value and the value's
            fraction of the best group's.
    """

    title: str
    note: str
    names: list[str]
    rows: list[tuple[str, int, list[tuple[float, float]]]]


def slice_tables(slices: list[dict[str, Any]]) -> list[SliceTable]:
    """Returns a table for each way to group the test videos; `slices` are those of metrics.json."""
    tables = []
    for by in dict.fromkeys(str(entry.get("by", "")) for entry in slices):
        entries = [entry for entry in slices if str(entry.get("by", "")) == by]
        names = [
            name
            for name in dict.fromkeys(key for entry in entries for key in entry)
            if name not in ("by", "name", "num_videos")
            and not name.endswith(("/seeds", "/interval"))
        ]
        tops = {
            name: max([entry[name] for entry in entries if is_number(entry.get(name))], default=0)
            for name in names
        }
        rows = []
        for entry in entries:
            values = [entry.get(name) for name in names]
            shares = [
                max(value / tops[name], 0) if is_number(value) and tops[name] else 0
                for name, value in zip(names, values, strict=True)
            ]
            cells = list(zip(values, shares, strict=True))
            rows.append((str(entry.get("name", "")), entry.get("num_videos"), cells))
        title, note = _SLICE_TITLES.get(by, f"By {by}"), _SLICE_NOTES.get(by, "")
        tables.append(SliceTable(title, note, names, rows))
    return tables


def reliability(groups: dict[str, list[float]]) -> Markup:
    """What was said of each group of suggestions, and what was right."""
    head = [element("th", name, scope="col") for name in ("Said", "Right", "Suggestions")]
    rows = []
    for said, hits, suggestions in zip(
        *(groups[x] for x in ("said", "hits", "count")), strict=True
    ):
        cells = [element("td", percent(hits)), element("td", count(int(suggestions)))]
        rows.append(element("tr", element("th", percent(said), scope="row"), cells))
    table = element("table", element("thead", element("tr", head)), element("tbody", rows))
    caption = element("figcaption", "The ten best hashtags of every test clip, in groups")
    return element("figure", caption, element("div", table, class_="scroll"), class_="card")


def attention_facts(run: Run) -> Markup | None:
    """Share of attention on planted objects beside chance; None without a truth."""
    facts = (
        ("object_mass", "object_chance", "Regions that hold a planted object"),
        ("tagged_mass", "tagged_chance", "Regions of the object that the user tagged"),
        ("tagged_frame_mass", "tagged_frame_chance", "Frames that show that object"),
        ("top_region_object", "top_region_object_chance", "Clips whose top region holds an object"),
        ("top_region_tagged", "top_region_tagged_chance", "Clips whose top region holds that one"),
    )
    rows = []
    for name, level, title in facts:
        mass = run.metrics.get(f"attention/{name}")
        chance = run.metrics.get(f"attention/{level}")
        if not is_number(mass):
            continue
        marks = [element("i", class_="fill", style=f"width:{100 * mass:.1f}%")]
        text = join(percent(mass), percent_interval(run, f"attention/{name}"))
        if is_number(chance):
            marks.append(element("i", class_="tick", style=f"left:{100 * chance:.1f}%"))
            if chance > 0:
                versus = f"{mass / chance:.1f} times chance, {percent(chance)}"
                text = join(text, element("small", versus, class_="versus"))
        label = element("span", title, class_="name")
        track = element("span", marks, class_="track")
        value = element("span", text, class_="value")
        rows.append(element("div", label, track, value, class_="bar model wide"))
    return element("div", rows, class_="bars") if rows else None


def count(value: Any) -> str:
    r"""An integer with thousands set apart; anything else as text.

    >>> count(10291), count("natural")
    ('10\u202f291', 'natural')
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}".replace(",", "\u202f")
    return f"{value:.4g}" if is_number(value) else str(value)
