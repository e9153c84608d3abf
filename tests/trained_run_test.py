"""Trained runs: models, features and damaged files."""

import jax
import numpy as np
import pytest
import tiny_world

from uhman_jax import train
from uhman_jax.runtime.errors import UserError
from uhman_jax.trained_run import open_run


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    return tiny_world.finished_run(folder, num_epochs=2, num_seeds=2)[1]


def test_a_seed_has_its_best_parameters(workdir):
    opened = open_run(workdir)
    state = train.restore(opened.config, opened.view, workdir)
    for seed in range(2):
        _, variables = opened.model(seed)
        expected = jax.tree.map(lambda leaf, s=seed: leaf[s], state.best_params)
        jax.tree.map(np.testing.assert_array_equal, variables["params"], expected)
        assert variables["statistics"]["mean_C"].shape == (tiny_world.NUM_CHANNELS,)


def test_features_are_those_of_the_run(workdir):
    opened = open_run(workdir)
    assert len(opened.features()) >= len(opened.view.video_ids)
    opened.facts["features"]["extractor"] = "another"
    with pytest.raises(UserError, match="features must be the features of the run"):
        opened.features()
    assert open_run(workdir).max_frames_and_regions() == (3, 64)


def test_a_run_without_checkpoints(workdir):
    (workdir / "checkpoints").rename(workdir / "elsewhere")
    try:
        with pytest.raises(UserError, match="must have checkpoints, got none"):
            open_run(workdir).model(0)
    finally:
        (workdir / "elsewhere").rename(workdir / "checkpoints")


def test_a_damaged_file_is_named(workdir):
    text = (workdir / "metrics.json").read_bytes()
    (workdir / "metrics.json").write_bytes(text[:-9])
    try:
        with pytest.raises(UserError, match="metrics.json must be as the run wrote it"):
            open_run(workdir)
    finally:
        (workdir / "metrics.json").write_bytes(text)
