"""What the paper claims, and whether it holds here: one verdict per claim, world and recipe.

A comparison counts as settled when three things agree: the 95 % interval of the difference leaves 0
out (over worlds; over seeds within them where there are fewer than three worlds), every world has
the same sign, and the p value of the randomisation test over videos, corrected (Holm) over the
comparisons of its claim, is below 0.05. A claim holds when all its comparisons are settled its way,
fails when one is settled the other way, and is undecided else.
"""

import dataclasses
import enum
import functools
import math
import pathlib
from collections.abc import Sequence

from experiments.paper import published, stats, summary
from experiments.paper.stats import Estimate
from experiments.paper.summary import Cell
from uhman_jax.report.tables import number

LEVEL = 0.05
FLAT = 0.05  # share of the value at d = 32 within which the others count as the same; our choice
ORDER = ("BL", "UA", "3WM", "UHMAN")
# What ranks without learning; BL, which does not know the user, is compared with the first alone.
UNLEARNED = ("popularity", "user_attributes", "user_history")


class Verdict(enum.Enum):
    """Outcome of a claim."""

    HOLDS = "holds"
    FAILS = "does not"
    UNDECIDED = "undecided"
    MISSING = "–"  # not measured


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim of the paper in one world under one recipe.

    Attributes:
        name: short and the same in all worlds.
        paper: what the paper says, with its numbers.
        world: kind of world.
        recipe: how the systems were trained.
        verdict: whether it holds here.
        numbers: our numbers behind the verdict; "–" where nothing was measured.
    """

    name: str
    paper: str
    world: str
    recipe: str
    verdict: Verdict
    numbers: str


@dataclasses.dataclass(frozen=True)
class _Step:
    """That `high` scores more than `low`: gap = high - low, and p corrected over the claim."""

    low: str
    high: str
    gap: Estimate | None
    p: float | None


def claims(cells: Sequence[Cell], results: str | pathlib.Path = ".") -> list[Claim]:
    """Every claim for every world and recipe of the cells; those of one setting stand together.

    Args:
        cells: finished ones.
        results: folder that the cells' `per_video` paths are relative to.
    """
    found = []
    for world, recipe in summary.settings(cells):
        fitting = [cell for cell in cells if (cell["world"], cell["recipe"]) == (world, recipe)]
        checks = [functools.partial(_order, view=view) for view in ("natural", "balanced")]
        checks += [functools.partial(_best, view=view) for view in ("natural", "balanced")]
        checks += [functools.partial(_ablation, variant=name) for name in ("UHMAN(a)", "UHMAN(b)")]
        checks += [_hidden_size, _embedding_size]
        checks += [functools.partial(_falls, metric=name) for name in ("P@10", "R@10", "F1@10")]
        checks += [functools.partial(_beats, view=view) for view in ("natural", "balanced")]
        for check in checks:
            name, paper, verdict, numbers = check(fitting, results)
            found.append(Claim(name, paper, world, recipe, verdict, numbers or "–"))
    return found


def settle(gap: Estimate | None, p: float | None, *, tested: bool = True) -> Verdict:
    """Verdict on "the difference is above 0".

    Args:
        gap: the difference.
        p: corrected.
        tested: False where no test over videos applies, and the interval alone decides.
    """
    if gap is None:
        return Verdict.MISSING
    sure = gap.agree and gap.half_width is not None and abs(gap.mean) > gap.half_width
    if tested:
        sure = sure and p is not None and p < LEVEL
    if not sure:
        return Verdict.UNDECIDED
    return Verdict.HOLDS if gap.mean > 0 else Verdict.FAILS


def together(verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict on a claim of several parts: all must hold, and one that fails is enough."""
    for verdict in (Verdict.FAILS, Verdict.MISSING, Verdict.UNDECIDED):
        if verdict in verdicts:
            return verdict
    return Verdict.HOLDS if verdicts else Verdict.MISSING


def p_text(p: float | None) -> str:
    """A p value to two digits.

    >>> p_text(0.00029997), p_text(None), p_text(1.0)
    ('0.0003', '–', '1')
    """
    return "–" if p is None else f"{p:.2g}"


def gap_text(gap: Estimate | None) -> str:
    r"""A signed difference with its interval.

    >>> gap_text(Estimate(-0.01234, 0.002, "worlds", 3, True))
    '−0.0123\u202f±\u202f0.0020'
    """
    if gap is None:
        return "–"
    width = "" if gap.half_width is None else f"\u202f±\u202f{gap.half_width:.4f}"
    return signed(gap.mean) + width


def signed(value: float) -> str:
    """Four decimals with a sign.

    >>> signed(-0.01234)
    '−0.0123'
    """
    return f"{value:+.4f}".replace("-", "−")


