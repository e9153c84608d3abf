"""Pieces of the study's page: chips, tables and figures as HTML, and their styles."""

import re
from collections.abc import Sequence

from experiments.paper import drawing
from experiments.paper.claims import Verdict
from experiments.paper.layout import Entry, Row, Table
from uhman_jax.report.markup import Markup, element

# Colours of the figures that are the page's own.
_NAMED = {
    drawing.INK: "var(--ink)",
    drawing.MUTED: "var(--muted)",
    drawing.LINE: "var(--line)",
    drawing.CARD: "var(--card)",
    drawing.OTHER_COLOR: "var(--ink)",
}
# The others, and what they are on a dark page.
_DARK = {
    "#8c8577": "#a8a193",
    "#d98a00": "#f0ad3a",
    "#0f8a6d": "#3fc0a0",
    "#5aaee6": "#7cc4f5",
    "#c86fb0": "#e093cc",
    "#b5562f": "#e58b66",
    "#4a4fd4": "#949bff",
    "#4b50d5": "#949bff",
    "#c9540f": "#f0935a",
    "#10886c": "#3fc0a0",
    "#9a9fab": "#858b99",
    "#7d8390": "#9aa1af",
    "#b07a0b": "#e0ad3d",
    "#c2571b": "#f0935a",
    "#3f6fd1": "#82a6f5",
}


def _palette(colors: Sequence[tuple[str, str]]) -> str:
    return "".join(f"--c{name[1:]}:{value};" for name, value in colors)


CSS = f"""
main{{max-width:1240px}}
:root{{--bad:#a3261c;--bad-wash:#fbe3df;{_palette([(color, color) for color in _DARK])}}}
@media (prefers-color-scheme:dark){{:root{{--bad:#ff9d92;--bad-wash:#45201c;
{_palette(list(_DARK.items()))}}}}}
.chip{{display:inline-block;border-radius:99px;padding:1px 11px;font-weight:600;font-size:.84rem;
white-space:nowrap;border:1px solid transparent}}
.chip.holds{{background:var(--hit-wash);color:var(--hit)}}
.chip.fails{{background:var(--bad-wash);color:var(--bad)}}
.chip.undecided{{background:var(--wash);color:var(--muted);border-color:var(--line)}}
td.paper,th.paper{{color:var(--muted);background:var(--wash)}}
th.paper:last-child,td.paper:last-child{{padding-right:6px}}
tr.reference>*{{color:var(--muted)}}
tr.first>*{{border-top:2px solid var(--line)}}
.numbers{{font-size:.84rem}}
.numbers th,.numbers td{{padding-left:5px;padding-right:5px}}
.numbers.wide{{font-size:.78rem}}
.numbers.wide small{{font-size:.68rem}}
.numbers.wide th,.numbers.wide td{{padding-left:4px;padding-right:4px}}
.numbers th:first-child{{padding-left:0}}
.numbers th[scope=row]{{min-width:9.5em}}
.numbers .part th{{text-align:center;padding-bottom:2px}}
.evidence th[scope=row]{{min-width:10em}}
.evidence td:nth-child(3){{min-width:20em}}
.evidence td:nth-child(4){{min-width:14em;color:var(--muted)}}
.evidence td p{{margin:0}}
details>figure{{margin:14px 0 26px}}
.fold{{padding-top:4px;padding-bottom:4px}}
.fold details{{border-top:1px solid var(--line);padding:11px 0}}
.fold details:first-child{{border-top:0}}
figure>.scroll+.note{{margin:10px 0 0}}
figure>.note+.note{{margin:4px 0 0}}
svg.plot text{{font-family:inherit}}
.claims th:first-child{{min-width:10.5em}}
.claims th,.claims td{{padding:6px 5px}}
.claims .chip{{font-size:.78rem;padding:1px 9px}}
@media (max-width:720px){{svg.plot{{min-width:640px}}}}
"""
_SCALE = 1.55  # pixels per point of a figure
_CHIPS = {Verdict.HOLDS: "holds", Verdict.FAILS: "fails", Verdict.UNDECIDED: "undecided"}
_CHIP_OF = {verdict.value: css for verdict, css in _CHIPS.items()}


