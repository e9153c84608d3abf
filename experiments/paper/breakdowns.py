"""Tables behind the figures: attention, groups of test clips, the sweeps of K and d."""

from collections.abc import Sequence
from typing import Any

from experiments.paper import summary
from experiments.paper.claims import signed, sweep
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
_GROUPS = {"user": "P@10", "frequency": "R@10"}  # the metric that a kind of slice is shown in


def build_attention(cells: Sequence[Cell], *, recipe: str) -> Table:
    """Share of attention on what matters, with chance beside it, over the natural split."""
    rows = []
    chosen = summary.select(cells, view="natural", recipe=recipe)
    for world in summary.present(chosen, "world", summary.WORLDS):
        for system in summary.ATTENDING:
            fitting = [c for c in chosen if (c["world"], c["system"]) == (world, system)]
            facts = [attention(fitting, fact) for fact in FACTS]
            if any(mass is not None for mass, _ in facts):
                entries = tuple(_fact(mass, chance) for mass, chance in facts)
                kind = "model" if system == "UHMAN" else "system"
                rows.append(Row(f"{system}, {world}", entries, kind))
    columns = tuple(title for _, _, title in FACTS.values())
    note = (
        "Regions and frames: share of the attention, and in brackets what looking everywhere alike "
        "would give. Top: share of clips whose most attended place has the tagged object, and in "
        "brackets what a place drawn by lot would give."
    )
    title = f"Attention, recipe {recipe}"
    return Table("attention", title, columns, tuple(rows), notes=(note,), label="System, world")


def attention(cells: Sequence[Cell], fact: str) -> tuple[Estimate | None, Estimate | None]:
    """Estimates of a fact and of its chance level, from the cells of one row."""
    known = [{**cell, "facts": _lists(cell.get("attention"))} for cell in cells]
    mass, chance, _ = FACTS[fact]
    return summary.estimate(known, mass, "facts"), summary.estimate(known, chance, "facts")


def _lists(facts: dict[str, Any] | None) -> dict[str, list[float]]:
    """Facts that are the same for all seeds may come as one number."""
    return {
        key: value if isinstance(value, list) else [value] for key, value in (facts or {}).items()
    }


def _fact(mass: Estimate | None, chance: Estimate | None) -> Entry:
    entry = share(mass)
    if mass is None or chance is None:
        return entry
    return Entry(entry.text, f"{entry.small} ({percent(chance.mean)})".strip())


def build_slices(cells: Sequence[Cell], *, world: str, view: str, recipe: str) -> Table:
    """Groups of test clips as columns: P@10 by what is known of users, R@10 by frequency."""
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
        row = [cell for cell in fitting if cell["system"] == system]
        if row:
            entries = tuple(score(slice_estimate(row, *group)) for group in groups)
            rows.append(Row(system, entries, "model" if system == "UHMAN" else "system"))
    columns = tuple(
        f"{name}, {_GROUPS[by]} ({_span(kinds[by, name])} clips)" for by, name in groups
    )
    note = (
        "Users: P@10 of their clips. Hashtags, in thirds of the vocabulary by training uses: share "
        "of the third's hashtags that stand among the first ten. Means over seeds and worlds."
    )
    title = f"Users and hashtags, {view.replace('_', ' ')}"
    return Table("slices", title, columns, tuple(rows), setting(world, recipe), (note,))


def slice_estimate(cells: Sequence[Cell], by: str, name: str) -> Estimate | None:
    """Mean over worlds of a group's metric, P@10 for users and R@10 for hashtags."""
    known = []
    for cell in cells:
        for entry in cell.get("slices") or []:
            if entry["by"] == by and _group(entry) == name:
                known.append({**cell, "slice": {_GROUPS[by]: [entry.get(_GROUPS[by])]}})
    return summary.estimate(known, _GROUPS[by], "slice")


def _group(entry: dict) -> str:
    """Name without the counts, which differ from world to world: "rare: 8 to 12 uses"."""
    return str(entry["name"]).split(":")[0]


def _span(counts: set[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"


def build_sweep(cells: Sequence[Cell], part: str, key: str, name: str) -> Table:
    """The numbers of Fig. 4: sizes as rows, worlds and recipes one after the other."""
    rows = []
    for world, recipe in summary.settings(cells):
        fitting = [c for c in cells if (c["world"], c["recipe"]) == (world, recipe)]
        for size, row in sweep(fitting, part, key).items():
            entries = tuple(score(summary.estimate(row, m)) for m in ("P@10", "R@10", "F1@10"))
            rows.append(Row(f"{name} = {size}, {world}, {recipe}", entries))
    title, columns = f"Fig. 4, {name}: UHMAN, natural", ("P@10", "R@10", "F1@10")
    return Table("sweep", title, columns, tuple(rows), label="Size, world, recipe")


def build_samples(cells: Sequence[Cell], *, world: str, recipe: str) -> Table:
    """Systems with ever more of the training videos, and by how much UHMAN is ahead with each."""
    where = {"part": summary.SAMPLE_SIZE, "world": world, "view": "natural", "recipe": recipe}
    fitting = summary.select(cells, **where)
    shares = sorted({cell["data_share"] for cell in fitting})
    rows = []
    for system in summary.present(fitting, "system", summary.SYSTEMS):
        entries: list[Entry] = []
        for part in shares:
            row, uhman = (
                [c for c in fitting if (c["system"], c["data_share"]) == (name, part)]
                for name in (system, "UHMAN")
            )
            gap = difference(summary.values(uhman, "P@10"), summary.values(row, "P@10"))
            entries += [score(summary.estimate(row, "P@10")), _gap(gap, system == "UHMAN")]
        measured = len({c["data_share"] for c in fitting if c["system"] == system})
        if measured > 1:
            rows.append(Row(system, tuple(entries), "model" if system == "UHMAN" else "system"))
    columns = tuple(name for part in shares for name in (f"P@10, {part:.0%} of it", "UHMAN − row"))
    note = "Share of the training videos; the vocabulary and the test videos are the same."
    title = "P@10 with more training videos"
    return Table("sizes", title, columns, tuple(rows), setting(world, recipe), (note,))


def _gap(gap: Estimate | None, of_itself: bool) -> Entry:
    if gap is None or of_itself:
        return Entry("" if of_itself else "–")
    return Entry(signed(gap.mean), "" if gap.half_width is None else f"± {gap.half_width:.4f}")


def build_recipe(cells: Sequence[Cell], *, world: str, recipe: str) -> Table:
    """What each choice of a recipe is worth: UHMAN with another one, natural view, same worlds."""
    where = {"world": world, "view": "natural", "recipe": recipe, "system": "UHMAN"}
    whole = summary.select(cells, **where)
    changed = summary.select(cells, part=summary.RECIPE, **where)
    rows = [Row("the recipe", _recipe_entries(whole, whole), "model")] if changed else []
    for variant in dict.fromkeys(cell["variant"] for cell in changed):
        row = [cell for cell in changed if cell["variant"] == variant]
        rows.append(Row(variant.replace("_", " "), _recipe_entries(row, whole)))
    columns = ("validation P@10", "worse by, validation", "test P@10", "worse by, test")
    note = "Worse by: the recipe minus the row, paired by world. Choices are made on validation."
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
