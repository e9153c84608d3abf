"""Builds the overview and the tables of attention, test groups, sizes and recipe choices."""

from collections.abc import Iterator, Sequence
from typing import Any

from experiments.paper import summary
from experiments.paper.claims import gap_text, signed, sweep
from experiments.paper.layout import Entry, Row, Table, percent, score, setting, share
from experiments.paper.stats import Estimate, difference
from experiments.paper.summary import Cell

FACTS = {
    "object": ("object_mass", "object_chance", "Regions with any object"),
    "tagged": ("tagged_mass", "tagged_chance", "Regions with the tagged object"),
    "frame": ("tagged_frame_mass", "tagged_frame_chance", "Frames with the tagged object"),
    "top_region": ("top_region_tagged", "top_region_tagged_chance", "Top region has it"),
    "top_frame": ("top_frame_tagged", "top_frame_tagged_chance", "Top frame has it"),
}
_GROUPS = {"user": "P@10", "frequency": "R@10"}  # metric of each kind of slice
_BESIDE = ("observable_oracle", "oracle", "popularity")


def build_overview(cells: Sequence[Cell]) -> Table:
    """Tabulates P@10 of every system by world, view and recipe."""
    systems = [name for name in summary.SYSTEMS if summary.select(cells, system=name)]
    rows = []
    for name, row in _overview_rows(cells):
        scores = [summary.estimate(summary.where(row, system=s), "P@10") for s in systems]
        scores += [summary.reference(row, reference, "P@10") for reference in _BESIDE]
        rows.append(Row(name, tuple(map(score, scores))))
    columns = (*systems, *(summary.REFERENCES[reference] for reference in _BESIDE))
    note = "Of test videos, with 95 % intervals."
    return _overview("P@10 of every system", columns, rows, note)


def build_gaps(cells: Sequence[Cell]) -> Table:
    """Tabulates the difference in P@10 between UHMAN and every other system, in the same rows."""
    systems = [name for name in summary.SYSTEMS[:-1] if summary.select(cells, system=name)]
    rows = []
    for name, row in _overview_rows(cells):
        ours, *others = (
            summary.values(summary.where(row, system=s), "P@10") for s in ("UHMAN", *systems)
        )
        rows.append(Row(name, tuple(Entry(gap_text(difference(ours, other))) for other in others)))
    note = "Datasets differ more than systems do, so differences are computed within each dataset."
    return _overview("P@10 of UHMAN less the other's", tuple(systems), rows, note)


def _overview_rows(cells: Sequence[Cell]) -> Iterator[tuple[str, list[Cell]]]:
    for world, recipe in summary.settings(cells):
        for view in summary.present(cells, "view", summary.VIEWS):
            if row := summary.select(cells, world=world, view=view, recipe=recipe):
                yield f"{world}, {view}, {recipe}", row


def _overview(title: str, columns: tuple[str, ...], rows: list[Row], note: str) -> Table:
    label = "World, view, recipe"
    return Table("overview", title, columns, tuple(rows), notes=(note,), label=label)


def build_attention(cells: Sequence[Cell], *, recipe: str) -> Table:
    """Tabulates the fraction of attention on objects, with chance level, for the natural view."""
    rows = []
    chosen = summary.select(cells, view="natural", recipe=recipe)
    for world in summary.present(chosen, "world", summary.WORLDS):
        for system in summary.ATTENDING:
            row = summary.where(chosen, world=world, system=system)
            facts = [attention(row, fact) for fact in FACTS]
            if any(mass is not None for mass, _ in facts):
                entries = tuple(_fact(mass, chance) for mass, chance in facts)
                rows.append(Row(f"{system}, {world}", entries, _kind(system)))
    columns = tuple(title for _, _, title in FACTS.values())
    note = (
        "Regions and frames: fraction of the attention, in brackets with uniform attention. Top: "
        "fraction of clips whose most attended region or frame has the tagged object, in brackets "
        "for one drawn at random."
    )
    title = f"Attention, recipe {recipe}"
    return Table("attention", title, columns, tuple(rows), notes=(note,), label="System, world")


def attention(cells: Sequence[Cell], fact: str) -> tuple[Estimate | None, Estimate | None]:
    """Estimates a fact and its chance level from the cells of one row."""
    mass, chance, _ = FACTS[fact]
    known = [cell | {"facts": _lists(cell.get("attention") or {})} for cell in cells]
    return summary.estimate(known, mass, "facts"), summary.estimate(known, chance, "facts")


def _lists(facts: dict[str, Any]) -> dict[str, list[float]]:
    """Returns lists also for facts that are stored as one number for all seeds."""
    return {key: value if isinstance(value, list) else [value] for key, value in facts.items()}


def _kind(system: str) -> str:
    return "model" if system == "UHMAN" else "system"


def _fact(mass: Estimate | None, chance: Estimate | None) -> Entry:
    entry = share(mass)
    if mass is None or chance is None:
        return entry
    return Entry(entry.text, f"{entry.small} ({percent(chance.mean)})".strip())


