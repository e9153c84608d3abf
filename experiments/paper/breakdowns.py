"""Builds the overview and the tables of attention, test groups, sizes and recipe choices."""

from collections.abc import Sequence

from experiments.paper import summary
from experiments.paper.layout import Entry, Row, Table, gap_text, score, setting, share, signed
from experiments.paper.stats import Estimate, difference
from experiments.paper.summary import Cell
from uhman_jax.report.tables import percent

FACTS = {  # measures of attention with their titles; `attention` adds chance levels
    "object_mass": "Regions with any object",
    "tagged_mass": "Regions with the tagged object",
    "tagged_frame_mass": "Frames with the tagged object",
    "top_region_tagged": "Top region has it",
    "top_frame_tagged": "Top frame has it",
}
_GROUPS = {"user": "P@10", "frequency": "R@10"}  # metric of each kind of slice
_OVERVIEW_REFERENCES = ("observable_oracle", "oracle", "popularity")


def build_overview(cells: Sequence[Cell]) -> list[Table]:
    """Tabulates P@10 of every system by world, view and recipe, and the differences from UHMAN."""
    systems = summary.present(summary.select(cells), "system", summary.SYSTEMS)
    others = [name for name in systems if name != "UHMAN"]
    scores, gaps = [], []
    for world, recipe in summary.settings(cells):
        for view in summary.present(cells, "view", summary.VIEWS):
            fitting = summary.select(cells, world=world, view=view, recipe=recipe)
            if not fitting:
                continue
            rows = {name: summary.where(fitting, system=name) for name in (*systems, "UHMAN")}
            estimates = [summary.estimate(rows[name], "P@10") for name in systems]
            estimates += [summary.estimate(fitting, "P@10", name) for name in _OVERVIEW_REFERENCES]
            p10 = {name: summary.values(row, "P@10") for name, row in rows.items()}
            texts = [gap_text(difference(p10["UHMAN"], p10[name])) for name in others]
            label = f"{world}, {view}, {recipe}"
            scores.append(Row(label, list(map(score, estimates))))
            gaps.append(Row(label, list(map(Entry, texts))))
    columns = (*systems, *(summary.REFERENCES[name] for name in _OVERVIEW_REFERENCES))
    note = "Datasets differ more than systems do, so differences are computed within each dataset."
    return [
        Table("overview", title, columns, rows, notes=(note,), label="World, view, recipe")
        for title, columns, rows, note in (
            ("P@10 of every system", columns, scores, "Test videos, with 95 % intervals."),
            ("P@10: UHMAN − other system", others, gaps, note),
        )
    ]


def build_attention(cells: Sequence[Cell], *, recipe: str) -> Table:
    """Tabulates the fraction of attention on objects, with chance level, for the natural view."""
    rows = []
    chosen = summary.select(cells, view="natural", recipe=recipe)
    for world in summary.present(chosen, "world", summary.WORLDS):
        for system in summary.ATTENDING:
            row = summary.where(chosen, world=world, system=system)
            facts = [attention(row, fact) for fact in FACTS]
            if any(mass is not None for mass, _ in facts):
                entries = [_fact(mass, chance) for mass, chance in facts]
                rows.append(Row(f"{system}, {world}", entries, _kind(system)))
    note = (
        "Regions and frames: fraction of the attention (in brackets: of uniform attention). Top: "
        "fraction of clips whose most attended region or frame has the tagged object (in brackets: "
        "of a random region or frame)."
    )
    title, columns = f"Attention, recipe {recipe}", list(FACTS.values())
    return Table("attention", title, columns, rows, notes=(note,), label="System, world")


def attention(cells: Sequence[Cell], fact: str) -> tuple[Estimate | None, Estimate | None]:
    """Estimates a measure of FACTS and its chance level from the cells of one row."""
    chance = f"{fact.removesuffix('_mass')}_chance"
    return summary.estimate(cells, fact, "attention"), summary.estimate(cells, chance, "attention")


def _kind(system: str) -> str:
    return "model" if system == "UHMAN" else "system"


def _fact(mass: Estimate | None, chance: Estimate | None) -> Entry:
    entry = share(mass)
    if mass is None or chance is None:
        return entry
    return Entry(entry.text, f"{entry.small} ({percent(chance.mean, decimals=1)})".strip())


