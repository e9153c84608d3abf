"""Judges the paper's claims: one verdict per claim, world and recipe.

A comparison is settled if the 95 % interval of the difference excludes 0 (over datasets, or over
seeds if there are fewer than three datasets), the difference has the same sign on every dataset,
and the p value of the randomisation test over videos, corrected by Holm over the comparisons of the
claim, is below 0.05. A claim holds if all its comparisons are settled in its favour, fails if one
is settled against it, and is undecided otherwise.
"""

import dataclasses
import enum
import math
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

from experiments.paper import published, stats, summary
from experiments.paper.layout import gap_text, p_text, percent_change
from experiments.paper.stats import Estimate
from experiments.paper.summary import PAIR, Cell
from uhman_jax.report.tables import number

LEVEL = 0.05
UNTESTED = 0.0  # p value where no test over videos is possible: only the interval decides
FLAT = 0.05  # fraction of the value at d = 32 within which other values count as equal; our choice
ORDER = ("BL", "UA", "3WM", "UHMAN")
# Rankings without training. BL, which does not see the user, is compared only with the first.
UNLEARNED = ("popularity", "user_attributes", "user_history")


class Verdict(enum.Enum):
    """Outcome of a claim."""

    HOLDS = "holds"
    FAILS = "does not"
    UNDECIDED = "undecided"
    MISSING = "–"  # not measured


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim of the paper in one world under one recipe."""

    name: str  # the same in all worlds
    paper: str  # the paper's statement with its numbers
    world: str
    recipe: str
    verdict: Verdict
    numbers: str  # ours; "–" if nothing was measured


@dataclasses.dataclass(frozen=True)
class _Step:
    """The comparison "`high` scores more than `low`": gap = high - low, p corrected by Holm."""

    low: str
    high: str
    gap: Estimate | None
    p: float | None


_Judged = Iterator[tuple[str, str, Verdict, str]]  # name, paper, verdict, numbers of a claim
_Rows = Mapping[str, Sequence[Cell]]  # cells by the name of their row


def claims(cells: Sequence[Cell], results: pathlib.Path) -> list[Claim]:
    """Judges every claim for each world and recipe of the cells, in groups by world and recipe.

    Args:
        cells: finished cells.
        results: folder that the cells' `per_video` paths are relative to.
    """
    checks = (_order, _best, _ablations, _hidden_size, _embedding_size, _falls, _beats)
    return [
        Claim(name, paper, world, recipe, verdict, numbers or "–")
        for world, recipe in summary.settings(cells)
        for check in checks
        for name, paper, verdict, numbers in check(
            summary.where(cells, world=world, recipe=recipe), results
        )
    ]


def settle(gap: Estimate | None, p: float | None) -> Verdict:
    """Returns the verdict on "the difference is above 0", given its corrected p value."""
    if gap is None:
        return Verdict.MISSING
    sure = gap.agree and gap.half_width is not None and abs(gap.mean) > gap.half_width
    if not sure or p is None or p >= LEVEL:
        return Verdict.UNDECIDED
    return Verdict.HOLDS if gap.mean > 0 else Verdict.FAILS


def together(verdicts: Sequence[Verdict]) -> Verdict:
    """Returns the verdict on a claim: it holds if all parts hold, and fails if one part fails."""
    for verdict in (Verdict.FAILS, Verdict.MISSING, Verdict.UNDECIDED):
        if verdict in verdicts:
            return verdict
    return Verdict.HOLDS if verdicts else Verdict.MISSING


def corrected(rows: _Rows, pairs: Iterable[tuple[str, str]], results: pathlib.Path) -> list[_Step]:
    """Compares pairs (low, high) of rows and corrects their p values by Holm."""
    pairs = list(pairs)
    tests = [summary.compare(rows[high], rows[low], results) for low, high in pairs]
    family = iter(stats.holm([p for _, p in tests if p is not None]))
    return [
        _Step(low, high, gap, None if p is None else next(family))
        for (low, high), (gap, p) in zip(pairs, tests, strict=True)
    ]


def _settled(steps: Iterable[_Step]) -> Verdict:
    return together([settle(step.gap, step.p) for step in steps])


def _text(steps: Iterable[_Step]) -> str:
    return "; ".join(
        f"{step.high} − {step.low}: {gap_text(step.gap)} (p\u00a0{p_text(step.p)})"
        for step in steps
        if step.gap is not None
    )


def _by_system(cells: Sequence[Cell], view: str) -> _Rows:
    return {name: summary.select(cells, view=view, system=name) for name in summary.SYSTEMS}


def _order(cells: Sequence[Cell], results: pathlib.Path) -> _Judged:
    for view in PAIR:
        rows = _by_system(cells, view)
        steps = corrected(rows, zip(ORDER, ORDER[1:], strict=False), results)
        printed = {name: published.value(view, name, "P@10") for name in ORDER}
        paper = f"On the {view} distribution P@10 rises in the order " + ", ".join(
            f"{name} {number(value)}" for name, value in printed.items()
        )
        numbers = _text(steps)
        best, second = (summary.estimate(rows[name], "P@10") for name in ("UHMAN", "3WM"))
        if best and second:
            theirs = percent_change(printed["3WM"], printed["UHMAN"])
            ours = percent_change(second.mean, best.mean)
            numbers += f"; UHMAN relative to 3WM {ours} (paper {theirs})"
        yield f"BL < UA < 3WM < UHMAN, {view}", paper, _settled(steps), numbers


def _best(cells: Sequence[Cell], results: pathlib.Path) -> _Judged:
    for view in PAIR:
        steps = corrected(_by_system(cells, view), [(x, "UHMAN") for x in ORDER[:3]], results)
        gain = percent_change(*(published.value(view, name, "P@10") for name in ("3WM", "UHMAN")))
        paper = f"On the {view} distribution UHMAN has the best P@10, {gain} relative to 3WM"
        yield f"UHMAN above BL, UA and 3WM, {view}", paper, _settled(steps), _text(steps)


def _ablations(cells: Sequence[Cell], results: pathlib.Path) -> _Judged:
    """Both variants share one Holm correction, though each is its own claim."""
    averaged = {"UHMAN(a)": "regions", "UHMAN(b)": "frames"}
    pairs = [(variant, "UHMAN") for variant in averaged]
    for step in corrected(_by_system(cells, "natural"), pairs, results):
        values = [number(published.value("natural", x, "P@10")) for x in (step.low, "UHMAN")]
        paper = f"Averaging {averaged[step.low]} instead of attending to them costs P@10: "
        paper += " against ".join(values)
        yield f"UHMAN above {step.low}", paper, _settled([step]), _text([step])


def _curve(rows: Mapping[int, Sequence[Cell]]) -> str:
    scores = {size: summary.estimate(row, "P@10") for size, row in rows.items()}
    return ", ".join(f"{k}: {number(score and score.mean)}" for k, score in scores.items())


def _hidden_size(cells: Sequence[Cell], results: pathlib.Path) -> _Judged:
    """The best K is chosen on validation, because choosing on test would bias its test P@10."""
    paper = "As K grows from 8 to 128, P@10 first rises and then falls, K = 32 is chosen (Fig. 4a)"
    rows = summary.sweep(cells, summary.HIDDEN_SIZE)
    scores = {size: summary.estimate(row, "P@10", "validation") for size, row in rows.items()}
    means = {size: score.mean for size, score in scores.items() if score is not None}
    sizes = list(means)
    verdict, numbers = Verdict.MISSING, ""
    if len(sizes) >= 3:
        best = max(means, key=means.__getitem__)
        # If the smallest or largest K is best, a significantly worse neighbour refutes the claim.
        others = {sizes[0]: [sizes[1]], sizes[-1]: [sizes[-2]]}.get(best, [sizes[0], sizes[-1]])
        named = {f"K = {size}": row for size, row in rows.items()}
        steps = corrected(named, [(f"K = {size}", f"K = {best}") for size in others], results)
        verdict = _settled(steps)
        if len(others) == 1:
            verdict = Verdict.FAILS if verdict == Verdict.HOLDS else Verdict.UNDECIDED
        curve = _curve({size: rows[size] for size in sizes})
        numbers = f"best on validation: K = {best}; {_text(steps)}; P@10 by K: {curve}"
    yield "K: rises, then falls", paper, verdict, numbers


def _embedding_size(cells: Sequence[Cell], results: pathlib.Path) -> _Judged:
    """Tests equivalence: every interval of the difference from d = 32 must lie within FLAT."""
    paper = "P@10 remains stable as d varies from 16 to 128 (Fig. 4b)"
    rows = summary.sweep(cells, summary.EMBEDDING_SIZE)
    rows = {size: row for size, row in rows.items() if 16 <= size <= 128}
    middle = summary.estimate(rows.get(published.D, []), "P@10")
    verdict, numbers = Verdict.MISSING, ""
    if middle and len(rows) > 1:
        named = {f"d = {size}": row for size, row in rows.items()}
        low = f"d = {published.D}"
        steps = corrected(named, [(low, name) for name in named if name != low], results)
        margin = FLAT * middle.mean
        verdict = together([_same(step, margin) for step in steps])
        numbers = f"margin ±{margin:.4f} (5\u202f%); {_text(steps)}; P@10 by d: {_curve(rows)}"
    yield "d: flat from 16 to 128", paper, verdict, numbers


def _same(step: _Step, margin: float) -> Verdict:
    """Returns HOLDS if the difference is significantly within the margin, FAILS if outside."""
    if step.gap is None:
        return Verdict.MISSING
    width = math.inf if step.gap.half_width is None else step.gap.half_width
    if abs(step.gap.mean) + width <= margin:
        return Verdict.HOLDS
    outside = abs(step.gap.mean) - width > margin and step.p is not None and step.p < LEVEL
    return Verdict.FAILS if outside else Verdict.UNDECIDED


def _falls(cells: Sequence[Cell], results: pathlib.Path) -> _Judged:
    """Uses only intervals, because the two views have different test clips."""
    natural, balanced = (_by_system(cells, view) for view in PAIR)
    for metric in ("P@10", "R@10", "F1@10"):
        verdicts, ours, theirs = [], [], []
        for name in ORDER:
            printed = [published.value(view, name, metric) for view in PAIR]
            theirs.append(f"{name} {percent_change(*printed)}")
            before, after = (summary.values(side[name], metric) for side in (natural, balanced))
            verdicts.append(settle(stats.difference(before, after), UNTESTED))
            one, two = stats.over_worlds(before), stats.over_worlds(after)
            if one and two:
                change = percent_change(one.mean, two.mean)
                ours.append(f"{name} {number(one.mean)} → {number(two.mean)} ({change})")
        paper = f"From natural to balanced {metric} falls for every system: " + ", ".join(theirs)
        yield f"Balanced is harder, {metric}", paper, together(verdicts), "; ".join(ours)


def _beats(cells: Sequence[Cell], results: pathlib.Path) -> _Judged:
    """Uses only intervals, because references have no values per video."""
    paper = "Not a claim of the paper: a trained system should rank better than counts do"
    for view in PAIR:
        verdicts, failed = [], []
        for system, row in _by_system(cells, view).items():
            scores = summary.values(row, "P@10")
            for reference in UNLEARNED[:1] if system == "BL" else UNLEARNED:
                levels = summary.values(row, "P@10", reference)
                above = {w: [x - levels[w][0] for x in scores[w]] for w in scores if w in levels}
                gap = stats.over_worlds(above)
                verdicts.append(settle(gap, UNTESTED))
                if verdicts[-1] in (Verdict.FAILS, Verdict.UNDECIDED):
                    failed.append(f"{system} − {summary.REFERENCES[reference]}: {gap_text(gap)}")
        measured = [verdict for verdict in verdicts if verdict is not Verdict.MISSING]
        numbers = "; ".join(failed) or f"all of {len(measured)} comparisons" * bool(measured)
        yield f"Above popularity and history, {view}", paper, together(measured), numbers
