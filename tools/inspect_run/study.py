"""Computes the numbers of the page, which are also the content of `inspect.json`."""

import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from tools.inspect_run import page, rates, space, swaps
from tools.inspect_run.rates import Difference
from uhman_jax.dataset.view import TEST, View
from uhman_jax.run_directory import PREDICTIONS, damaged, read_predictions, which_seed, write_json
from uhman_jax.runtime.errors import UserError
from uhman_jax.runtime.storage import atomic_write, check_folder
from uhman_jax.trained_run import Trained, open_run

KEPT = 20  # strongest differences to write, per kind of user
TOP_K = 10  # number of hashtags that count as suggested, or fewer if a run has fewer
NUM_NEAREST, NUM_ASKED = 8, 24  # neighbours per hashtag; most used hashtags with neighbours
MAX_POINTS = 2000  # most used hashtags on the map


def inspect_run(
    workdir: pathlib.Path,
    output: pathlib.Path | None = None,
    *,
    seed: int | None = None,
    top_k: int | None = None,
    max_clips: int = 500,
) -> list[str]:
    """Writes the page, and its numbers with the suffix `.json`; returns the report.

    Args:
        workdir: the run directory.
        output: the page; None: `inspect.html` in the run directory.
        seed: seed of the model; None: the run's first.
        top_k: number of best hashtags that count as suggested; None: 10, or fewer if the run's
            predictions or its vocabulary are smaller.
        max_clips: number of random test clips to rank for other users.

    Raises:
        UserError: the run is incomplete or damaged, or `top_k` is the whole vocabulary.
    """
    output = workdir / "inspect.html" if output is None else output
    _check_output(output)
    run = open_run(workdir)
    values = study(run, which_seed(run.config, seed), top_k, max_clips)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_json(output.with_suffix(".json"), values)
    with atomic_write(output) as file:
        file.write(page.render(values).encode("utf-8", "replace"))
    lines = [values["swaps"]["skipped"]] if "skipped" in values["swaps"] else []
    return [*lines, f"Page: {os.fspath(output)}"]


def _check_output(output: pathlib.Path) -> None:
    """Raises UserError if the page or its numbers can't be written."""
    if output.suffix == ".json":
        raise UserError(
            f"--output must name the page, whose numbers get the suffix .json, got {output}; "
            "write e.g. --output=inspect.html"
        )
    if output.is_dir():
        raise UserError(f"--output must name a file, got the folder {output}; use another name")
    check_folder(output.parent, "the folder of --output")


def study(run: Trained, seed: int, top_k: int | None, max_clips: int) -> dict[str, Any]:
    """Computes all numbers; see `inspect_run` for the arguments."""
    view = run.view
    most = max(1, min(len(view.hashtags) - 1, run.config.evaluate.top_k))
    if top_k is None:
        top_k = min(TOP_K, most)
    if not 1 <= top_k <= most:
        raise UserError(
            f"--top_k must be from 1 to {most}, fewer than all hashtags, got {top_k}; "
            f"choose another, or leave it out for {min(TOP_K, most)}"
        )
    suggested_V = _suggested(run, seed, top_k)
    model, variables = run.model(seed)
    hashtags: Any = model.apply({"params": variables["params"]}, method="hashtags")
    # Without the bias, which follows the embedding and is no direction of meaning.
    directions_TD = space.directions(np.asarray(hashtags)[:, : run.config.model.embedding_size])
    points_T2, share = space.principal_plane(directions_TD[:MAX_POINTS])
    return {
        "name": run.config.name,
        "system": run.system,
        "simulated": bool(run.metrics.get("simulated")),
        "num_seeds": run.config.train.num_seeds,
        "seed": seed,
        "top_k": top_k,
        "differences": _differences(run, suggested_V),
        "swaps": _swaps(run, model, variables, top_k, max_clips),
        "nearest": {
            view.spellings[t]: [
                [view.spellings[other], cosine]
                for other, cosine in space.nearest(directions_TD, t, NUM_NEAREST)
            ]
            for t in range(min(NUM_ASKED, len(view.hashtags)))
        },
        "map": {
            "share_of_variance": share,
            "hashtags": list(view.spellings[:MAX_POINTS]),
            "uses": view.counts_T[:MAX_POINTS].tolist(),
            "places": np.round(points_T2, 4).tolist(),
        },
        "slices": run.metrics.get("slices") or [],
    }