def build_slices(cells: Sequence[Cell], *, world: str, view: str, recipe: str) -> Table:
    """Tabulates P@10 by user group and R@10 by hashtag frequency."""
    counts: dict[str, list[int]] = {}  # test clips of each group, per cell
    found = []
    for cell in summary.select(cells, world=world, view=view, recipe=recipe):
        scores = {}
        for entry in cell["slices"]:
            # Names end with counts, which differ by dataset: "rare: 8 to 12 uses" is "rare".
            group = f"{entry['name'].split(':')[0]}, {_GROUPS[entry['by']]}"
            counts.setdefault(group, []).append(entry["num_videos"])
            scores[group] = [entry.get(_GROUPS[entry["by"]])]
        found.append(cell | {"groups": scores})
    groups = sorted(counts, key=lambda group: not group.endswith(_GROUPS["user"]))  # users first
    rows = []
    for system in summary.present(found, "system", summary.SYSTEMS):
        row = summary.where(found, system=system)
        entries = [score(summary.estimate(row, group, "groups")) for group in groups]
        rows.append(Row(system, entries, _kind(system)))
    columns = [f"{group} ({_span(counts[group])} clips)" for group in groups]
    note = (
        "Users: P@10 of their clips. Hashtags are in thirds of the vocabulary by training uses: "
        "R@10 counts only the hashtags of the third. Means over seeds and datasets."
    )
    title = f"Users and hashtags, {view.replace('_', ' ')}"
    return Table("slices", title, columns, rows, setting(world, recipe), (note,))


def _span(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"


def build_sweep(cells: Sequence[Cell], part: str) -> Table:
    """Tabulates a part of Fig. 4: a row for each size, world and recipe."""
    rows, name, columns = [], summary.SWEEPS[part][1], ("P@10", "R@10", "F1@10")
    for world, recipe in summary.settings(cells):
        fitting = summary.where(cells, world=world, recipe=recipe)
        for size, row in summary.sweep(fitting, part).items():
            entries = [score(summary.estimate(row, metric)) for metric in columns]
            rows.append(Row(f"{name} = {size}, {world}, {recipe}", entries))
    title = f"Fig. 4, {name}: UHMAN, natural"
    return Table("sweep", title, columns, rows, label="Size, world, recipe")


def build_samples(cells: Sequence[Cell], *, world: str, recipe: str) -> Table:
    """Tabulates P@10 and the difference from UHMAN by fraction of the training videos."""
    fields = {"part": summary.SAMPLE_SIZE, "world": world, "view": "natural", "recipe": recipe}
    fitting = summary.select(cells, **fields)
    fractions = sorted({cell["data_share"] for cell in fitting})
    rows = []
    for system in summary.present(fitting, "system", summary.SYSTEMS):
        own, entries = summary.where(fitting, system=system), []
        for fraction in fractions:
            row = summary.where(own, data_share=fraction)
            uhman = summary.where(fitting, system="UHMAN", data_share=fraction)
            entries += [score(summary.estimate(row, "P@10")), _gap(uhman, row)]
        if len({cell["data_share"] for cell in own}) > 1:
            rows.append(Row(system, entries, _kind(system)))
    columns = [
        name for fraction in fractions for name in (f"P@10, {fraction:.0%} of data", "UHMAN − row")
    ]
    note = (
        "Data: training videos. The vocabulary and the test videos are the same for all fractions."
    )
    title = "P@10 by number of training videos"
    return Table("sizes", title, columns, rows, setting(world, recipe), (note,))


def _gap(first: Sequence[Cell], second: Sequence[Cell], split: str = "test") -> Entry:
    """Formats the P@10 of the first row minus the second; empty if they are the same row."""
    if first == second:
        return Entry("")
    gap = difference(*(summary.values(row, "P@10", split) for row in (first, second)))
    if gap is None:
        return Entry()
    return Entry(signed(gap.mean), "" if gap.half_width is None else f"± {gap.half_width:.4f}")


def build_recipe(cells: Sequence[Cell], *, world: str, recipe: str) -> Table:
    """Tabulates UHMAN with one setting of the recipe changed, on the natural view."""
    fields = {"world": world, "view": "natural", "recipe": recipe, "system": "UHMAN"}
    whole = summary.select(cells, **fields)
    changed = summary.select(cells, part=summary.RECIPE, **fields)
    found = {"the recipe": whole} if changed else {}
    for variant in dict.fromkeys(cell["variant"] for cell in changed):
        found[variant.replace("_", " ")] = summary.where(changed, variant=variant)
    rows = []
    for label, row in found.items():
        entries = []
        for split in ("validation", "test"):
            entries += [score(summary.estimate(row, "P@10", split)), _gap(whole, row, split)]
        rows.append(Row(label, entries, "model" if row is whole else "system"))
    columns = ("validation P@10", "worse by, validation", "test P@10", "worse by, test")
    note = "Worse by: the recipe minus the row, paired by dataset. Choices are made on validation."
    title, where = f"Choices of the recipe {recipe}", setting(world, recipe)
    return Table("recipe", title, columns, rows, where, (note,), label="UHMAN")
