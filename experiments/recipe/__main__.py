"""Trains UHMAN with one setting changed at a time and collects the scores.

    python -m experiments.recipe                      # all recipes, seeds 0 to 2
    python -m experiments.recipe --only=warp-sampled,plateau  # some

Every recipe is a run directory under `runs/recipe/`, so a stopped study continues. `results.jsonl`
beside this file gets one line per recipe. Choices are made on the validation columns; the test
columns are only reported.
"""

import pathlib
import sys
from typing import Any

from absl import flags, logging

from configs.paper_features import get_config
from experiments.paper.recipes import set_values
from experiments.paper.results_log import read_lines, write_lines
from uhman_jax.config import Config, Decay, Estimator, RankWeight
from uhman_jax.config_checks import validate
from uhman_jax.run import run
from uhman_jax.run_directory import read_log, read_run
from uhman_jax.runtime import signals
from uhman_jax.runtime.errors import DivergedError, UserError, exit_on_user_error
from uhman_jax.runtime.streams import run_app
from uhman_jax.scores import MODEL, Scores

RESULTS = pathlib.Path(__file__).parent / "results.jsonl"
KEYS = ("P@5", "P@10", "R@10", "NDCG@10")

_ONLY = flags.DEFINE_list("only", [], "Recipes to run; empty: all.")
_DATA = flags.DEFINE_string("simulated_dir", "data", "Folder of simulated datasets.")
_RUNS = flags.DEFINE_string("runs", "runs/recipe", "Folder of run directories.")
_EPOCHS = flags.DEFINE_integer("num_epochs", 12, "Epochs of a recipe.")
_SEEDS = flags.DEFINE_integer("num_seeds", 3, "Seeds per recipe.")

_ONE_RATE = {"train.learning_rate": 0.1, "train.user_rate": 1.0, "train.hashtag_rate": 1.0}
_SAMPLED = {"loss.estimator": Estimator.SAMPLED}  # four draws per positive
# Section 2.4 of the paper: with unit vectors and clipped gradients, then without both.
_HINGE_UNIT = _SAMPLED | {"loss.rank_weight": RankWeight.NONE} | _ONE_RATE
_HINGE_SUM = _HINGE_UNIT | {"model.unit_length": False, "train.clip_norm": 0.0}
RECIPES: dict[str, dict[str, Any]] = {
    "default": {},
    # The mean over a video's pairs (four for each of 3.42 hashtags): the sum at a smaller rate.
    "hinge-mean-free": _HINGE_SUM | {"train.learning_rate": 0.1 / (4 * 3.42)},
    "hinge-sum-free": _HINGE_SUM,
    "hinge-sum-unit": _HINGE_UNIT,
    "warp-sampled": _SAMPLED,
    "plateau": {"train.decay": Decay.PLATEAU},  # as the authors did by hand
    "one-rate": _ONE_RATE,
    "without-regions": {"model.region_attention": False},  # UHMAN(a)
    "without-frames": {"model.frame_attention": False},  # UHMAN(b)
}


def outcome(name: str, config: Config, workdir: pathlib.Path) -> dict[str, Any]:
    """Trains a recipe and returns its best validation scores and its test scores, per seed."""
    row: dict[str, Any] = {
        "recipe": name,
        "seeds": config.train.num_seeds,
        "epochs": config.train.num_epochs,
    }
    try:
        finished = run(config, workdir, log=lambda line: print(f"  {line}"))
    except DivergedError as error:  # divergence is a result
        return row | {"failed": str(error)}
    if not finished:
        print(signals.MESSAGE, file=sys.stderr)
        sys.exit(signals.STOPPED)
    log, scores = read_log(workdir), read_run(workdir).scores
    for key in KEYS:
        best = zip(*(entry[f"validation/{key}"] for entry in log), strict=True)
        row[f"validation/{key}"] = [round(max(seed), 4) for seed in best]
    for system in (MODEL, "popularity", "observable_oracle", "oracle"):
        for key, score in scores.of(system).items():
            if key in KEYS:
                row[f"{system}/{key}"] = list(score.seeds) or score.mean
    attention = {("attention", key): score for key, score in scores.of("attention").items()}
    row |= Scores(attention).to_metrics()
    return row | {"seconds": log[-1]["seconds"]}


def main(_: list[str]) -> None:
    """Runs the recipes and rewrites results.jsonl; a user's mistake exits with status 2."""
    logging.set_verbosity(logging.WARNING)  # orbax logs every file
    with exit_on_user_error():
        if unknown := set(_ONLY.value) - set(RECIPES):
            raise UserError(f"--only must name some of {', '.join(RECIPES)}, got {unknown.pop()!r}")
        rows = {row["recipe"]: row for row in read_lines(RESULTS)}
        for name in _ONLY.value or RECIPES:
            config = get_config()
            config.name = f"recipe-{name}"
            config.data.simulated_dir = _DATA.value
            config.train.num_seeds = _SEEDS.value
            config.train.num_epochs = _EPOCHS.value
            set_values(config, RECIPES[name])
            validate(config)
            print(name)
            rows[name] = outcome(name, config, pathlib.Path(_RUNS.value) / name)
            write_lines(RESULTS, [rows[recipe] for recipe in RECIPES if recipe in rows])


if __name__ == "__main__":
    run_app(main)
