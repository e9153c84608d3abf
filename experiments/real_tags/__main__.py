"""Compares the package's systems with peers on a set of real pictures and tags.

    python -m experiments.real_tags --root=DATA --split=random --seeds=0,1,2,3,4 --fits=8
    python -m experiments.real_tags --table

Results are added to results/, see `results`; finished lines are skipped. Everything is chosen and
scored on validation. `--verdict` scores test too, and results/test_openings.jsonl notes it.
`--table` prints the tables and writes them into README.md.
"""

import pathlib

from absl import flags, logging

from experiments.real_tags import ours
from experiments.real_tags.bench import Bench
from experiments.real_tags.peers import PEERS
from experiments.real_tags.results import FOLDER, Results
from experiments.real_tags.table import tables, write_tables
from uhman_jax.config import Config, Split
from uhman_jax.runtime import lock
from uhman_jax.runtime.errors import UserError, exit_on_user_error
from uhman_jax.runtime.streams import run_app

_ROOT = flags.DEFINE_string("root", "", "Folder of a dataset of experiments.real_tags.make.")
_FRAMES = flags.DEFINE_integer("max_frames", 2, "Frames per clip.", lower_bound=1)
_WEIGHTS = flags.DEFINE_string("weights", "imagenet", "Weights of Inception-v3, as in training.")
_BATCH = flags.DEFINE_integer("batch_frames", 16, "As when the features were made.", lower_bound=1)
_SPLIT = flags.DEFINE_enum("split", "random", [split.value for split in Split], "Kind of split.")
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2", "3", "4"], "Seeds of the split.")
_FITS = flags.DEFINE_integer("fits", 8, "Fits per peer, models per system.", lower_bound=1)
_ONLY = flags.DEFINE_list("only", [], "Peers and systems to run; empty: all.")
_VERDICT = flags.DEFINE_bool("verdict", False, "Score test too; this is logged.")
_TABLE = flags.DEFINE_bool("table", False, "Run nothing, show the tables.")
_RUNS = flags.DEFINE_string("runs", "runs/real_tags", "Folder of run directories.")
_RESULTS = flags.DEFINE_string("results", str(FOLDER), "Folder of the results.")


def main(_: list[str]) -> None:
    """Runs what is missing, or shows the tables; a user's mistake exits with status 2."""
    logging.set_verbosity(logging.WARNING)  # orbax logs every file
    with exit_on_user_error():
        folder = pathlib.Path(_RESULTS.value)
        if _TABLE.value:
            print(text := tables(Results(folder)))
            write_tables(folder.parent / "README.md", text)
            return
        known = [*PEERS, *ours.SYSTEMS]
        if unknown := set(_ONLY.value) - set(known):
            raise UserError(f"--only must name some of {', '.join(known)}, got {unknown.pop()!r}")
        if not _ROOT.value:
            raise UserError("--root must be the folder of a dataset, got none; make one first")
        if not all(seed.isdecimal() for seed in _SEEDS.value):
            seeds = ",".join(_SEEDS.value)
            raise UserError(f"--seeds must be whole numbers, got {seeds!r}; use 0,1,2")
        with lock.hold(folder, "wait for it, or choose another folder with --results"):
            bench = Bench(folder, pathlib.Path(_RUNS.value), _FITS.value)
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


if __name__ == "__main__":
    run_app(main)
