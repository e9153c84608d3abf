"""The page: the numbers of `study` in words, bars and one map."""

from typing import Any

from tools.inspect_run import hashtag_map
from uhman_jax import __version__
from uhman_jax.errors import count_of
from uhman_jax.report import tables
from uhman_jax.report.document import document, paragraph, part
from uhman_jax.report.markup import Markup, element, join
from uhman_jax.scores import read_slices

SHOWN = 5  # differences of a kind of user
_TITLES = {"gender": "Gender", "age": "Age", "country": "Country"}
_USE = {
    "shown": "such users write it so, too",
    "not shown": "not seen in what they write",
    "opposite": "against what they write",
}
_CSS = """
.kinds{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,470px),1fr));gap:16px;
align-items:start;margin-bottom:16px}
.kinds>.card{margin:0}
.kinds header{display:flex;justify-content:space-between;gap:4px 16px;flex-wrap:wrap;
align-items:baseline;margin-bottom:4px}
.kinds h4{font-size:1.02rem;color:var(--ink);margin:0}
h2~h3{margin:22px 0 8px}
.kinds header small{color:var(--muted);font-size:.84rem}
.diff{border-top:1px solid var(--line);padding:10px 0 6px}
.diff:last-child{padding-bottom:0}
.diff .who{display:flex;flex-wrap:wrap;gap:2px 12px;align-items:baseline;margin-bottom:4px}
.diff .who b{overflow-wrap:anywhere}
.use{font-size:.8rem;border-radius:99px;padding:0 9px;background:var(--wash);color:var(--muted)}
.use.warn{background:var(--warn-wash);color:var(--warn);font-weight:600}
.pair{display:grid;grid-template-columns:76px 1fr 158px;column-gap:12px;align-items:center;
font-size:.86rem;font-variant-numeric:tabular-nums}
.pair>span:first-child{color:var(--muted)}
.pair small{color:var(--muted);white-space:nowrap}
.pair b{display:inline-block;min-width:2.6em;text-align:right;margin-right:.5em}
.axis{position:relative;height:20px;background:
linear-gradient(var(--muted),var(--muted)) center/1px 100% no-repeat,
linear-gradient(var(--wash),var(--wash)) center/100% 12px no-repeat}
.axis i{position:absolute;display:block}
.axis .fill{top:4px;height:12px;border-radius:2px;background:var(--model)}
.used .axis .fill{background:var(--observable)}
.axis .whisker{top:8px}
.key{display:flex;flex-wrap:wrap;gap:4px 20px;font-size:.88rem;color:var(--muted);margin:0 0 14px}
.key i{display:inline-block;width:14px;height:10px;border-radius:2px;background:var(--model);
margin-right:6px}
.key i.used{background:var(--observable)}
.near th{white-space:nowrap}
.near td,.swaps td{overflow-wrap:anywhere}
.names span{display:inline-block;margin-right:.9em}
.names small{display:inline;margin-left:.25em;font-size:.78rem}
.map{min-width:620px;max-width:980px;margin:0 auto}
svg.map{display:block;width:100%;height:auto}
.map circle{fill:var(--model);fill-opacity:.28}
.map circle.named{fill-opacity:.95}
.map text{font-size:11.5px;fill:var(--ink);paint-order:stroke;stroke:var(--card);stroke-width:3px;
stroke-linejoin:round}
.map .cross{stroke:var(--line)}
@media (max-width:720px){
.pair{grid-template-columns:1fr auto}.pair .axis{grid-column:1/-1;order:3}
.swaps thead{display:none}
.swaps tr{display:grid;grid-template-columns:1fr auto auto;border-top:1px solid var(--line)}
.swaps tr:first-child,.swaps th,.swaps td{border-top:0}
.swaps td{padding:4px 0 4px 14px}.swaps .names{grid-column:1/-1;padding-left:0}
.swaps td::before{color:var(--muted);margin-right:.5em}
.swaps td:nth-child(2)::before{content:"changed"}.swaps td:nth-child(3)::before{content:"replaced"}
.swaps td:nth-child(4)::before{content:"come"}.swaps td:nth-child(5)::before{content:"go"}
}
"""


def render(values: dict[str, Any]) -> str:
    """The whole page as text; `values` as `study` returns them."""
    return document(
        f"{values['name']} · {values['system']} inspected",
        _header(values),
        _differences(values),
        _swaps(values),
        _nearest(values),
        _map(values),
        _slices(values),
        paragraph(f"Written by uhman_jax {__version__}.", "note"),
        css=_CSS,
    )


def _header(values: dict[str, Any]) -> Markup:
    badges = [
        element("li", "Simulated data", class_="simulated")
        if values["simulated"]
        else element("li", "Real data"),
        element("li", f"Model {values['system']}"),
        element("li", f"Seed {values['seed']}"),
    ]
    return element(
        "header",
        paragraph("Hashtag recommendation for micro-videos · a look into a run", "eyebrow"),
        element("h1", values["name"]),
        element("ul", badges, class_="badges"),
        paragraph(_lead(values), "lead"),
        _stats(values),
    )


