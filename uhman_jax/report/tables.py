"""The numbers of a run: scores with reference rows, slices, attention against chance."""

from collections.abc import Callable
from typing import Any

from uhman_jax.report.markup import Markup, element, join
from uhman_jax.run_directory import FinishedRun
from uhman_jax.scores import MODEL, Score, Scores, Slice, is_number

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
    """Formats four decimals, as in the paper's tables; a dash if there is no finite number.

    >>> number(0.08491), number(None), number(12)
    ('0.0849', '–', '12.0000')
    """
    return f"{value:.4f}" if is_number(value) else "–"


def percent(share: Any) -> str:
    r"""Formats a fraction as a whole percentage; a dash if there is no finite number.

    >>> percent(0.125), percent(-0.031)
    ('12\u202f%', '−3\u202f%')
    """
    if not is_number(share):
        return "–"
    return f"{100 * share:.0f}\u202f%".replace("-", "−")


def interval(score: Score, text: Callable[[Any], str] = number) -> Markup | None:
    """Returns the 95 % half-width of a mean over seeds, formatted by `text`, if there is one."""
    width = score.interval
    return None if width is None else element("small", f"±\u202f{text(width)}")


def metric_tables(run: FinishedRun) -> Markup:
    """Returns one table per kind of metric: systems as rows, cut-offs as columns."""
    groups: dict[str, list[str]] = {kind: [] for kind, _ in _TABLES}
    groups[_RATIO] = []
    for name in run.scores.of(MODEL):
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


def _metric_table(run: FinishedRun, names: list[str]) -> Markup:
    head = [element("th", name, scope="col", class_="number") for name in names]
    rows = []
    for key, title, css in run.scores.systems(run.system):
        scores = [run.scores[key, name] for name in names]
        cells = [element("td", number(x.mean), interval(x), class_="number") for x in scores]
        dot = element("i", class_=f"dot {css}")
        label = element("th", dot, title, scope="row", class_="system")
        rows.append(element("tr", label, cells, class_=css))
    head_row = element("tr", element("td"), head)
    table = element("table", element("thead", head_row), element("tbody", rows))
    return element("div", table, class_="scroll")


def seeds_table(run: FinishedRun) -> Markup | None:
    """Returns the test metrics of every seed, folded; None for a single seed."""
    scores = {name: score for name, score in run.scores.of(MODEL).items() if len(score.seeds) > 1}
    if not scores:
        return None
    head = [element("th", name, scope="col", class_="number") for name in scores]
    rows = []
    for s in range(min(len(score.seeds) for score in scores.values())):
        cells = [element("td", number(x.seeds[s]), class_="number") for x in scores.values()]
        label = element("th", f"Seed {run.config.seed + s}", scope="row")
        rows.append(element("tr", label, cells))
    table = element("table", element("thead", element("tr", element("td"), head)), rows)
    summary = element("summary", "Every seed by itself")
    return element("details", summary, element("div", table, class_="scroll"), class_="card")


def gap_figure(run: FinishedRun, metric: str) -> Markup:
    """Returns bars of all systems; the band from popularity to oracle is the gap to close."""
    found = [
        (system, score)
        for system in run.scores.systems(run.system)
        if is_number((score := run.scores[system.key, metric]).mean)
    ]
    model = run.scores[MODEL, metric]
    drawn = [score.mean for _, score in found] + [x for x in model.seeds if is_number(x)]
    drawn.append(model.mean + (model.interval or 0))
    full = 1.04 * max(filter(is_number, drawn), default=0) or 1.0

    def scale(value: float) -> str:
        return f"{100 * value / full:.2f}%"

    band = None
    low, high = run.scores["popularity", metric].mean, run.scores["oracle", metric].mean
    if low < high:
        style = f"left:{scale(low)};width:{scale(high - low)}"
        band = element("i", class_="band", style=style)
    rows = []
    for system, score in found:
        value = score.mean
        marks = [element("i", class_="fill", style=f"width:{scale(value)}")]
        if system.key == MODEL:
            if score.interval is not None:
                left = max(value - score.interval, 0)
                style = f"left:{scale(left)};width:{scale(value + score.interval - left)}"
                marks.append(element("i", class_="whisker", style=style))
            if len(score.seeds) > 1:
                places = map(scale, score.seeds)
                marks += [element("i", class_="seed", style=f"left:{place}") for place in places]
        rows.append(
            element(
                "div",
                element("span", system.title, class_="name"),
                element("span", band, marks, class_="track"),
                element("span", join(number(value), interval(score)), class_="value"),
                class_=f"bar {system.css}",
            )
        )
    return element("div", rows, class_="bars", role="group", aria_label=f"{metric} by system")


def slices(groups: list[Slice]) -> list[Markup]:
    """Returns one table per kind of slice, with a small bar for every metric."""
    kinds = dict.fromkeys(group.by for group in groups)
    return [_slice_table(by, [group for group in groups if group.by == by]) for by in kinds]


def _slice_table(by: str, groups: list[Slice]) -> Markup:
    names = list(dict.fromkeys(name for group in groups for name in group.means))
    tops = {
        name: max(filter(is_number, (group.means.get(name) for group in groups)), default=0)
        for name in names
    }
    head = [element("th", name, scope="col") for name in names]
    head.insert(0, element("th", "Clips", scope="col", class_="number"))
    rows = []
    for group in groups:
        cells = [element("td", count(group.num_videos), class_="number")]
        for name in names:
            value = group.means.get(name)
            share = value / tops[name] if is_number(value) and tops[name] else 0
            bar = element("i", class_="mini", style=f"width:{100 * max(share, 0):.1f}%")
            cells.append(element("td", number(value), element("div", bar, class_="minitrack")))
        rows.append(element("tr", element("th", group.name, scope="row"), cells))
    head_row = element("tr", element("td"), head)
    table = element("table", element("thead", head_row), element("tbody", rows), class_="slices")
    caption = element("figcaption", _SLICE_TITLES.get(by, f"By {by}"))
    scroll = element("div", table, class_="scroll")
    note = element("p", _SLICE_NOTES[by], class_="note") if by in _SLICE_NOTES else None
    return element("figure", caption, scroll, note, class_="card")


def reliability(groups: dict[str, list[float]]) -> Markup:
    """Returns for each group of suggestions its confidence and how many of it were right."""
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


def attention_facts(scores: Scores) -> Markup | None:
    """Returns the attention on planted objects beside chance; None without a truth."""
    facts = (
        ("object_mass", "object_chance", "Regions that hold a planted object"),
        ("tagged_mass", "tagged_chance", "Regions of the object that the user tagged"),
        ("tagged_frame_mass", "tagged_frame_chance", "Frames that show that object"),
        ("top_region_object", "top_region_object_chance", "Clips whose top region holds an object"),
        ("top_region_tagged", "top_region_tagged_chance", "Clips whose top region holds that one"),
    )
    rows = []
    for name, level, title in facts:
        score, chance = scores["attention", name], scores["attention", level].mean
        mass = score.mean
        if not is_number(mass):
            continue
        marks = [element("i", class_="fill", style=f"width:{100 * mass:.1f}%")]
        text = join(percent(mass), interval(score, percent))
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
    r"""Formats an integer with thousands set apart, anything else as text.

    >>> count(10291), count("natural")
    ('10\u202f291', 'natural')
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}".replace(",", "\u202f")
    return f"{value:.4g}" if is_number(value) else str(value)
