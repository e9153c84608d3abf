"""Runs a cell of the study: one system, trained with one recipe on one view of one dataset."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from configs import worlds
from experiments.paper import summary
from experiments.paper.recipes import RECIPES, VARIANTS, set_values
from experiments.paper.workers import Interrupted
from uhman_jax.config import Config, Distribution, ModelName, Split, flatten
from uhman_jax.config_checks import validate
from uhman_jax.prepare import prepare
from uhman_jax.run import run
from uhman_jax.run_directory import read_log, read_predictions, read_run, write_npz
from uhman_jax.runtime.errors import DivergedError
from uhman_jax.scores import MODEL

METRICS = ("P@1", "P@5", "P@10", "P@50", "R@5", "R@10", "R@50")
METRICS += ("F1@5", "F1@10", "F1@50", "NDCG@10", "MRR", "MAP")
WORLDS: dict[str, Callable[[Config], None]] = {
    "selection": worlds.selection,
    "additive": worlds.additive,
    "everything": worlds.everything,
}
SYSTEMS: dict[str, dict[str, Any]] = {
    "BL": {"model.name": ModelName.BL},
    "UA": {"model.name": ModelName.UA},
    "3WM": {"model.name": ModelName.THREE_WAY},
    "UHMAN(a)": {"model.region_attention": False},
    "UHMAN(b)": {"model.frame_attention": False},
    "UHMAN(c)": {"model.user_guidance": False},
    "UHMAN": {},
}
# BL, UA and 3WM see only the mean of a clip. They need more epochs, but each is 15 times as fast.
# Validation P@10 on *selection* with as many epochs as UHMAN and with three times as many: BL 0.158
# and 0.168, UA 0.159 and 0.171, 3WM 0.153 and 0.170.
BASELINE_EPOCHS = 3
VIEWS: dict[str, dict[str, Any]] = {
    "natural": {},
    "balanced": {"view.distribution": Distribution.BALANCED},
    "temporal": {"view.split": Split.TEMPORAL},
    "cold_user": {"view.split": Split.COLD_USER},
}
SMALL = {"view.min_count": 5, "view.balanced_top": 30}  # view settings with `shrink`
SMALL_WORLD = {  # simulator settings with `shrink`; the world stays the same
    "simulator.num_videos": 1500, "simulator.num_users": 900, "simulator.num_hashtags": 84,
    "simulator.num_generic": 4, "simulator.num_classes": 20, "simulator.num_styles": 3,
    "simulator.num_frames": 4, "simulator.num_channels": 32, "simulator.posterior_samples": 128,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Cell:
    """The settings of one training."""

    world: str  # key of WORLDS; "data" for the user's own dataset
    world_seed: int  # of the simulated dataset
    view: str  # key of VIEWS
    recipe: str  # key of RECIPES
    system: str  # key of SYSTEMS
    hidden_size: int = 0  # K; 0: the recipe's
    embedding_size: int = 0  # d; 0: the recipe's
    data_share: float = 1.0  # fraction of the training videos
    variant: str = ""  # key of VARIANTS; "": none
    tuned: tuple[tuple[str, float], ...] = ()  # (path, value) pairs that tuning chose

    @property
    def name(self) -> str:
        """Returns a unique name that is also a relative path."""
        parts = [self.system.lower().replace("(", "_").replace(")", "")]
        parts += [f"K{self.hidden_size}"] * bool(self.hidden_size)
        parts += [f"d{self.embedding_size}"] * bool(self.embedding_size)
        parts += [f"x{self.data_share:g}"] * (self.data_share != 1)
        parts += [self.variant] * bool(self.variant)
        return f"{self.world}-{self.world_seed}/{self.view}/{self.recipe}/{'-'.join(parts)}"


@dataclasses.dataclass(frozen=True)
class Study:
    """The settings that all cells share."""

    folder: pathlib.Path  # of run directories and results
    data_dir: str = "data"  # of simulated datasets
    root: str = ""  # the user's own dataset; "": data are simulated
    num_seeds: int = 5  # models per cell
    num_epochs: int = 0  # 0: the recipe's
    shrink: bool = False  # small simulated datasets, for --quick


def config_of(cell: Cell, study: Study) -> Config:
    """Returns the validated config of a cell."""
    config = Config(name="study")
    config.data.simulated_dir, config.data.root = study.data_dir, study.root
    if not study.root:
        WORLDS[cell.world](config)
        config.simulator.seed = cell.world_seed
    if study.shrink:
        set_values(config, SMALL if study.root else SMALL | SMALL_WORLD)
    set_values(config, VIEWS[cell.view])
    config.view.train_share = cell.data_share
    RECIPES[cell.recipe](config)
    set_values(config, SYSTEMS[cell.system])
    config.model.hidden_size = cell.hidden_size or config.model.hidden_size
    config.model.embedding_size = cell.embedding_size or config.model.embedding_size
    config.train.num_seeds = study.num_seeds
    config.train.num_epochs = study.num_epochs or config.train.num_epochs
    if config.model.name is not ModelName.UHMAN:
        config.train.num_epochs *= BASELINE_EPOCHS
    set_values(config, dict(cell.tuned))
    set_values(config, VARIANTS.get(cell.variant, {}))
    validate(config)
    return config


def changes(config: Config) -> dict[str, Any]:
    """Returns the fields that differ from the defaults, except paths and name, as JSON values."""
    default, ignored = flatten(Config()), ("data.root", "data.simulated_dir", "name")
    return {
        path: getattr(value, "value", value)
        for path, value in flatten(config).items()
        if value != default[path] and path not in ignored
    }


def fingerprint(config: Config) -> str:
    """Returns a hash, twelve hexadecimal digits, of every setting that affects results."""
    text = json.dumps(changes(config), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def key_of(cell: Cell, study: Study) -> str:
    """Returns a key that identifies the results of a cell with all its settings."""
    return f"{cell.name}/{fingerprint(config_of(cell, study))}"


def prepare_world(cell: Cell, study: Study) -> None:
    """Simulates the dataset of a cell if it is missing; only one process may do so at a time.

    Raises:
        UserError: the data cannot be simulated or read.
    """
    prepare(config_of(cell, study), lambda line: None)


def run_cell(cell: Cell, study: Study) -> dict[str, Any]:
    """Trains and evaluates a cell, or continues it, and returns its row of results.jsonl.

    Divergence is a result, not an error: the row has the reason under "failed".

    Raises:
        Interrupted: a signal stopped the run.
        UserError: the data, the disk or a setting is wrong.
    """
    config = config_of(cell, study)
    workdir = study.folder / "runs" / cell.name / fingerprint(config)
    row = {"cell": cell.name} | dataclasses.asdict(cell)
    del row["tuned"]
    row |= {
        "hidden_size": config.model.hidden_size,
        "embedding_size": config.model.embedding_size,
        "seeds": list(range(config.seed, config.seed + config.train.num_seeds)),
        "config": changes(config),
        "fingerprint": fingerprint(config),
        "device": jax.local_devices()[0].device_kind,
        "failed": "",
    }
    try:
        finished = run(config, workdir, log=lambda line: None, report=False)
    except DivergedError as error:
        return row | {"failed": str(error)}
    if not finished:
        raise Interrupted
    return row | _scores(workdir, study.folder, cell.name)


def _scores(workdir: pathlib.Path, folder: pathlib.Path, name: str) -> dict[str, Any]:
    """Returns the scores of a finished run and writes the scores of each video to `per_video/`."""
    run, log = read_run(workdir), read_log(workdir)
    metrics, scores = run.metrics, run.scores
    best = np.argmax([entry["validation/P@10"] for entry in log], axis=0)
    per_video = pathlib.Path("per_video") / f"{name}.npz"
    (folder / per_video).parent.mkdir(parents=True, exist_ok=True)
    write_npz(folder / per_video, per_video_scores(workdir))
    return {
        **{key: metrics["data"][key] for key in ("train_videos", "test_videos", "hashtags")},
        "simulated": metrics["simulated"],
        "test": {key: list(scores[MODEL, key].seeds) for key in METRICS},
        "validation": {
            key: [log[index][f"validation/{key}"][seed] for seed, index in enumerate(best)]
            for key in METRICS
            if f"validation/{key}" in log[0]
        },
        "references": {
            reference: {key: scores[reference, key].mean for key in METRICS}
            for reference in summary.REFERENCES
            if scores.of(reference)
        },
        "attention": {key: list(score.seeds) for key, score in scores.of("attention").items()},
        "slices": metrics["slices"],
        "per_video": str(per_video),
        "epochs": len(log),
        "seconds": round(log[-1]["seconds"], 1),
    }


def per_video_scores(workdir: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns `video_ids` and, per seed and video, `p10_SV` and `r10_SV` of a run's predictions."""
    rows = read_predictions(workdir)
    hits = np.array([len(set(row["hashtags"][:10]) & set(row["true_hashtags"])) for row in rows])
    counts = np.array([len(row["true_hashtags"]) for row in rows])
    num_seeds = len({row["seed"] for row in rows})
    ids_SV = np.array([row["video_id"] for row in rows]).reshape(num_seeds, -1)
    assert (ids_SV == ids_SV[0]).all(), "predictions list the same videos for every seed"
    return {
        "video_ids": ids_SV[0],
        "p10_SV": (hits / 10).reshape(ids_SV.shape).astype(np.float32),
        "r10_SV": (hits / counts).reshape(ids_SV.shape).astype(np.float32),
    }
