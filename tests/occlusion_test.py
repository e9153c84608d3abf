"""Occlusion against the scores of clips that lack the hidden region or frame."""

import jax
import model_inputs
import numpy as np
import pytest
from model_inputs import M

from uhman_jax.models.uhman import UHMAN
from uhman_jax.recommend.occlusion import Explainer

REGIONS = np.arange(M)


@pytest.fixture(scope="module")
def both():
    """Two functions of the frames and regions of a clip: its explanation and its scores."""
    model, variables = model_inputs.make_model(UHMAN)
    videos, users = model_inputs.make_inputs()
    user = jax.tree.map(lambda array: array[:1], users)
    hashtags_TD = model.apply(variables, method="hashtags")
    explainer = Explainer(model)

    def clip(frames, regions):
        codes_1FMC = videos.codes_BFMC[:1][:, frames][:, :, regions]
        mask_1F = np.ones((1, len(frames)), bool)
        return videos.plain(codes_1FMC, videos.scale_BC[:1], videos.offset_BC[:1], mask_1F)

    def explain(frames):
        return explainer(variables, clip(frames, REGIONS), user, hashtags_TD)

    def scores(frames, regions=REGIONS):
        return np.asarray(model.apply(variables, clip(frames, regions), user)[0])

    return explain, scores


def test_a_region_contributes_what_a_clip_of_fewer_regions_loses(both):
    explain, scores = both
    frames = np.array([0])
    lost_MT = [scores(frames) - scores(frames, REGIONS[REGIONS != m]) for m in REGIONS]
    lost_TFM = explain(frames).lost_TFM
    np.testing.assert_allclose(lost_TFM[:, 0].T, lost_MT, rtol=1e-3, atol=1e-5)
    assert np.abs(lost_TFM).max() > 0.01


def test_a_frame_contributes_what_a_clip_of_fewer_frames_loses(both):
    explain, scores = both
    frames = np.arange(3)
    lost_FT = [scores(frames) - scores(frames[frames != f]) for f in frames]
    np.testing.assert_allclose(explain(frames).lost_TF.T, lost_FT, rtol=1e-3, atol=1e-5)
