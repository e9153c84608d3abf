"""A trained run for those who use it: its settings, figures, view and one seed's model."""

import dataclasses
import pathlib
import zipfile
from typing import Any

import numpy as np
from flax import linen as nn

from uhman_jax import confidence, train
from uhman_jax.config import Config
from uhman_jax.dataset.view import View
from uhman_jax.errors import UserError
from uhman_jax.located import located
from uhman_jax.prepare import features_of
from uhman_jax.run import damaged, read_config, read_json, require_trained, which_seed
from uhman_jax.shards.store import FrameStore


@dataclasses.dataclass(frozen=True)
class Trained:
    """A run directory that has been trained and evaluated.

    Attributes:
        workdir: the directory.
        config: its settings.
        facts: versions and fingerprints, as `config.json` has them under "run".
        metrics: what `metrics.json` holds.
        view: hashtags, splits and histories.
    """

    workdir: pathlib.Path
    config: Config
    facts: dict[str, Any]
    metrics: dict[str, Any]
    view: View

    @property
    def located(self) -> Config:
        """The settings with absolute paths, wherever this process was started."""
        return located(self.config, self.facts, self.workdir)

    def which_seed(self, seed: int | None) -> int:
        """The seed that a person asked for, or the first.

        Raises:
            UserError: the run has no such seed.
        """
        return which_seed(self.config, seed)

    def model(self, seed: int) -> tuple[nn.Module, dict[str, Any]]:
        """Model and variables ("params" and "statistics") of a seed: its best parameters.

        Raises:
            UserError: there is no checkpoint that can be read.
        """
        import jax

        folder = self.workdir / "checkpoints"
        if not folder.is_dir():
            raise UserError(
                f"a trained run must have checkpoints, got none in {self.workdir}; train it again"
            )
        state = train.restore(self.config, self.view, self.workdir)
        if state is None:
            raise UserError(f"a trained run must have a checkpoint, got none in {folder}")
        place = seed - self.config.seed
        # In NumPy: JAX would compile a program for every shape.
        params = jax.tree.map(lambda leaf: np.asarray(leaf)[place], state.kept)
        variables = {"params": jax.device_put(params), "statistics": state.statistics}
        return train.build_model(self.config.model, self.view), variables

    def calibration(self, seed: int) -> confidence.Calibration | None:
        """What turns a seed's scores into confidences; None where it was not fitted.

        Raises:
            UserError: the file is damaged.
        """
        return confidence.load(self.workdir, seed - self.config.seed)

    def shown(self) -> tuple[int, int]:
        """Most frames that a clip may have (F), and regions of a frame (M).

        Raises:
            UserError: `examples.npz` is missing or damaged.
        """
        path = self.workdir / "examples.npz"
        try:
            with np.load(path, allow_pickle=False) as arrays:
                _, longest, num_regions = arrays["regions_EFM"].shape
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise damaged(path, error) from error
        return max(longest, int(self.facts["features"].get("max_frames", 0))), num_regions

    def features(self) -> FrameStore:
        """The region features that the run was trained on, if they are still there.

        Raises:
            UserError: they are not, or others have taken their place.
        """
        directory = features_of(self.located)
        if not directory.is_dir():
            raise UserError(
                f"the features of the run must be where they were, in {directory}, got none; put "
                "them back there, or a link to them"
            )
        store = FrameStore.open(directory)
        if store.info != self.facts["features"]:
            raise UserError(
                f"features must be those of the run, got others in {store.directory}; "
                "start the run again to see what differs"
            )
        store.rows(self.view.video_ids)
        return store


def open_run(workdir: pathlib.Path) -> Trained:
    """Reads `config.json`, `metrics.json` and `view.npz` of a run directory.

    Raises:
        UserError: a file is missing or damaged; the sentence names it.
    """
    require_trained(workdir / "config.json")
    metrics = read_json(require_trained(workdir / "metrics.json"))
    try:
        config, facts = read_config(workdir)
        facts["features"] = dict(facts["features"])
    except (FileNotFoundError, KeyError, TypeError, ValueError) as error:
        raise damaged(workdir / "config.json", error) from error
    return Trained(workdir, config, facts, metrics, View.load(workdir / "view.npz"))
