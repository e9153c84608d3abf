"""Benchmarks at sizes that mean nothing: that they run, and that batches are what they say."""

import json
import pathlib
import subprocess
import sys

import numpy as np

from tools.bench import made_up, table

ROOT = pathlib.Path(__file__).parents[1]


def test_a_made_up_batch_has_the_papers_number_of_hashtags_and_no_repetition():
    batch = made_up.make_batch(batch_size=400, num_frames=1, num_channels=2, num_hashtags=669)
    assert 3.2 < batch.positives_mask_BP.sum(axis=1).mean() < 3.65
    for ids_P, mask_P in zip(batch.positives_BP, batch.positives_mask_BP, strict=True):
        assert mask_P.any() and len(set(ids_P[mask_P])) == mask_P.sum()
    assert batch.video.codes_BFMC.shape == (400, 1, 64, 2)
    mean_C, std_C = made_up.statistics(2)
    decoded = batch.video.codes_BFMC * batch.video.scale_BC[:, None, None]
    np.testing.assert_allclose(decoded.mean(axis=(0, 1, 2)), mean_C, rtol=0.02)
    np.testing.assert_allclose(decoded.std(axis=(0, 1, 2)), std_C, rtol=0.02)


def test_ratios_are_medians_over_rounds():
    figures = {"one": [2.0, 30.0, 4.0], "other": [1.0, 10.0, 4.0]}
    assert table.ratio(figures, "one", "other") == 2.0


def test_training_step_is_measured_and_written_as_json(tmp_path):
    path = tmp_path / "figures.json"
    sizes = ["--batch_size=4", "--num_frames=2", "--num_channels=8", "--num_hashtags=30"]
    command = [sys.executable, "-m", "tools.bench.train_step", *sizes, "--rounds=2"]
    command += ["--num_seeds=2", "--nopeers", f"--json={path}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "ours / floor" in done.stdout and "Training step (ms" in done.stdout
    figures = json.loads(path.read_text())
    assert set(figures["figures"]) == {"ours", "floor", "2 seeds at once"}
    assert all(len(rounds) == 2 for rounds in figures["figures"].values())
    assert figures["ratios"].keys() == {"ours / floor", "2 seeds at once / ours"}
    assert figures["jax"] and figures["processor"]