def _suggested(run: Trained, seed: int, top_k: int) -> list[np.ndarray]:
    """Returns the ids of the best hashtags of each test clip, in the order of the view."""
    predictions = read_predictions(run.workdir, seed)
    try:
        best = {
            row["video_id"]: np.array(list(map(run.view.find, row["hashtags"][:top_k])), np.int64)
            for row in predictions
        }
        return [best[run.view.video_ids[row]] for row in run.view.rows(TEST)]
    except (TypeError, KeyError) as error:  # predictions of another view
        raise damaged(run.workdir / PREDICTIONS, error) from error


def _differences(run: Trained, suggested_V: list[np.ndarray]) -> dict[str, Any]:
    """Compares the users of each kind with all other test users: hashtags they get and use."""
    view, rows = run.view, run.view.rows(TEST)
    used_V = [view.positives.row(row) for row in rows]
    _, first_U, user_V = np.unique(
        [view.user_ids[row] for row in rows], return_index=True, return_inverse=True
    )
    ids_X = rates.looked_at(user_V, suggested_V, used_V)
    kinds = list(_kinds(view, rows[first_U]))
    z = rates.joint_quantile(len(kinds) * len(ids_X))
    suggested_UX = rates.rates_of_users(user_V, suggested_V, ids_X)
    used_UX = rates.rates_of_users(user_V, used_V, ids_X)
    entries = []
    for attribute, value, member_U in kinds:
        suggested = rates.compare(suggested_UX, member_U, z)
        used = rates.compare(used_UX, member_U, rates.joint_quantile(1))
        pairs = zip(ids_X.tolist(), suggested, used, strict=True)
        ranked = sorted(pairs, key=lambda pair: (-abs(pair[1].difference), pair[0]))
        entries.append(
            {
                "attribute": attribute,
                "value": value,
                "num_users": int(member_U.sum()),
                "num_clips": int(member_U[user_V].sum()),
                "num_sure": sum(pair[1].sign != 0 for pair in ranked),
                "strongest": [_entry(view.spellings[t], *both) for t, *both in ranked[:KEPT]],
            }
        )
    return {
        "method": "Newcombe's score interval of a difference of two rates, users as units; "
        "for what is suggested, Bonferroni over all intervals; for what is used, each by itself",
        "level": rates.LEVEL,
        "num_intervals": len(kinds) * len(ids_X),
        "quantile": z,
        "num_users": len(first_U),
        "num_clips": len(rows),
        "num_hashtags": len(ids_X),
        "min_users": rates.MIN_USERS,
        "used_per_clip": float(np.mean([len(tags) for tags in used_V])),
        "kinds": entries,
    }


def _kinds(view: View, row_U: np.ndarray) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yields attribute, value and member_U of each kind with enough users and enough others."""
    for attribute, names in swaps.ATTRIBUTES.items():
        for index, value in enumerate(getattr(view, names)):
            member_U = getattr(view, f"{attribute}_V")[row_U] == index
            if min(member_U.sum(), (~member_U).sum()) >= rates.MIN_USERS:
                yield attribute, value, member_U


def _entry(hashtag: str, suggested: Difference, used: Difference) -> dict[str, Any]:
    """Returns one difference; "use" says whether the hashtags that such users use show it too."""
    use = "not shown"
    if suggested.sign and used.sign:
        use = "shown" if suggested.sign == used.sign else "opposite"
    return {
        "hashtag": hashtag,
        "sure": suggested.sign != 0,
        "use": use if suggested.sign else "",
        "suggested": suggested._asdict(),
        "used": used._asdict(),
    }


def _swaps(
    run: Trained, model: Any, variables: dict[str, Any], top_k: int, max_clips: int
) -> dict[str, Any]:
    """Returns the swaps, or the reason why there are none."""
    try:
        store = run.features()
    except UserError as error:
        return {"skipped": f"Swapped users are left out, because they need the features: {error}."}
    rows = run.view.rows(TEST)
    chosen = np.random.default_rng(run.config.seed).permutation(rows)[:max_clips]
    sizes = {"top_k": top_k, "batch_size": run.config.evaluate.batch_size}
    found = swaps.swaps(model, variables, run.view, store, np.sort(chosen), **sizes)
    return {"num_clips": len(chosen), "values": [swap._asdict() for swap in found]}