def percent_change(before: float | None, after: float | None) -> str:
    r"""Signed relative change; a dash where there is none.

    >>> percent_change(0.0849, 0.0507)
    '−40.3\u202f%'
    """
    if not before or after is None:
        return "–"
    return f"{100 * (after / before - 1):+.1f}\u202f%".replace("-", "−")


def corrected(
    pairs: Sequence[tuple[str, list[Cell], str, list[Cell]]], results: str | pathlib.Path
) -> list[_Step]:
    """Compares (low name, low cells, high name, high cells); p by Holm over those that have one."""
    tests = [summary.compare(high, low, results) for _, low, _, high in pairs]
    family = iter(stats.holm([p for _, p in tests if p is not None]))
    return [
        _Step(low, high, gap, None if p is None else next(family))
        for (low, _, high, _), (gap, p) in zip(pairs, tests, strict=True)
    ]


def _steps_text(steps: Sequence[_Step]) -> str:
    return "; ".join(
        f"{step.high} − {step.low}: {gap_text(step.gap)} (p\u00a0{p_text(step.p)})"
        for step in steps
        if step.gap is not None
    )


def _order(cells, results, *, view):
    rows = {name: summary.select(cells, view=view, system=name) for name in ORDER}
    steps_of_order = zip(ORDER, ORDER[1:], strict=False)
    pairs = [(low, rows[low], high, rows[high]) for low, high in steps_of_order]
    steps = corrected(pairs, results)
    printed = {name: published.value(view, name, "P@10") for name in ORDER}
    text = f"On the {view} distribution P@10 rises in the order " + ", ".join(
        f"{name} {number(value)}" for name, value in printed.items()
    )
    numbers = _steps_text(steps)
    best, second = (summary.estimate(rows[name], "P@10") for name in ("UHMAN", "3WM"))
    if best and second:
        numbers += (
            f"; UHMAN on 3WM {percent_change(second.mean, best.mean)} (paper "
            f"{percent_change(printed['3WM'], printed['UHMAN'])})"
        )
    verdict = together([settle(step.gap, step.p) for step in steps])
    return f"BL < UA < 3WM < UHMAN, {view}", text, verdict, numbers


def _best(cells, results, *, view):
    rows = {name: summary.select(cells, view=view, system=name) for name in ORDER}
    steps = corrected([(low, rows[low], "UHMAN", rows["UHMAN"]) for low in ORDER[:3]], results)
    text = f"On the {view} distribution UHMAN has the best P@10, on 3WM it gains " + percent_change(
        published.value(view, "3WM", "P@10"), published.value(view, "UHMAN", "P@10")
    )
    verdict = together([settle(step.gap, step.p) for step in steps])
    return f"UHMAN above BL, UA and 3WM, {view}", text, verdict, _steps_text(steps)


def _ablation(cells, results, *, variant):
    names = ("UHMAN(a)", "UHMAN(b)", "UHMAN")
    rows = {name: summary.select(cells, view="natural", system=name) for name in names}
    # Both variants are one family, though each is a claim of its own.
    steps = corrected([(name, rows[name], "UHMAN", rows["UHMAN"]) for name in names[:2]], results)
    step = steps[names.index(variant)]
    what = {"UHMAN(a)": "regions", "UHMAN(b)": "frames"}[variant]
    text = (
        f"Averaging {what} instead of attending to them costs P@10: "
        f"{number(published.value('natural', variant, 'P@10'))} against "
        f"{number(published.value('natural', 'UHMAN', 'P@10'))}"
    )
    numbers = _steps_text([step])
    return f"UHMAN above {variant}", text, settle(step.gap, step.p), numbers


def sweep(cells: Sequence[Cell], part: str, key: str) -> dict[int, list[Cell]]:
    """UHMAN's cells of a figure by the size that it varies, on the natural distribution."""
    chosen = summary.select(cells, part=part, view="natural", system="UHMAN")
    sizes = sorted({int(cell[key]) for cell in chosen})
    return {size: [cell for cell in chosen if int(cell[key]) == size] for size in sizes}


