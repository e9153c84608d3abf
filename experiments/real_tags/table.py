"""Shows the results of the bench as tables in Markdown."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.real_tags.peers import PEERS
from experiments.real_tags.results import METRICS, TEST, VALIDATION, Cut, Results
from uhman_jax.runtime.errors import UserError
from uhman_jax.runtime.storage import atomic_write

_MARKS = "<!-- tables: begin -->", "<!-- tables: end -->"
_NUM_DRAWS = 2000
FIRST_VERDICT_SEED = 10  # of the split; choices are made on smaller ones

System = tuple[str, int]  # name, number of fits


def write_tables(path: pathlib.Path, text: str) -> None:
    """Replaces the text between the two marks of a README, if there is one."""
    if path.exists():
        before, rest = path.read_text("utf-8").split(_MARKS[0])
        parts = before, _MARKS[0], "\n\n", text, "\n\n", _MARKS[1], rest.split(_MARKS[1])[1]
        with atomic_write(path) as file:
            file.write("".join(parts).encode())


def tables(results: Results) -> str:
    """Returns a table for each set, kind of split and part: first the development split seeds.

    Of the verdict's split seeds only test is shown.

    Raises:
        UserError: there are no results, or no peer on the split seeds of a table.
    """
    rows_of: dict[tuple[bool, str, str, str], list[dict[str, Any]]] = {}
    for row in results:
        is_verdict = row["seed"] >= FIRST_VERDICT_SEED
        if not is_verdict or row["part"] == TEST:
            kind = is_verdict, row["set"], row["split"], row["part"]
            rows_of.setdefault(kind, []).append(row)
    if not rows_of:
        raise UserError("a table must have results, got none; run the bench first")
    return "\n\n".join(_table(results, *rows_of[kind]) for kind in sorted(rows_of))


def _table(results: Results, *rows: dict[str, Any]) -> str:
    """Returns the table of rows of one set, kind of split and part, best P@10 first."""
    name, split, part = (rows[0][key] for key in ("set", "split", "part"))
    seeds_of: dict[System, set[int]] = {}
    for row in rows:
        seeds_of.setdefault((row["system"], row["fits"]), set()).add(row["seed"])
    seeds = sorted(set.union(*seeds_of.values()))
    complete = [system for system, found in seeds_of.items() if found == set(seeds)]
    parts = [results.clips(Cut(name, split, seed, part)) for seed in seeds]
    peer = best_peer(results, name, split, seeds)
    lines = [
        f"**{name}, {split} split, {part}**, split seeds {', '.join(map(str, seeds))}; "
        f"{sum(len(clips['video_ids']) for clips in parts)} clips. The best peer on validation is "
        f"{peer[0]}. Differences from it have 95 % intervals over artists.",
        "",
        "| system | fits | P@10 | NDCG@10 | P@10 - peer | NDCG@10 - peer | cold users | unlike |",
        "|---|---|---|---|---|---|---|---|",
    ]

    def mean(system: System, metric: str) -> float:
        return float(np.mean([clips[_column(system, metric)].mean() for clips in parts]))

    for system in sorted(complete, key=lambda system: -mean(system, "P@10")):
        cells = [system[0], str(system[1]), *(f"{mean(system, metric):.4f}" for metric in METRICS)]
        groups = [("P@10", None), ("NDCG@10", None), ("P@10", "cold"), ("P@10", "unlike")]
        for metric, group in groups:
            cells.append("" if system == peer else _difference(parts, system, peer, metric, group))
        lines.append(f"| {' | '.join(cells)} |")
    if left_out := [system[0] for system in seeds_of if system not in complete]:
        lines += ["", f"Left out, because split seeds are missing: {', '.join(left_out)}."]
    return "\n".join(lines)


def best_peer(results: Results, name: str, split: str, seeds: Sequence[int]) -> System:
    """Returns the peer with the best mean P@10 on validation, at a tie the best NDCG@10.

    Raises:
        UserError: no peer has validation results for all the split seeds.
    """
    found: dict[System, dict[int, tuple[float, ...]]] = {}
    for row in results:
        is_asked = (row["set"], row["split"], row["part"]) == (name, split, VALIDATION)
        if is_asked and row["system"] in PEERS and row["seed"] in seeds:
            values = found.setdefault((row["system"], row["fits"]), {})
            values[row["seed"]] = tuple(row[metric] for metric in METRICS)
    means = {
        system: tuple(np.mean(list(values.values()), axis=0))
        for system, values in found.items()
        if len(values) == len(seeds)
    }
    if not means:
        raise UserError(
            f"a table must have a peer with validation results for the split seeds "
            f"{', '.join(map(str, seeds))}, got none on {name}, {split}; run the bench with them"
        )
    return max(means, key=lambda system: means[system])


def _column(system: System, metric: str) -> str:
    return f"{metric}/{system[0]}/{system[1]}"


def _difference(
    parts: Sequence[dict[str, np.ndarray]],
    system: System,
    peer: System,
    metric: str,
    group: str | None,
) -> str:
    """Returns the mean difference of two systems on a group of clips, with its interval."""
    chosen = []
    for clips in parts:
        in_group = {
            None: np.ones(len(clips["cosine"]), bool),
            "cold": clips["is_cold"],
            "unlike": clips["cosine"] <= np.quantile(clips["cosine"], 0.1),
        }[group]
        difference_V = clips[_column(system, metric)] - clips[_column(peer, metric)]
        chosen.append([a[in_group] for a in (clips["video_ids"], clips["user_ids"], difference_V)])
    video_ids, user_ids, difference = (
        np.concatenate(arrays) for arrays in zip(*chosen, strict=True)
    )
    if not len(video_ids):
        return "-"
    mean, low, high = paired_interval(video_ids, user_ids, difference)
    return f"{mean:+.4f} ({low:+.4f} to {high:+.4f})"


def paired_interval(
    video_ids: np.ndarray, user_ids: np.ndarray, differences: np.ndarray, seed: int = 0
) -> tuple[float, float, float]:
    """Returns the mean difference over clips and its 95 % interval, by bootstrap over users.

    The differences of a clip that occurs several times (in several splits) are averaged first, so
    that it counts once. Users are resampled with all their clips, because these are alike.

    >>> ids, users = np.array(["a", "b", "a"]), np.array(["x", "y", "x"])
    >>> paired_interval(ids, users, np.array([0.25, 0.5, 0.75]))  # both clips have 0.5
    (0.5, 0.5, 0.5)
    """
    _, first, clip = np.unique(video_ids, return_index=True, return_inverse=True)
    mean_V = np.bincount(clip, differences) / np.bincount(clip)
    _, user_V = np.unique(user_ids[first], return_inverse=True)
    sum_U, count_U = np.bincount(user_V, mean_V), np.bincount(user_V)
    rng = np.random.default_rng(seed)
    drawn_DU = rng.multinomial(len(sum_U), np.full(len(sum_U), 1 / len(sum_U)), _NUM_DRAWS)
    low, high = np.quantile((drawn_DU @ sum_U) / (drawn_DU @ count_U), (0.025, 0.975))
    return float(mean_V.mean()), float(low), float(high)
