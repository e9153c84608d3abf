"""Opens a finished run: its view, models, calibration and features."""

import dataclasses
import pathlib
from typing import Any

import numpy as np
from flax import linen as nn

from uhman_jax import run_directory
from uhman_jax.config import Config
from uhman_jax.dataset.view import View
from uhman_jax.direct_path import PATH_WEIGHTS, TrainedModel, restore_paths
from uhman_jax.evaluate import confidence
from uhman_jax.prepare import features_dir
from uhman_jax.relative_paths import located
from uhman_jax.run_directory import CONFIG, VIEW, FinishedRun
from uhman_jax.runtime.errors import UserError
from uhman_jax.shards.store import FrameStore


@dataclasses.dataclass(frozen=True)
class Trained(FinishedRun):
    """A finished run with a view."""

    view: View  # hashtags, splits and histories

    @property
    def located(self) -> Config:
        """The settings with absolute paths."""
        return located(self.config, self.facts, self.workdir)

    def model(self, seed: int) -> tuple[nn.Module, dict[str, Any]]:
        """Returns the model and the best variables of a seed, "params" and "statistics".

        Raises:
            UserError: there is no readable checkpoint.
        """
        import jax

        trained = self.models()
        index = seed - self.config.seed
        # NumPy, because JAX would compile an index program per shape.
        params = jax.tree.map(lambda leaf: np.asarray(leaf)[index], trained.params)
        return trained.module, {
            "params": jax.device_put(params),
            "statistics": trained.statistics,
        }

    def models(self) -> TrainedModel:
        """Returns the model with the best parameters of all seeds.

        Raises:
            UserError: there is no readable checkpoint.
        """
        weights = self.metrics.get(PATH_WEIGHTS)
        paths = restore_paths(self.config, self.view, self.workdir)
        if paths is None or (weights and paths.direct is None):
            raise UserError(
                f"a trained run must have checkpoints, got none in {self.workdir}; train it again"
            )
        # Without weights the network was evaluated before the direct path was trained.
        return (paths if weights else paths._replace(direct=None)).model(weights)

    def calibration(self, seed: int) -> confidence.Calibration | None:
        """Returns the map from scores of a seed to confidences; None if it was not fitted.

        Raises:
            UserError: the file is damaged.
        """
        return confidence.load(self.workdir, seed - self.config.seed)

    def max_frames_and_regions(self) -> tuple[int, int]:
        """Returns the largest number of frames of a clip (F) and the number of regions (M).

        Reads config.json and examples.npz, so it works without the features.

        Raises:
            UserError: examples.npz is missing or damaged.
        """
        _, longest, num_regions = run_directory.read_examples(self.workdir)["regions_EFM"].shape
        return max(longest, int(self.facts["features"].get("max_frames", 0))), num_regions

    def features(self) -> FrameStore:
        """Opens the region features that the run was trained on.

        Raises:
            UserError: the features are missing, or others have replaced them.
        """
        directory = features_dir(self.located)
        if not directory.is_dir():
            raise UserError(
                f"the features of the run must be where they were, in {directory}, got none; put "
                "them back there, or a link to them"
            )
        store = FrameStore(directory)
        if store.info != self.facts["features"]:
            raise UserError(
                f"features must be the features of the run, got others in {store.directory}; "
                "start the run again to see the differences"
            )
        store.rows(self.view.video_ids)
        return store


def open_run(workdir: pathlib.Path) -> Trained:
    """Reads config.json, metrics.json and view.npz of a run directory.

    Raises:
        UserError: a file is missing or damaged; the message names it.
    """
    run = run_directory.read_run(workdir)
    if not isinstance(run.facts.get("features"), dict):
        raise run_directory.damaged(workdir / CONFIG, "it has no entry for features")
    return Trained(**vars(run), view=View.load(run_directory.require(workdir / VIEW)))
