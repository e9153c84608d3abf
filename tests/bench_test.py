"""Runs the benchmarks at tiny sizes and checks the generated batches."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from tools.bench import synthetic, table

ROOT = pathlib.Path(__file__).parents[1]


def test_a_batch_has_the_papers_number_of_hashtags():
    batch = synthetic.make_batch(batch_size=400, num_frames=1, num_channels=2, num_hashtags=669)
    assert 3.2 < batch.positives_mask_BP.sum(axis=1).mean() < 3.65
    assert batch.video.codes_BFMC.shape == (400, 1, 64, 2)
    statistics = synthetic.statistics(2)
    decoded = batch.video.codes_BFMC * batch.video.scale_BC[:, None, None]
    np.testing.assert_allclose(decoded.mean(axis=(0, 1, 2)), statistics.mean_C, rtol=0.02)
    np.testing.assert_allclose(decoded.std(axis=(0, 1, 2)), statistics.std_C, rtol=0.02)


def test_ratios_are_medians_over_rounds():
    figures = {"one": [2.0, 30.0, 4.0], "other": [1.0, 10.0, 4.0]}
    assert table.ratio(figures, "one", "other") == 2.0


def test_positives_never_repeat_in_a_row():
    ids_VP, mask_VP = synthetic.positives(np.random.default_rng(0), 500, 20)
    assert ids_VP.max() == 19 and ids_VP.min() == 0
    for ids_P, mask_P in zip(ids_VP, mask_VP, strict=True):
        assert len(set(ids_P[mask_P])) == mask_P.sum() >= 1
    uses = synthetic.interactions(ids_VP, mask_VP, 20)
    assert uses.shape == (500, 20) and uses.nnz == mask_VP.sum()
    assert uses.tocsr()[3].indices.tolist() == sorted(ids_VP[3][mask_VP[3]].tolist())


SMALL = {
    "train_step": (
        "--batch_size=4 --num_frames=2 --num_channels=8 --num_hashtags=30 --num_seeds=2 --nopeers",
        {"ours", "floor", "2 seeds at once"},
    ),
    "warp": (
        "--num_videos=50 --num_hashtags=30 --embedding_size=4 --batch_size=16 --nopeers",
        {"exact", "sampled", "floor of exact"},
    ),
    "ranking": (
        "--num_videos=50 --num_hashtags=30 --embedding_size=4 --batch_size=16 --nopeers",
        {"ours, all metrics", "floor"},
    ),
    "reading": (
        "--num_clips=8 --num_frames=2 --num_channels=8 --batch_size=4 --nocold",
        {"raw, warm", "raw, mapped, warm", "1 thread, warm", "2 threads, warm"},
    ),
    "epoch": (
        "--num_videos=20 --num_frames=2 --num_channels=8 --batch_size=4 --num_hashtags=30",
        {"on the device", "streamed"},
    ),
}


@pytest.mark.parametrize(
    "name",
    [name if name == "ranking" else pytest.param(name, marks=pytest.mark.slow) for name in SMALL],
)
def test_benchmarks_print_a_table_and_write_it_as_json(tmp_path, name):
    arguments, contestants = SMALL[name]
    path = tmp_path / "figures.json"
    command = [sys.executable, "-m", f"tools.bench.{name}", *arguments.split(), "--rounds=2"]
    command.append(f"--json={path}")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    written = json.loads(path.read_text())
    assert written["figures"].keys() == contestants
    assert all(len(rounds) == 2 and min(rounds) > 0 for rounds in written["figures"].values())
    assert written["ratios"] and written["processor"]
    for title in (written["title"], *written["figures"], *written["ratios"]):
        assert title in done.stdout