def chip(text: str) -> Markup | str:
    """A verdict as a coloured chip; anything else as it is."""
    css = _CHIP_OF.get(text)
    return element("span", text, class_=f"chip {css}") if css else text


def table_figure(table: Table) -> Markup:
    """A table with its title above and notes below."""
    caption = element("figcaption", table.title)
    return element("figure", caption, bare_table(table), notes(table))


def notes(table: Table) -> list[Markup]:
    """The sentences below a table."""
    return [element("p", note, class_="note") for note in table.notes]


def bare_table(table: Table) -> Markup:
    """The table alone, in a box that scrolls sideways on a narrow screen."""
    own = len(table.columns) - table.paper
    number = None if table.prose else "number"
    heads = [
        element("th", name, scope="col", class_=number if i < own else "number paper")
        for i, name in enumerate(table.columns)
    ]
    first = element("th", table.label, scope="col")
    head = [element("tr", first, heads)]
    if table.paper:
        theirs = "The paper: Musical.ly, another data set"
        over = [element("td"), element("th", "Here", scope="colgroup", colspan=own)]
        over.append(
            element("th", theirs, scope="colgroup", colspan=table.paper, class_="number paper")
        )
        head.insert(0, element("tr", over, class_="part"))
    body = [
        _row(row, own, number, index > 0 and table.rows[index - 1].kind != row.kind)
        for index, row in enumerate(table.rows)
    ]
    wide = " wide" if len(table.columns) > 10 else ""
    css = table.kind if table.prose else f"numbers{wide}"
    content = element("table", element("thead", head), element("tbody", body), class_=css)
    return element("div", content, class_="scroll")


def _row(row: Row, own: int, number: str | None, starts: bool) -> Markup:
    cells = [
        element("td", _entry(entry), class_=number if i < own else "number paper")
        for i, entry in enumerate(row.entries)
    ]
    css = f"{row.kind} first" if starts and row.kind == "reference" else row.kind
    return element("tr", element("th", row.label, scope="row"), cells, class_=css)


def _entry(entry: Entry) -> list[Markup | str]:
    parts: list[Markup | str] = [chip(entry.text)]
    if "; " in entry.text:  # several comparisons: a line each
        parts = [element("p", part) for part in entry.text.split("; ")]
    if entry.small:
        parts.append(element("small", entry.small))
    return parts


def inline_svg(text: str, description: str) -> Markup:
    """An SVG document as an element that scales with its column and follows the page's colours."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    # Matplotlib's style sheet would apply to the whole page, and its names would clash.
    text = re.sub(r"<style.*?</style>", "", text, flags=re.S)
    text = re.sub(r'\sid="[A-Za-z0-9.]+_\d+"', "", text)
    text = re.sub(r"font: ((?:\w+ )*?)([\d.]+)px[^;\"]*", _font, text)
    text = re.sub(r'<svg [^>]*viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" @>', text, count=1)
    # All figures are scaled alike, so that their letters are.
    points = float(text.split('viewBox="')[1].split('"')[0].split()[2])
    style = f"max-width:{_SCALE * points:.0f}px"
    attributes = element("svg", class_="plot", style=style, role="img", aria_label=description)
    text = text.replace("@>", str(attributes)[len("<svg ") : -len("</svg>")], 1)
    for color, variable in _NAMED.items():
        text = text.replace(color, variable)
    for color in _DARK:
        text = text.replace(color, f"var(--c{color[1:]})")
    return Markup(text)


def _font(match: re.Match) -> str:
    """Size and weight; the family is the page's."""
    weight = "; font-weight: 600" if re.search(r"bold|\d00", match[1]) else ""
    return f"font-size: {match[2]}px{weight}"