def _lead(values: dict[str, Any]) -> str:
    text = (
        f"Who posts a clip changes what is suggested for it. This page shows how, for the "
        f"{values['top_k']} best hashtags of every test clip."
    )
    if values["simulated"]:
        text += " Users, hashtags and clips are simulated: it says nothing of real people."
    return text


def _stats(values: dict[str, Any]) -> Markup | None:
    """For each attribute the most that it changes, by the value that changes the most."""
    most: dict[str, float] = {}
    for swap in values["swaps"].get("values", []):
        if swap["value"] != "unknown":
            attribute = swap["attribute"]
            most[attribute] = max(most.get(attribute, 0.0), swap["changed"])
    cells = [
        element("div", element("dt", f"{_TITLES[name]} swapped"), element("dd", _changed(share)))
        for name, share in most.items()
    ]
    return element("dl", cells, class_="card stats") if cells else None


def _changed(share: float) -> Markup:
    return join(tables.percent(share), element("small", "of clips change, at most"))


def _differences(values: dict[str, Any]) -> Markup:
    found = values["differences"]
    if not found["kinds"] or not found["num_hashtags"]:
        text = (
            f"Too few test users for a comparison: {found['num_users']} in all, and a kind of user "
            f"needs {found['min_users']}, as does a hashtag."
        )
        return part("Who gets what", paragraph(text))
    reach = max(
        (
            abs(bound)
            for kind in found["kinds"]
            for entry in _shown(kind)
            for name in ("suggested", "used")
            for bound in entry[name]["interval"]
        ),
        default=1.0,
    )
    text = (
        "The strongest differences between the users of a kind and all other test users. Each user "
        "counts once. Beside what is suggested stands what they write on the same clips: a bias "
        "that is learnt shows in both, one that is added in the first alone. "
        f"A clip gets {count_of(values['top_k'], 'suggestion')} and has "
        f"{found['used_per_clip']:.1f} hashtags of its own on average, so a preference looks "
        "larger in the first."
    )
    method = (
        f"Whiskers are 95 % intervals (Newcombe's, users as units). For what is suggested, "
        f"{tables.count(found['num_intervals'])} were looked at and all hold together "
        "(Bonferroni); only differences whose interval is clear of 0 are drawn. For what is "
        "written, each holds by itself, and “not seen” may mean too few clips to tell. "
        f"{count_of(found['num_users'], 'user')} and "
        f"{count_of(found['num_clips'], 'clip')}; "
        f"{count_of(found['num_hashtags'], 'hashtag')} that at least "
        f"{found['min_users']} users get or write."
    )
    key = element(
        "div",
        element("span", element("i"), "suggested"),
        element("span", element("i", class_="used"), "written"),
        element("span", "in percentage points: these users − all others"),
        class_="key",
    )
    groups = []
    for attribute, title in _TITLES.items():
        kinds = [kind for kind in found["kinds"] if kind["attribute"] == attribute]
        if kinds:
            groups += [element("h3", title), *_kinds(kinds, reach)]
    return part("Who gets what", paragraph(text), paragraph(method, "note"), key, groups)


def _shown(kind: dict[str, Any]) -> list[dict[str, Any]]:
    return [entry for entry in kind["strongest"] if entry["sure"]][:SHOWN]


def _kinds(kinds: list[dict[str, Any]], reach: float) -> list[Markup]:
    """A card for each kind with differences, and a line for those without."""
    cards = [_kind(kind, reach) for kind in kinds if kind["num_sure"]]
    alike = [
        f"{kind['value']} ({count_of(kind['num_users'], 'user')})"
        for kind in kinds
        if not kind["num_sure"]
    ]
    text = f"No difference that is clear of chance: {', '.join(alike)}."
    note = [paragraph(text, "note")] if alike else []
    return [element("div", cards, class_="kinds"), *note] if cards else note


def _kind(kind: dict[str, Any], reach: float) -> Markup:
    shown = _shown(kind)
    users = f"{count_of(kind['num_users'], 'user')}, {count_of(kind['num_clips'], 'clip')}"
    if kind["num_sure"] > len(shown):
        users += f" · {len(shown)} of {kind['num_sure']} differences"
    head = element("h4", element("bdi", kind["value"]))
    rows = [_difference(entry, reach) for entry in shown]
    return element("article", element("header", head, element("small", users)), rows, class_="card")


def _difference(entry: dict[str, Any], reach: float) -> Markup:
    css = "use" if entry["use"] == "shown" else "use warn"
    who = element(
        "div",
        element("b", element("bdi", f"#{entry['hashtag']}")),
        element("span", _USE[entry["use"]], class_=css),
        class_="who",
    )
    lines = [
        element(
            "div",
            element("span", label),
            _axis(entry[name], reach),
            element("span", element("b", _points(entry[name]["difference"])), _rates(entry[name])),
            class_=f"pair {name}",
        )
        for name, label in (("suggested", "suggested"), ("used", "written"))
    ]
    return element("div", who, lines, class_="diff")


