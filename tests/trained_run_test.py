"""Trained runs: models, features and damaged files."""

import jax
import numpy as np
import pytest
import tiny_world

from uhman_jax import train
from uhman_jax.runtime.errors import UserError
from uhman_jax.trained_run import open_run


def test_a_seed_has_its_best_parameters(finished):
    opened = open_run(finished)
    state = train.restore(opened.config, opened.view, finished)
    for seed in range(2):
        _, variables = opened.model(seed)
        expected = jax.tree.map(lambda leaf, s=seed: leaf[s], state.best_params)
        jax.tree.map(np.testing.assert_array_equal, variables["params"], expected)
        assert variables["statistics"]["mean_C"].shape == (tiny_world.NUM_CHANNELS,)


def test_features_are_those_of_the_run(finished):
    opened = open_run(finished)
    assert len(opened.features()) >= len(opened.view.video_ids)
    opened.facts["features"]["extractor"] = "another"
    with pytest.raises(UserError, match="features must be the features of the run"):
        opened.features()
    assert open_run(finished).max_frames_and_regions() == (3, 64)
