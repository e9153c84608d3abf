"""Trains UHMAN with one setting changed at a time and collects what comes out.

    python -m experiments.recipe                      # all recipes, seeds 0 to 2
    python -m experiments.recipe --only=warp-sampled,plateau  # some

Every recipe is a run directory under `runs/recipe/`, so a stopped study goes on where it was.
`results.jsonl` beside this file gets one line per recipe; choices are made on its validation
columns, and the test columns are there to report.
"""

import json
import pathlib
import sys
from typing import Any

from absl import flags, logging

from configs.paper_features import get_config
from uhman_jax import stop
from uhman_jax.config import Config, Decay, Estimator, RankWeight, validate
from uhman_jax.errors import DivergedError, UserError, only_flags, told_in_a_sentence
from uhman_jax.run import run
from uhman_jax.run_directory import read_log, read_run
from uhman_jax.scores import MODEL, Scores
from uhman_jax.streams import run_app

HERE = pathlib.Path(__file__).parent
KEYS = ("P@5", "P@10", "R@10", "NDCG@10")

_ONLY = flags.DEFINE_list("only", [], "Recipes to run; empty: all.")
_DATA = flags.DEFINE_string("simulated_dir", "data", "Where simulated datasets are kept.")
_RUNS = flags.DEFINE_string("runs", "runs/recipe", "Where run directories are kept.")
_EPOCHS = flags.DEFINE_integer("num_epochs", 12, "Epochs of a recipe.")
_SEEDS = flags.DEFINE_integer("num_seeds", 3, "Seeds per recipe.")


def hinge_mean(config: Config) -> None:
    """Section 2.4 read as a mean over pairs, on free vectors."""
    hinge_sum(config)
    config.train.learning_rate /= 4 * 3.42  # pairs per video: a mean is the sum with a smaller step


def hinge_sum(config: Config) -> None:
    """Section 2.4 to the letter: one step a pair, on free vectors, nothing clipped."""
    hinge_unit(config)
    config.model.unit_length = False
    config.train.clip_norm = 0.0


def hinge_unit(config: Config) -> None:
    """Section 2.4 on vectors of length 1, gradients clipped."""
    config.loss.estimator = Estimator.SAMPLED
    config.loss.rank_weight = RankWeight.NONE
    one_rate(config)


def warp_sampled(config: Config) -> None:
    """WARP proper with four draws a positive."""
    config.loss.estimator = Estimator.SAMPLED


def plateau(config: Config) -> None:
    """The learning rate falls when validation stops improving, as the authors did by hand."""
    config.train.decay = Decay.PLATEAU


def one_rate(config: Config) -> None:
    """Every parameter takes steps of the same rate, the paper's."""
    config.train.learning_rate = 0.1
    config.train.user_rate = config.train.hashtag_rate = 1.0


def no_regions(config: Config) -> None:
    """UHMAN(a): the mean over regions."""
    config.model.region_attention = False


def no_frames(config: Config) -> None:
    """UHMAN(b): the mean over frames."""
    config.model.frame_attention = False


RECIPES = {
    "default": lambda config: None,
    "hinge-mean-free": hinge_mean,
    "hinge-sum-free": hinge_sum,
    "hinge-sum-unit": hinge_unit,
    "warp-sampled": warp_sampled,
    "plateau": plateau,
    "one-rate": one_rate,
    "without-regions": no_regions,
    "without-frames": no_frames,
}


def outcome(name: str, config: Config, workdir: pathlib.Path) -> dict[str, Any]:
    """What one recipe gives: best validation and test scores, per seed."""
    row: dict[str, Any] = {
        "recipe": name,
        "seeds": config.train.num_seeds,
        "epochs": config.train.num_epochs,
    }
    try:
        finished = run(config, workdir, say=lambda line: print(f"  {line}"))
    except DivergedError as error:  # that is a result
        return row | {"failed": str(error)}
    if not finished:
        print(stop.MESSAGE, file=sys.stderr)
        sys.exit(stop.STOPPED)
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


def main(argv: list[str]) -> None:
    """Runs the recipes and rewrites results.jsonl; a mistake is one sentence and status 2."""
    logging.set_verbosity(logging.WARNING)  # orbax tells of every file
    with told_in_a_sentence():
        only_flags(argv)
        compare()


def compare() -> None:
    """Runs what is asked for.

    Raises:
        UserError: a recipe or a setting is wrong.
    """
    if unknown := set(_ONLY.value) - set(RECIPES):
        raise UserError(
            f"--only must name recipes out of {', '.join(RECIPES)}, got {unknown.pop()!r}"
        )
    path = HERE / "results.jsonl"
    rows = {}
    if path.exists():
        for line in path.read_text("utf-8").splitlines():
            rows[json.loads(line)["recipe"]] = json.loads(line)
    for name in _ONLY.value or RECIPES:
        config = get_config()
        config.name = f"recipe-{name}"
        config.data.simulated_dir = _DATA.value
        config.train.num_seeds = _SEEDS.value
        config.train.num_epochs = _EPOCHS.value
        RECIPES[name](config)
        validate(config)
        print(name)
        rows[name] = outcome(name, config, pathlib.Path(_RUNS.value) / name)
        lines = [json.dumps(rows[recipe]) for recipe in RECIPES if recipe in rows]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_app(main)
