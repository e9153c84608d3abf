"""Runs peers and systems on splits of a set, and adds their results."""

import functools
import pathlib
import time

import numpy as np

from experiments.real_tags import ours
from experiments.real_tags.clips import PLACES, Places
from experiments.real_tags.inputs import Inputs, largest_cosine, mean_features, read_inputs
from experiments.real_tags.peers import BUDGET, PEERS, per_clip, tune
from experiments.real_tags.results import METRICS, TEST, VALIDATION, Cut, Results
from uhman_jax.config import Config
from uhman_jax.prepare import Prepared, prepare
from uhman_jax.runtime import storage


class Bench:
    """Runs peers and systems, and keeps what the splits of a set share.

    Args:
        results: folder of the results.
        runs: folder of run directories.
        num_fits: fits per peer, and models per system.
    """

    def __init__(self, results: pathlib.Path, runs: pathlib.Path, num_fits: int):
        """Reads the results."""
        self._results, self._runs, self._num_fits = Results(results), runs, num_fits
        self._means: dict[pathlib.Path, np.ndarray] = {}  # mean features by folder
        self._is_logged = False

    def run(self, name: str, data: Config, *, verdict: bool = False) -> None:
        """Scores a peer or a system on a split, and adds its lines unless they are there.

        Args:
            name: key of `PEERS` or `ours.SYSTEMS`.
            data: the dataset and the split, see `ours.config_of`.
            verdict: whether to score test beside validation.
        """
        config = ours.config_of(name, data, self._num_fits) if name in ours.SYSTEMS else None
        setting = ours.fingerprint(config) if config else f"budget {BUDGET}"
        sizes = {1, self._num_fits} if config else {self._num_fits}
        names = ours.parts_of(name, config) if config else [name]
        place = storage.path(data.data.root).resolve().name, data.view.split.value, data.view.seed
        cuts = {part: Cut(*place, part) for part in (VALIDATION, *[TEST] * verdict)}
        missing = [
            part
            for part, cut in cuts.items()
            if not all(
                self._results.has(cut, part_name, size, setting)
                for part_name in names
                for size in sizes
            )
        ]
        if TEST in missing and not self._is_logged:
            self._results.log_opening()
            self._is_logged = True
        if not missing:
            return
        begin = time.monotonic()
        prepared, inputs = self._prepare(data)
        attention_of = None  # rows -> facts, of systems on composites
        if config:
            workdir = ours.trained(config, self._runs / "-".join(map(str, place)))
            scores_of = functools.partial(_scores_of_run, name, workdir, prepared)
            more = {"config": ours.changes(config)}
            root = pathlib.Path(data.data.root)
            if (root / PLACES).exists():
                of_run = functools.partial(ours.attention, workdir, prepared)
                attention_of = functools.partial(of_run, places=Places(root))
        else:
            tuned = tune(PEERS[name], inputs, self._num_fits)
            scores_of = lambda rows: {(name, self._num_fits): [tuned.predict(rows)]}  # noqa: E731
            more = {"chosen": tuned.chosen}
        seconds = round(time.monotonic() - begin)
        for part in missing:
            rows = getattr(inputs, part)
            looked = {"attention": attention_of(rows)} if attention_of else {}
            for (part_name, size), scores in scores_of(rows).items():
                pairs = [per_clip(scores_VT, inputs.labels_NT[rows]) for scores_VT in scores]
                values = dict(zip(METRICS, np.mean(pairs, axis=0), strict=True))
                line = {"setting": setting, "seconds": seconds, **more, **looked}
                clips = _facts(prepared, inputs, rows)
                self._results.add(cuts[part], part_name, size, values, clips, **line)
                means = ", ".join(f"{key} {value.mean():.4f}" for key, value in values.items())
                print(f"{' '.join(map(str, cuts[part]))}: {part_name}, {size} fits: {means}")

    def _prepare(self, data: Config) -> tuple[Prepared, Inputs]:
        prepared = prepare(data, lambda line: None)
        store = prepared.store
        if store.directory not in self._means:
            self._means[store.directory] = mean_features(store)
        return prepared, read_inputs(prepared.view, store, self._means[store.directory])


def _scores_of_run(
    name: str, workdir: pathlib.Path, prepared: Prepared, rows: np.ndarray
) -> dict[tuple[str, int], list[np.ndarray]]:
    """Returns the scores of each model of a run, and of all models together, by their number."""
    found = {}
    for part_name, scores_SVT in ours.scores(name, workdir, prepared, rows).items():
        found[part_name, 1] = list(scores_SVT)
        found[part_name, len(scores_SVT)] = [ours.ensemble(scores_SVT)]
    return found


def _facts(prepared: Prepared, inputs: Inputs, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the arrays of `Results.clips` that describe the clips."""
    view = prepared.view
    return {
        "video_ids": np.array([view.video_ids[row] for row in rows]),
        "user_ids": np.array([view.user_ids[row] for row in rows]),
        "is_cold": inputs.users_NU[rows].sum(axis=1) == 0,
        "cosine": largest_cosine(inputs, rows),
    }