def _hidden_size(cells, results):
    """The best K is chosen on validation, so that its lead on the test split is no luck."""
    text = "As K grows from 8 to 128, P@10 first rises and then falls, K = 32 is chosen (Fig. 4a)"
    name = "K: rises, then falls"
    rows = sweep(cells, summary.HIDDEN_SIZE, "hidden_size")
    scores = {size: summary.estimate(row, "P@10", "validation") for size, row in rows.items()}
    means = {size: score.mean for size, score in scores.items() if score is not None}
    sizes = list(means)
    if len(sizes) < 3:
        return name, text, Verdict.MISSING, ""
    best = max(sizes, key=lambda size: means[size])
    inside = best not in (sizes[0], sizes[-1])
    if inside:
        others = [sizes[0], sizes[-1]]
    else:  # no rise or no fall: enough that the neighbour is surely worse
        others = [sizes[1] if best == sizes[0] else sizes[-2]]
    pairs = [(f"K = {size}", rows[size], f"K = {best}", rows[best]) for size in others]
    steps = corrected(pairs, results)
    verdict = together([settle(step.gap, step.p) for step in steps])
    if not inside:
        verdict = Verdict.FAILS if verdict == Verdict.HOLDS else Verdict.UNDECIDED
    curve = ", ".join(f"{size}: {_mean(rows[size])}" for size in sizes)
    numbers = f"best on validation: K = {best}; {_steps_text(steps)}; P@10 by K: {curve}"
    return name, text, verdict, numbers


def _embedding_size(cells, results):
    """Equivalence: flat where every interval of the difference to d = 32 lies within FLAT."""
    text = "P@10 remains stable as d varies from 16 to 128 (Fig. 4b)"
    name = "d: flat from 16 to 128"
    rows = sweep(cells, summary.EMBEDDING_SIZE, "embedding_size")
    rows = {size: row for size, row in rows.items() if 16 <= size <= 128}
    middle = summary.estimate(rows.get(published.D, []), "P@10")
    if middle is None or len(rows) < 2:
        return name, text, Verdict.MISSING, ""
    pairs = [
        (f"d = {published.D}", rows[published.D], f"d = {size}", row)
        for size, row in rows.items()
        if size != published.D
    ]
    steps = corrected(pairs, results)
    margin = FLAT * middle.mean
    verdict = together([_same(step, margin) for step in steps])
    curve = ", ".join(f"{size}: {_mean(row)}" for size, row in rows.items())
    numbers = f"margin ±{margin:.4f} (5\u202f%); {_steps_text(steps)}; P@10 by d: {curve}"
    return name, text, verdict, numbers


def _same(step: _Step, margin: float) -> Verdict:
    """Whether a difference is surely within the margin, or surely outside."""
    if step.gap is None:
        return Verdict.MISSING
    width = math.inf if step.gap.half_width is None else step.gap.half_width
    if abs(step.gap.mean) + width <= margin:
        return Verdict.HOLDS
    outside = abs(step.gap.mean) - width > margin and step.p is not None and step.p < LEVEL
    return Verdict.FAILS if outside else Verdict.UNDECIDED


def _falls(cells, results, *, metric):
    """The two views test on different clips, so the interval alone decides."""
    verdicts, ours, theirs = [], [], []
    for name in ORDER:
        views = [summary.select(cells, view=view, system=name) for view in ("natural", "balanced")]
        before, after = (summary.estimate(view, metric) for view in views)
        printed = [published.value(view, name, metric) for view in ("natural", "balanced")]
        theirs.append(f"{name} {percent_change(*printed)}")
        if before is None or after is None:
            verdicts.append(Verdict.MISSING)
            continue
        gap = stats.difference(*(summary.values(view, metric) for view in views))
        verdicts.append(settle(gap, None, tested=False))
        ours.append(
            f"{name} {number(before.mean)} → {number(after.mean)} "
            f"({percent_change(before.mean, after.mean)})"
        )
    text = f"From natural to balanced {metric} falls for every system: " + ", ".join(theirs)
    return f"Balanced is harder, {metric}", text, together(verdicts), "; ".join(ours)


def _beats(cells, results, *, view):
    """References have no per-video values, so the interval alone decides."""
    verdicts, failed = [], []
    for system in summary.SYSTEMS:
        row = summary.select(cells, view=view, system=system)
        for reference in UNLEARNED[:1] if system == "BL" else UNLEARNED:
            gap = summary.above_reference(row, reference, "P@10")
            verdicts.append(settle(gap, None, tested=False))
            if verdicts[-1] in (Verdict.FAILS, Verdict.UNDECIDED):
                failed.append(f"{system} − {summary.REFERENCES[reference]}: {gap_text(gap)}")
    measured = [verdict for verdict in verdicts if verdict is not Verdict.MISSING]
    text = "No claim of the paper: who has learned from more should rank better"
    numbers = "; ".join(failed) or f"all of {len(measured)} comparisons" * bool(measured)
    return f"Above popularity and history, {view}", text, together(measured), numbers


def _mean(cells: Sequence[Cell]) -> str:
    score = summary.estimate(cells, "P@10")
    return number(score.mean if score else None)
