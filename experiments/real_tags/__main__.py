"""Compares the package's systems with peers on a set of real pictures and tags.

    python -m experiments.real_tags --root=DATA --split=random --seeds=0,1,2,3,4 --fits=8
    python -m experiments.real_tags.table

Results are added to results/, see `results`; finished lines are skipped. Everything is chosen and
scored on validation. `--verdict` scores test too, and results/test_openings.jsonl notes it.
"""

import functools
import pathlib
import time

import numpy as np
from absl import flags, logging

from experiments.real_tags import ours
from experiments.real_tags.inputs import Inputs, largest_cosine, mean_features, read_inputs
from experiments.real_tags.peers import BUDGET, PEERS, per_clip, tune
from experiments.real_tags.results import FOLDER, METRICS, TEST, VALIDATION, Cut, Results
from uhman_jax.config import Config, Split
from uhman_jax.prepare import Prepared, prepare
from uhman_jax.runtime import storage
from uhman_jax.runtime.errors import UserError, exit_on_user_error
from uhman_jax.runtime.streams import run_app

_ROOT = flags.DEFINE_string("root", None, "Folder of a dataset of experiments.real_tags.make.")
_FRAMES = flags.DEFINE_integer("max_frames", 2, "Frames per clip.", lower_bound=1)
_WEIGHTS = flags.DEFINE_string("weights", "imagenet", "Weights of Inception-v3, as in training.")
_BATCH = flags.DEFINE_integer("batch_frames", 16, "As when the features were made.", lower_bound=1)
_SPLIT = flags.DEFINE_enum("split", "random", [split.value for split in Split], "Kind of split.")
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2", "3", "4"], "Seeds of the split.")
_FITS = flags.DEFINE_integer("fits", 8, "Fits per peer, models per system.", lower_bound=1)
_ONLY = flags.DEFINE_list("only", [], "Peers and systems to run; empty: all.")
_VERDICT = flags.DEFINE_bool("verdict", False, "Score test too; this is logged.")
_RUNS = flags.DEFINE_string("runs", "runs/real_tags", "Folder of run directories.")
_RESULTS = flags.DEFINE_string("results", str(FOLDER), "Folder of the results.")


def main(_: list[str]) -> None:
    """Runs what is missing; a user's mistake exits with status 2."""
    logging.set_verbosity(logging.WARNING)  # orbax logs every file
    with exit_on_user_error():
        known = [*PEERS, *ours.SYSTEMS]
        if unknown := set(_ONLY.value) - set(known):
            raise UserError(f"--only must name some of {', '.join(known)}, got {unknown.pop()!r}")
        if not _ROOT.value:
            raise UserError("--root must be the folder of a dataset, got none; make one first")
        if not all(seed.isdecimal() for seed in _SEEDS.value):
            seeds = ",".join(_SEEDS.value)
            raise UserError(f"--seeds must be whole numbers, got {seeds!r}; use 0,1,2")
        bench = Bench(pathlib.Path(_RESULTS.value), pathlib.Path(_RUNS.value), _FITS.value)
        for seed in map(int, _SEEDS.value):
            for name in _ONLY.value or known:
                bench.run(name, _data(seed), verdict=_VERDICT.value)


def _data(seed: int) -> Config:
    config = Config()
    config.data.root = _ROOT.value
    config.preprocess.max_frames, config.preprocess.weights = _FRAMES.value, _WEIGHTS.value
    config.preprocess.batch_frames = _BATCH.value
    config.view.min_count, config.view.split, config.view.seed = 5, Split(_SPLIT.value), seed
    return config


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
        place = storage.path(data.data.root).resolve().name, data.view.split.value, data.view.seed
        cuts = {part: Cut(*place, part) for part in (VALIDATION, *[TEST] * verdict)}
        missing = [
            part
            for part, cut in cuts.items()
            if not all(self._results.has(cut, name, size, setting) for size in sizes)
        ]
        if TEST in missing and not self._is_logged:
            self._results.log_opening()
            self._is_logged = True
        if not missing:
            return
        begin = time.monotonic()
        prepared, inputs = self._prepare(data)
        if config:
            workdir = ours.trained(config, self._runs / "-".join(map(str, place)))
            scores_of = functools.partial(_scores_of_run, workdir, prepared)
            more = {"config": ours.changes(config)}
        else:
            tuned = tune(PEERS[name], inputs, self._num_fits)
            scores_of = lambda rows: {self._num_fits: [tuned.predict(rows)]}  # noqa: E731
            more = {"chosen": tuned.chosen}
        seconds = round(time.monotonic() - begin)
        for part in missing:
            rows = getattr(inputs, part)
            for size, scores in scores_of(rows).items():
                pairs = [per_clip(scores_VT, inputs.labels_NT[rows]) for scores_VT in scores]
                values = dict(zip(METRICS, np.mean(pairs, axis=0), strict=True))
                line = {"setting": setting, "seconds": seconds, **more}
                clips = _facts(prepared, inputs, rows)
                self._results.add(cuts[part], name, size, values, clips, **line)
                means = ", ".join(f"{key} {value.mean():.4f}" for key, value in values.items())
                print(f"{' '.join(map(str, cuts[part]))}: {name}, {size} fits: {means}")

    def _prepare(self, data: Config) -> tuple[Prepared, Inputs]:
        prepared = prepare(data, lambda line: None)
        store = prepared.store
        if store.directory not in self._means:
            self._means[store.directory] = mean_features(store)
        return prepared, read_inputs(prepared.view, store, self._means[store.directory])


def _scores_of_run(
    workdir: pathlib.Path, prepared: Prepared, rows: np.ndarray
) -> dict[int, list[np.ndarray]]:
    """Returns the scores of each model of a run, and of all models together, by their number."""
    scores_SVT = ours.scores(workdir, prepared, rows)
    return {1: list(scores_SVT), len(scores_SVT): [ours.ensemble(scores_SVT)]}


def _facts(prepared: Prepared, inputs: Inputs, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the arrays of `Results.clips` that describe the clips."""
    view = prepared.view
    return {
        "video_ids": np.array([view.video_ids[row] for row in rows]),
        "user_ids": np.array([view.user_ids[row] for row in rows]),
        "is_cold": inputs.users_NU[rows].sum(axis=1) == 0,
        "cosine": largest_cosine(inputs, rows),
    }


if __name__ == "__main__":
    run_app(main)