def build_slices(cells: Sequence[Cell], *, world: str, view: str, recipe: str) -> Table:
    """Tabulates P@10 by group of users and R@10 by frequency of hashtags."""
    fitting = summary.select(cells, world=world, view=view, recipe=recipe)
    kinds: dict[tuple[str, str], set[int]] = {}
    for cell in fitting:
        for entry in cell.get("slices") or []:
            if entry["by"] in _GROUPS:
                counts = kinds.setdefault((entry["by"], _group(entry)), set())
                counts.add(entry["num_videos"])
    groups = [group for by in _GROUPS for group in kinds if group[0] == by]
    rows = []
    for system in summary.SYSTEMS:
        if row := summary.where(fitting, system=system):
            entries = tuple(score(slice_estimate(row, *group)) for group in groups)
            rows.append(Row(system, entries, _kind(system)))
    columns = tuple(
        f"{name}, {_GROUPS[by]} ({_span(kinds[by, name])} clips)" for by, name in groups
    )
    note = (
        "Users: P@10 of their clips. Hashtags, in thirds of the vocabulary by training uses: R@10 "
        "with only the hashtags of the third. Means over seeds and datasets."
    )
    title = f"Users and hashtags, {view.replace('_', ' ')}"
    return Table("slices", title, columns, tuple(rows), setting(world, recipe), (note,))


def slice_estimate(cells: Sequence[Cell], by: str, name: str) -> Estimate | None:
    """Estimates the metric of a group: P@10 for users, R@10 for hashtags."""
    known = []
    for cell in cells:
        for entry in cell.get("slices") or []:
            if entry["by"] == by and _group(entry) == name:
                known.append(cell | {"slice": {_GROUPS[by]: [entry.get(_GROUPS[by])]}})
    return summary.estimate(known, _GROUPS[by], "slice")


def _group(entry: dict) -> str:
    """Returns the name without counts, which differ by dataset: "rare: 8 to 12 uses" is "rare"."""
    return str(entry["name"]).split(":")[0]


def _span(counts: set[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"


def build_sweep(cells: Sequence[Cell], part: str, key: str, name: str) -> Table:
    """Tabulates Fig. 4: a row for each size, world and recipe."""
    rows = []
    title, columns = f"Fig. 4, {name}: UHMAN, natural", ("P@10", "R@10", "F1@10")
    for world, recipe in summary.settings(cells):
        fitting = summary.where(cells, world=world, recipe=recipe)
        for size, row in sweep(fitting, part, key).items():
            entries = tuple(score(summary.estimate(row, metric)) for metric in columns)
            rows.append(Row(f"{name} = {size}, {world}, {recipe}", entries))
    return Table("sweep", title, columns, tuple(rows), label="Size, world, recipe")


def build_samples(cells: Sequence[Cell], *, world: str, recipe: str) -> Table:
    """Tabulates P@10 and the difference to UHMAN by fraction of the training videos."""
    fitting = summary.select(
        cells, part=summary.SAMPLE_SIZE, world=world, view="natural", recipe=recipe
    )
    fractions = sorted({cell["data_share"] for cell in fitting})
    rows = []
    for system in summary.present(fitting, "system", summary.SYSTEMS):
        entries: list[Entry] = []
        for fraction in fractions:
            row, uhman = (
                summary.where(fitting, system=name, data_share=fraction)
                for name in (system, "UHMAN")
            )
            gap = difference(summary.values(uhman, "P@10"), summary.values(row, "P@10"))
            entries += [score(summary.estimate(row, "P@10")), _gap(gap, system == "UHMAN")]
        if len({cell["data_share"] for cell in summary.where(fitting, system=system)}) > 1:
            rows.append(Row(system, tuple(entries), _kind(system)))
    columns = tuple(
        name for fraction in fractions for name in (f"P@10, {fraction:.0%} of it", "UHMAN − row")
    )
    note = "Fraction of the training videos; the vocabulary and the test videos are the same."
    title = "P@10 with more training videos"
    return Table("sizes", title, columns, tuple(rows), setting(world, recipe), (note,))


def _gap(gap: Estimate | None, of_itself: bool) -> Entry:
    if gap is None or of_itself:
        return Entry("" if of_itself else "–")
    return Entry(signed(gap.mean), "" if gap.half_width is None else f"± {gap.half_width:.4f}")


def build_recipe(cells: Sequence[Cell], *, world: str, recipe: str) -> Table:
    """Tabulates UHMAN with one choice of the recipe changed, on the natural view."""
    fields = {"world": world, "view": "natural", "recipe": recipe, "system": "UHMAN"}
    whole = summary.select(cells, **fields)
    changed = summary.select(cells, part=summary.RECIPE, **fields)
    rows = [Row("the recipe", _recipe_entries(whole, whole), "model")] if changed else []
    for variant in dict.fromkeys(cell["variant"] for cell in changed):
        row = summary.where(changed, variant=variant)
        rows.append(Row(variant.replace("_", " "), _recipe_entries(row, whole)))
    columns = ("validation P@10", "worse by, validation", "test P@10", "worse by, test")
    note = "Worse by: the recipe minus the row, paired by dataset. Choices are made on validation."
    title = f"Choices of the recipe {recipe}"
    return Table(
        "recipe", title, columns, tuple(rows), setting(world, recipe), (note,), label="UHMAN"
    )


def _recipe_entries(row: Sequence[Cell], whole: Sequence[Cell]) -> tuple[Entry, ...]:
    entries = []
    for split in ("validation", "test"):
        entries.append(score(summary.estimate(row, "P@10", split)))
        sides = [summary.values(side, "P@10", split) for side in (whole, row)]
        gap = None if row is whole else difference(*sides)
        entries.append(_gap(gap, row is whole))
    return tuple(entries)
