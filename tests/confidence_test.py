"""Confidence: a fit to one half of made-up suggestions is right for the other half."""

import dataclasses
import json

import numpy as np
import pytest

from uhman_jax.evaluate import calibration
from uhman_jax.evaluate.confidence import FILE, load, save
from uhman_jax.runtime.errors import UserError


def suggestions(rng, num_videos, num_best=20):
    """Scores, best first, and hits: the truth depends on score, best score and rank."""
    scores_VT = -np.sort(-rng.normal(size=(num_videos, num_best)), axis=1)
    logits_VT = 1.5 * scores_VT - 0.5 * scores_VT[:, :1] - 0.4 * np.log(np.arange(1, num_best + 1))
    return scores_VT, rng.random(scores_VT.shape) < 1 / (1 + np.exp(1.5 - logits_VT))


def test_confidences_are_the_rates_of_hits():
    rng = np.random.default_rng(0)
    fitted = calibration.fit(*suggestions(rng, 3000))
    scores_VT, hits_VT = suggestions(rng, 3000)
    said_VT = fitted.confidence(scores_VT)
    found = calibration.reliability(said_VT, hits_VT)
    assert found.error < 0.01 and found.count_G.sum() == hits_VT.size
    raw_VT = 1 / (1 + np.exp(-scores_VT))  # a score is none
    assert calibration.reliability(raw_VT, hits_VT).error > 0.1
    assert (np.diff(said_VT, axis=1) <= 0).all(), "a better rank never has less"


def test_it_is_read_as_it_was_written(tmp_path):
    rng = np.random.default_rng(1)
    fitted = [calibration.fit(*suggestions(rng, 200)) for _ in range(2)]
    assert load(tmp_path, 0) is None
    save(tmp_path, fitted)
    assert [load(tmp_path, index) for index in range(3)] == [*fitted, None]
    assert load(tmp_path, None) is None, "it has no ensemble"
    together = calibration.fit(*suggestions(rng, 200))
    save(tmp_path, fitted, together)
    assert [load(tmp_path, index) for index in (0, 1, 2, None)] == [*fitted, None, together]
    (tmp_path / FILE).write_text(json.dumps(dataclasses.asdict(fitted[0])))  # as it once was
    assert [load(tmp_path, index) for index in (0, 1, None)] == [fitted[0], None, None]


def test_few_clips_are_enough_for_a_curve():
    rng = np.random.default_rng(2)
    scores_VT, hits_VT = suggestions(rng, 4)
    said_VT = calibration.fit(scores_VT, hits_VT).confidence(scores_VT)
    assert ((said_VT > 0) & (said_VT < 1)).all()


CHANGES = [{"weights": [1.0, 2.0]}, {"rates": []}, {"logits": None}, {"rates": ["a"]}]


@pytest.mark.parametrize("change", [*CHANGES, {"num_videos": "many"}])
def test_a_damaged_file_is_named(tmp_path, change):
    rng = np.random.default_rng(3)
    save(tmp_path, [calibration.fit(*suggestions(rng, 50))])
    values = json.loads((tmp_path / FILE).read_text())
    (tmp_path / FILE).write_text(json.dumps({"seeds": [values["seeds"][0] | change]}))
    with pytest.raises(UserError, match=FILE):
        load(tmp_path, 0)
    (tmp_path / FILE).write_text("{")
    with pytest.raises(UserError, match=FILE):
        load(tmp_path, 0)