def _axis(numbers: dict[str, Any], reach: float) -> Markup:
    """A bar from 0 in the middle, and the whisker of its interval."""

    def span(low: float, high: float) -> str:
        left, right = (50 + 50 * bound / reach for bound in (low, high))
        return f"left:{left:.2f}%;width:{right - left:.2f}%"

    value = numbers["difference"]
    fill = element("i", class_="fill", style=span(min(value, 0), max(value, 0)))
    whisker = element("i", class_="whisker", style=span(*numbers["interval"]))
    return element("span", fill, whisker, class_="axis")


def _points(value: float) -> str:
    r"""A difference in percentage points.

    >>> _points(0.123), _points(-0.5), _points(0.001)
    ('+12', '−50', '0')
    """
    rounded = round(100 * value)
    return f"{rounded:+d}".replace("-", "−") if rounded else "0"


def _rates(numbers: dict[str, Any]) -> Markup:
    here, elsewhere = tables.percent(numbers["here"]), tables.percent(numbers["elsewhere"])
    return element("small", f"{here} against {elsewhere}")


def _swaps(values: dict[str, Any]) -> Markup:
    title = "The same clips, posted by somebody else"
    found = values["swaps"]
    if "skipped" in found:
        return part(title, element("p", found["skipped"], class_="placeholder", role="note"))
    text = (
        f"{count_of(found['num_clips'], 'test clip')}, with one attribute of the user set to "
        "another value; clip and history stay. Unlike above, nothing but this value can be the "
        "cause. “Changed” "
        f"is the share of clips whose {values['top_k']} best hashtags are not the same ones; "
        "“replaced” how many of them are others; then the hashtags that come and go most often, "
        "with the share of clips."
    )
    figures = []
    for attribute, name in _TITLES.items():
        swaps = [swap for swap in found["values"] if swap["attribute"] == attribute]
        rows = [_swap_row(swap) for swap in swaps if swap["num_clips"]]
        if len(rows) > 1:
            names = ("Changed", "Replaced", "Come", "Go")
            head = [
                element("th", word, scope="col", class_="number" if i < 2 else None)
                for i, word in enumerate(names)
            ]
            top = element("thead", element("tr", element("th", "Set to"), head))
            table = element("table", top, element("tbody", rows), class_="swaps")
            caption = element("figcaption", name)
            figures.append(element("figure", caption, table, class_="card"))
    return part(title, paragraph(text), figures)


def _swap_row(swap: dict[str, Any]) -> Markup:
    clips = element("small", count_of(swap["num_clips"], "clip"))
    return element(
        "tr",
        element("th", element("bdi", swap["value"]), scope="row"),
        element("td", tables.percent(swap["changed"]), clips, class_="number"),
        element("td", f"{swap['replaced']:.1f}", class_="number"),
        element("td", _names(swap["enter"]), class_="names"),
        element("td", _names(swap["leave"]), class_="names"),
    )


def _names(pairs: list[Any]) -> Markup:
    """Hashtags with a share each; a dash where there are none."""
    if not pairs:
        return join("–")
    return join(
        [
            element("span", element("bdi", f"#{name}"), element("small", tables.percent(share)))
            for name, share in pairs[:4]
        ]
    )


def _nearest(values: dict[str, Any]) -> Markup:
    text = (
        "The most used hashtags, and those whose vectors point the most the same way: the model "
        "suggests them for much the same clips and users. Small figures are cosines; 1 is the same "
        "direction."
    )
    rows = [
        element(
            "tr",
            element("th", element("bdi", f"#{name}"), scope="row"),
            element(
                "td",
                [
                    element("span", element("bdi", f"#{other}"), element("small", f"{cosine:.2f}"))
                    for other, cosine in others[:6]
                ],
                class_="names",
            ),
        )
        for name, others in values["nearest"].items()
    ]
    table = element("table", element("tbody", rows), class_="near")
    card = element("div", element("div", table, class_="scroll"), class_="card")
    return part("Nearest hashtags", paragraph(text), card)


def _map(values: dict[str, Any]) -> Markup:
    found = values["map"]
    text = (
        "Every dot is a hashtag, the larger the more used; the most used that fit are named. "
        f"The two directions shown (principal components) hold "
        f"{tables.percent(found['share_of_variance'])} of the variance, so dots that are near each "
        "other here may be far apart in the other directions, but not the other way round."
    )
    drawn = element("div", hashtag_map.draw(found), class_="scroll", tabindex=0)
    return part("A map of the hashtags", paragraph(text), element("figure", drawn, class_="card"))


def _slices(values: dict[str, Any]) -> Markup | None:
    figures = tables.slices(read_slices(values["slices"]))
    if not figures:
        return None
    seeds = values["num_seeds"]
    text = "Test clips in groups" + (f"; means over {seeds} seeds." if seeds > 1 else ".")
    grid = element("div", figures, class_="grid")
    return part("For whom it works", paragraph(text), grid)
