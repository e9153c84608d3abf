"""Reads and writes the scores of a run: metrics of the model and of the reference rankings.

Only this module parses the keys of scores in metrics.json:

    SYSTEM/METRIC           mean over seeds; null if it is undefined
    SYSTEM/METRIC/seeds     value of each seed; absent for a ranking without seeds
    SYSTEM/METRIC/interval  half-width of the 95 % interval over seeds; null for one seed
    SYSTEM/METRIC/interval_clips
                            half-width of the 95 % interval over clips, from a bootstrap of users;
                            absent for one user

The system `test_ensemble` ranks by the mean over seeds of the scores; `test` has the mean over
seeds of each metric. The system `test-REFERENCE` is the difference of the trained model (of the
ensemble, if there is one) and a reference, paired over clips.

It imports no module of the package, because `evaluate` uses it and must not import `report`.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeGuard

import numpy as np

COLUMNS = ("P@1", "P@5", "P@10", "P@50", "R@10", "R@50", "F1@10", "NDCG@10", "MRR", "MAP")
RATIO = "kP/R@10"  # k P@k / R@k, nearly equal for all systems on the same clips
MODEL = "test"  # the trained model on the test split
ENSEMBLE = "test_ensemble"  # the models of all seeds together; only if there are several


class System(NamedTuple):
    """A ranking method in the tables: the trained model or a reference ranking."""

    key: str  # first part of the keys in metrics.json
    title: str  # name in tables; "" for a trained model, whose settings give its name
    css: str  # CSS class in HTML pages


SYSTEMS = (  # in the order of the tables
    System("popularity", "Popularity", "popularity"),
    System("user_history", "User history", "history"),
    System("user_attributes", "User attributes", "attributes"),
    System("knn", "Nearest neighbours", "knn"),
    System("ridge", "Ridge", "ridge"),
    System("direct", "Direct path alone", "model"),
    System("network", "Network alone", "model"),
    System(MODEL, "", "model"),
    System(ENSEMBLE, "", "model"),
    System("observable_oracle", "Observable oracle", "observable"),
    System("oracle", "Oracle", "oracle"),
)
REFERENCES = {  # rankings that need no truth, as sentences name them
    "popularity": "popularity",
    "user_history": "the user's history",
    "user_attributes": "the user's attributes",
    "knn": "a vote of nearest neighbours",
    "ridge": "ridge on the mean feature",
}
PARTS = {  # the two models of a run with `model.direct_path`; a run is compared with them too
    "direct": "the direct path alone",
    "network": "the network alone",
}
COMPARED = ("P@10", "NDCG@10")  # metrics of the differences to references


@dataclasses.dataclass(frozen=True)
class Score:
    """One metric of one system."""

    mean: float = math.nan  # over seeds; NaN if undefined or not measured
    interval: float | None = None  # half-width over seeds; None for fewer than two seeds
    seeds: tuple[float, ...] = ()  # value of each seed; empty for a ranking without seeds
    interval_clips: float | None = None  # half-width over clips; None for one user or if unknown

    @classmethod
    def over_seeds(cls, seeds: Sequence[float]) -> "Score":
        """Returns the mean over seeds with its interval."""
        return cls(float(np.mean(seeds)), interval(seeds), tuple(seeds))


class Scores(dict[tuple[str, str], Score]):
    """Scores by (system, metric), in the order of metrics.json; a missing score is `Score()`.

    Besides the keys of `SYSTEMS`, a system can be another oracle, or "gap_closed", "attention" or
    "calibration" for other measurements of the trained model; those of the ensemble end in
    "_ensemble".

    >>> scores = Scores.from_metrics({"test/P@5": 0.5, "test/P@5/seeds": [0.25, 0.75], "step": 9})
    >>> scores["test", "P@5"].seeds, scores["oracle", "P@5"].mean
    ((0.25, 0.75), nan)
    """

    def __missing__(self, key: tuple[str, str]) -> Score:
        """Returns an undefined score: the metric was not measured."""
        return Score()

    @classmethod
    def over_seeds(cls, system: str, values: Mapping[str, Sequence[float]]) -> "Scores":
        """Returns the scores of one system, given the values of its seeds by metric."""
        return cls({(system, name): Score.over_seeds(seeds) for name, seeds in values.items()})

    @classmethod
    def from_metrics(cls, metrics: Mapping[str, Any]) -> "Scores":
        """Reads the scores among the entries of metrics.json."""
        scores = cls()
        for key, mean in metrics.items():
            system, slash, metric = key.partition("/")
            if slash and not key.endswith(("/seeds", "/interval", "/interval_clips")):
                width, width_clips = (
                    found if is_number(found := metrics.get(f"{key}/{name}")) else None
                    for name in ("interval", "interval_clips")
                )
                seeds = tuple(map(_number, metrics.get(f"{key}/seeds") or ()))
                scores[system, metric] = Score(_number(mean), width, seeds, width_clips)
        return scores

    def to_metrics(self) -> dict[str, Any]:
        """Returns the entries of metrics.json."""
        entries: dict[str, Any] = {}
        for (system, metric), score in self.items():
            key = f"{system}/{metric}"
            entries[key] = score.mean
            if score.seeds:
                entries |= {f"{key}/seeds": list(score.seeds), f"{key}/interval": score.interval}
            if score.interval_clips is not None:
                entries[f"{key}/interval_clips"] = score.interval_clips
        return entries

    def of(self, system: str) -> dict[str, Score]:
        """Returns the scores of a system by metric."""
        return {metric: score for (name, metric), score in self.items() if name == system}

    def systems(self, model: str) -> list[System]:
        """Returns the systems with scores, in table order; `model` titles the trained model."""
        titles = {MODEL: model, ENSEMBLE: f"{model}, {self.ensemble}"}
        return [s._replace(title=titles.get(s.key, s.title)) for s in SYSTEMS if self.of(s.key)]

    @property
    def ensemble(self) -> str:
        """How tables and sentences name the ensemble; "" if there is none."""
        found = self.of(ENSEMBLE)
        sizes = [len(self[MODEL, metric].seeds) for metric in found]
        return f"ensemble of {max(sizes)} seeds" if found else ""

    @property
    def compared(self) -> str:
        """The system that is compared with the references: the ensemble if there is one."""
        return ENSEMBLE if self.ensemble else MODEL


class Slice(NamedTuple):
    """A group of test clips."""

    by: str  # "frequency" of the hashtags, or "user"
    name: str
    num_videos: int
    means: dict[str, float]  # scores of the trained model, by metric


def read_slices(entries: Sequence[Mapping[str, Any]] | None) -> list[Slice]:
    """Reads the entry "slices" of metrics.json."""
    found = []
    for entry in entries or ():
        facts = {name: entry[name] for name in ("by", "name", "num_videos")}
        means = {name: _number(mean) for name, mean in entry.items() if name not in facts}
        found.append(Slice(**facts, means=means))
    return found


def interval(values: Sequence[float]) -> float | None:
    """Returns the half-width of the 95 % t-interval of a mean; None for fewer than two values.

    For two values that differ by d it is 12.706 * (d / sqrt(2)) / sqrt(2) = 6.353 d.

    >>> interval([1.0]), round(interval([1.0, 2.0]), 3)
    (None, 6.353)
    """
    if len(values) < 2:
        return None
    import scipy.special  # takes 0.1 s

    deviation = np.std(values, ddof=1) / math.sqrt(len(values))
    return float(scipy.special.stdtrit(len(values) - 1, 0.975) * deviation)


def is_number(value: Any) -> TypeGuard[float]:
    """Returns whether a value is a finite int or float."""
    real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return real and math.isfinite(value)


def difference(reference: str) -> str:
    """Returns the system key of the difference of the trained model and a reference.

    >>> difference("ridge")
    'test-ridge'
    """
    return f"{MODEL}-{reference}"


def verdict(scores: Scores) -> list[str]:
    """Returns sentences that say how the model (or the ensemble) compares with the references.

    There is a sentence for each reference that is better in P@10 or NDCG@10: the interval over
    clips of the difference lies below 0. One sentence names those that are neither better nor
    worse. If there are none of both, one sentence says that the model is better than all. Empty if
    no difference was measured.
    """
    better, level, gaps = [], [], {}
    compared_with = REFERENCES | PARTS
    own, this = scores.compared, f"the {scores.ensemble}" if scores.ensemble else "this model"
    for reference, name in compared_with.items():
        found = {m: s for m, s in scores.of(difference(reference)).items() if is_number(s.mean)}
        if reference in PARTS and all(s.mean == s.interval_clips == 0 for s in found.values()):
            continue  # the other part has weight 0
        if lost := [m for m, s in found.items() if _sign(s) < 0]:
            metric, gap = lost[0], found[lost[0]]
            better.append(
                f"{_sentence(name)} ranks better than {this}: {metric} "
                f"{scores[reference, metric].mean:.4f} against {scores[own, metric].mean:.4f}, "
                f"difference {signed(gap)} over clips."
            )
        elif open_ := [m for m, s in found.items() if _sign(s) == 0]:
            level.append(f"{name} ({open_[0]} {signed(found[open_[0]])} over clips)")
        elif found:
            gaps[reference] = found[COMPARED[0]]
    if level:
        names = ", ".join(level[:-1]) + (" or " if level[1:] else "") + level[-1]
        better.append(f"It cannot be said whether {this} ranks better or worse than {names}.")
    if better or not gaps:
        return better
    closest = min(gaps, key=lambda reference: gaps[reference].mean)
    return [
        f"{_sentence(this)} ranks better than every reference; the closest is "
        f"{compared_with[closest]}: {COMPARED[0]} {scores[closest, COMPARED[0]].mean:.4f} against "
        f"{scores[own, COMPARED[0]].mean:.4f}, difference {signed(gaps[closest])} over clips."
    ]


def _sentence(start: str) -> str:
    return start[0].upper() + start[1:]


def _sign(gap: Score) -> int:
    """Returns 1 or -1 if the interval over clips lies on one side of 0, else 0."""
    if gap.interval_clips is None or abs(gap.mean) <= gap.interval_clips:
        return 0
    return 1 if gap.mean > 0 else -1


def signed(gap: Score) -> str:
    """Formats a difference with its interval over clips.

    >>> signed(Score(-0.0055, interval_clips=0.0021))
    '-0.0055 +- 0.0021'
    """
    width = "" if gap.interval_clips is None else f" +- {gap.interval_clips:.4f}"
    return f"{gap.mean:+.4f}{width}"


def table(scores: Scores, model: str) -> str:
    """Formats the scores of a run for a terminal; `model` titles the trained model."""
    rows = [["", *COLUMNS, "kP/R"]]
    for system in scores.systems(model):
        found = [scores[system.key, metric] for metric in (*COLUMNS, RATIO)]
        title = system.title if system.key in (MODEL, ENSEMBLE) else system.title.lower()
        rows.append([title] + [_cell(score.mean) for score in found])
        for label, widths in (
            (f"seeds ({len(found[0].seeds)})", [score.interval for score in found]),
            ("clips", [score.interval_clips for score in found]),
        ):
            if any(width is not None for width in widths):
                rows.append([f"  +- 95 % over {label}", *map(_cell, widths[:-1]), ""])
    lines = _aligned(rows)
    if is_number(gap := scores["gap_closed", "P@5"].mean):
        together = scores["gap_closed_ensemble", "P@5"].mean
        by_all = f" ({scores.ensemble}: {together:.2f})" if is_number(together) else ""
        lines.append(f"Gap closed between popularity and oracle in P@5: {gap:.2f}{by_all}")
    gaps, systems = [["", *COMPARED]], scores.systems(model)
    for system in systems:
        if own := scores.of(difference(system.key)):
            (title,) = [other.title for other in systems if other.key == scores.compared]
            gaps.append([f"{title} - {system.title.lower()}", *map(signed, own.values())])
    if gaps[1:]:
        lines += ["", "Differences, paired over clips, +- 95 % over clips:", *_aligned(gaps)]
        lines += verdict(scores)
    return "\n".join(lines)


def _aligned(rows: list[list[str]]) -> list[str]:
    """Returns rows as lines, the first column to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([name.ljust(widths[0]), *map(str.rjust, cells, widths[1:])]).rstrip()
        for name, *cells in rows
    ]


def _cell(value: float | None) -> str:
    return f"{value:.4f}" if is_number(value) else "-"


def _number(value: Any) -> float:
    return value if is_number(value) else math.nan
