"""The cells of the study: one population of seeds of one system, on one view of one world."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from experiments.paper import summary
from experiments.paper.recipes import RECIPES, VARIANTS, with_value
from experiments.paper.workers import Interrupted
from experiments.paper.worlds import WORLDS
from uhman_jax.config import Config, Distribution, ModelName, Split, flatten, validate
from uhman_jax.errors import DivergedError
from uhman_jax.prepare import prepare
from uhman_jax.run import run
from uhman_jax.run_directory import read_log, read_predictions, read_run, write_npz
from uhman_jax.scores import MODEL

METRICS = ("P@1", "P@5", "P@10", "P@50", "R@5", "R@10", "R@50")
METRICS += ("F1@5", "F1@10", "F1@50", "NDCG@10", "MRR", "MAP")


def _named(name: ModelName, **switches: bool) -> Callable[[Config], None]:
    def change(config: Config) -> None:
        config.model.name = name
        for switch, value in switches.items():
            setattr(config.model, switch, value)

    return change


SYSTEMS: dict[str, Callable[[Config], None]] = {
    "BL": _named(ModelName.BL),
    "UA": _named(ModelName.UA),
    "3WM": _named(ModelName.THREE_WAY),
    "UHMAN(a)": _named(ModelName.UHMAN, region_attention=False),
    "UHMAN(b)": _named(ModelName.UHMAN, frame_attention=False),
    "UHMAN(c)": _named(ModelName.UHMAN, user_guidance=False),
    "UHMAN": _named(ModelName.UHMAN),
}
# BL, UA and 3WM see only the mean of a clip: slower by epochs, though fifteen times faster by the
# clock. Validation P@10 on the selection world with as many epochs as UHMAN, and with three times
# as many: BL 0.158 and 0.168, UA 0.159 and 0.171, 3WM 0.153 and 0.170.
BASELINE_EPOCHS = 3
VIEWS: dict[str, tuple[Distribution, Split]] = {
    "natural": (Distribution.NATURAL, Split.RANDOM),
    "balanced": (Distribution.BALANCED, Split.RANDOM),
    "temporal": (Distribution.NATURAL, Split.TEMPORAL),
    "cold_user": (Distribution.NATURAL, Split.COLD_USER),
}


@dataclasses.dataclass(frozen=True)
class Cell:
    """What is run.

    Attributes:
        world: key of WORLDS; "data" for a dataset that the user brings.
        world_seed: seed of the simulated world.
        view: key of VIEWS.
        recipe: key of RECIPES.
        system: key of SYSTEMS.
        hidden_size: K; 0: the recipe's.
        embedding_size: d; 0: the recipe's.
        data_share: of the training videos.
        variant: another choice than the recipe's, key of VARIANTS; "": none.
        tuned: settings that tuning chose, as (path, value) pairs.
    """

    world: str
    world_seed: int
    view: str
    recipe: str
    system: str
    hidden_size: int = 0
    embedding_size: int = 0
    data_share: float = 1.0
    variant: str = ""
    tuned: tuple[tuple[str, float], ...] = ()

    @property
    def name(self) -> str:
        """Tells cells apart and reads as a path."""
        system = self.system.lower().replace("(", "_").replace(")", "")
        parts = [system]
        parts += [f"K{self.hidden_size}"] * bool(self.hidden_size)
        parts += [f"d{self.embedding_size}"] * bool(self.embedding_size)
        parts += [f"x{self.data_share:g}"] * (self.data_share != 1)
        parts += [self.variant] * bool(self.variant)
        return f"{self.world}-{self.world_seed}/{self.view}/{self.recipe}/{'-'.join(parts)}"


@dataclasses.dataclass(frozen=True)
class Study:
    """What all cells of a study share.

    Attributes:
        folder: of run directories and results.
        data_dir: where simulated datasets are kept.
        root: dataset that the user brings; "": worlds are simulated.
        num_seeds: of each population.
        num_epochs: 0: the recipe's.
        shrink: makes a world small, for --quick.
    """

    folder: pathlib.Path
    data_dir: str = "data"
    root: str = ""
    num_seeds: int = 5
    num_epochs: int = 0
    shrink: bool = False


def config_of(cell: Cell, study: Study) -> Config:
    """The valid config of a cell."""
    config = Config()
    config.name = "study"
    config.data.simulated_dir, config.data.root = study.data_dir, study.root
    if not study.root:
        WORLDS[cell.world](config, study.shrink)
        config.simulator.seed = cell.world_seed
    config.view.distribution, config.view.split = VIEWS[cell.view]
    config.view.train_share = cell.data_share
    RECIPES[cell.recipe](config)
    SYSTEMS[cell.system](config)
    config.model.hidden_size = cell.hidden_size or config.model.hidden_size
    config.model.embedding_size = cell.embedding_size or config.model.embedding_size
    config.train.num_seeds = study.num_seeds
    config.train.num_epochs = study.num_epochs or config.train.num_epochs
    if config.model.name is not ModelName.UHMAN:
        config.train.num_epochs *= BASELINE_EPOCHS
    if study.shrink:
        config.view.min_count, config.view.balanced_top = 5, 30
    for path, value in cell.tuned:
        with_value(path, value)(config)
    if cell.variant:
        VARIANTS[cell.variant](config)
    validate(config)
    return config


def changes(config: Config) -> dict[str, Any]:
    """The fields that differ from the defaults, as JSON holds them."""
    default = flatten(Config())
    values = {path: value for path, value in flatten(config).items() if value != default[path]}
    for machine in ("data.root", "data.simulated_dir", "name"):
        values.pop(machine, None)
    return {path: getattr(value, "value", value) for path, value in values.items()}


def fingerprint(config: Config) -> str:
    """Twelve hexadecimal digits of all that decides a cell's figures."""
    text = json.dumps(changes(config), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def key_of(cell: Cell, study: Study) -> str:
    """What tells the results of a cell from those of others, and of other settings."""
    return f"{cell.name}/{fingerprint(config_of(cell, study))}"


def prepare_world(cell: Cell, study: Study) -> None:
    """Simulates the world of a cell, unless it is there; no two processes may do so at once.

    Raises:
        UserError: the data cannot be made or read.
    """
    prepare(config_of(cell, study), lambda line: None)


def run_cell(cell: Cell, study: Study) -> dict[str, Any]:
    """Trains and evaluates a cell, or goes on with it; returns its row of results.jsonl.

    Training that diverges is a result: its row says so under "failed".

    Raises:
        Interrupted: a signal came.
        UserError: a person must mend something.
    """
    config = config_of(cell, study)
    workdir = study.folder / "runs" / cell.name / fingerprint(config)
    row: dict[str, Any] = {
        "cell": cell.name,
        "world": cell.world,
        "world_seed": cell.world_seed,
        "view": cell.view,
        "recipe": cell.recipe,
        "system": cell.system,
        "hidden_size": config.model.hidden_size,
        "embedding_size": config.model.embedding_size,
        "data_share": cell.data_share,
        "variant": cell.variant,
        "seeds": list(range(config.seed, config.seed + config.train.num_seeds)),
        "config": changes(config),
        "fingerprint": fingerprint(config),
        "device": jax.local_devices()[0].device_kind,
        "failed": "",
    }
    try:
        finished = run(config, workdir, say=lambda line: None, report=False)
    except DivergedError as error:
        return row | {"failed": str(error)}
    if not finished:
        raise Interrupted
    return row | _figures(workdir, study.folder, cell.name)


def _figures(workdir: pathlib.Path, folder: pathlib.Path, name: str) -> dict[str, Any]:
    run, log = read_run(workdir), read_log(workdir)
    metrics, scores = run.metrics, run.scores
    best = np.argmax([entry["validation/P@10"] for entry in log], axis=0)
    validation = {
        key: [log[index][f"validation/{key}"][seed] for seed, index in enumerate(best)]
        for key in METRICS
        if f"validation/{key}" in log[0]
    }
    per_video = pathlib.Path("per_video") / f"{name}.npz"
    (folder / per_video).parent.mkdir(parents=True, exist_ok=True)
    write_npz(folder / per_video, per_video_scores(workdir))
    return {
        "train_videos": metrics["data"]["train_videos"],
        "test_videos": metrics["data"]["test_videos"],
        "hashtags": metrics["data"]["hashtags"],
        "simulated": metrics["simulated"],
        "test": {key: list(scores[MODEL, key].seeds) for key in METRICS},
        "validation": validation,
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
    """Computes P@10 and R@10 of every test video and seed from a run's predictions.

    Returns:
        `video_ids` (V,), `p10_SV` and `r10_SV` float32.
    """
    rows = read_predictions(workdir)
    hits = np.array([len(set(row["hashtags"][:10]) & set(row["true_hashtags"])) for row in rows])
    counts = np.array([len(row["true_hashtags"]) for row in rows])
    num_seeds = len({row["seed"] for row in rows})
    ids = np.array([row["video_id"] for row in rows]).reshape(num_seeds, -1)
    assert (ids == ids[0]).all(), "predictions list the same videos for every seed"
    shape = ids.shape
    return {
        "video_ids": ids[0],
        "p10_SV": (hits / 10).reshape(shape).astype(np.float32),
        "r10_SV": (hits / counts).reshape(shape).astype(np.float32),
    }
