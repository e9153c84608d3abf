"""Tests of how cells of a study are selected and compared."""

import math

import numpy as np
import pytest
from fake_study import NUM_VIDEOS, make_cell, plain

from experiments.paper import stats, summary


def test_cells_are_selected_by_their_fields_and_the_parts_that_follow_from_their_names():
    cells = [
        plain([0.1], system="BL"),
        plain([0.2], system="UA", world="additive"),
        plain([0.3], system="BL", suffix="-K8"),
        plain([0.4], system="BL") | {"failed": "the loss is not finite"},
    ]
    assert summary.select(cells, system="BL") == [cells[0]]
    assert summary.select(cells, part=None, world="selection") == [cells[0], cells[2]]
    assert summary.select(cells, part="figure4a") == [cells[2]]
    assert summary.select(cells, failed=True) == cells[3:]
    assert summary.settings(cells) == [("selection", "plus"), ("additive", "plus")]
    names = {"uhman_a": ["tables", "sizes"], "uhman-d128": ["figure4b"], "bl-x0.5": ["sizes"]}
    for name, parts in names.items():
        assert summary.parts({"cell": f"selection-0/cold_user/plus/{name}"}) == parts


def test_two_cells_of_one_dataset_are_never_averaged():
    cells = [plain([0.1], suffix="-first"), plain([0.2], suffix="-second")]
    with pytest.raises(ValueError, match="-first and .*-second"):
        summary.estimate(cells, "P@10")


@pytest.mark.parametrize("bad", [None, math.nan, math.inf, True])
def test_a_cell_with_a_value_that_is_not_a_number_is_left_out(bad):
    cells = [plain([0.1, bad]), plain([0.3, 0.5], world_seed=1)]
    cells[0]["references"] = {"oracle": {"P@10": bad}}
    assert summary.values(cells, "P@10") == {1: [0.3, 0.5]}
    assert summary.values(cells, "P@10", "oracle") == {1: [0.291]}
    assert summary.estimate(cells[:1], "P@10") is None
    assert summary.estimate(cells, "R@50") is None


def test_a_comparison_aligns_videos_and_pools_datasets(tmp_path):
    rng = np.random.default_rng(3)
    first, second = (
        [make_cell(rng, tmp_path, system=name, level=level, world_seed=w) for w in (0, 1)]
        for name, level in (("UHMAN", 0.14), ("3WM", 0.138))
    )
    gap, p = summary.compare(first, second, tmp_path)
    scores = []
    for cells in (first, second):
        scores.append({})
        for cell in cells:
            with np.load(tmp_path / cell["per_video"]) as arrays:
                means_V = arrays["p10_SV"].mean(axis=0, dtype=np.float64)
                ids = [(cell["world_seed"], name) for name in arrays["video_ids"]]
                scores[-1] |= dict(zip(ids, means_V, strict=True))
    differences = [scores[0][key] - scores[1][key] for key in sorted(scores[0])]
    assert len(differences) == 2 * NUM_VIDEOS
    assert p == stats.sign_flip_p(np.array(differences)) < 1
    means = [np.mean([cell["test"]["P@10"] for cell in cells]) for cells in (first, second)]
    assert gap.mean == pytest.approx(means[0] - means[1])


def test_a_comparison_without_matching_per_video_values_has_no_p(tmp_path):
    rng = np.random.default_rng(3)
    one, two = (make_cell(rng, tmp_path, system=name) for name in ("UHMAN", "BL"))
    assert summary.compare([one], [two], tmp_path)[1] is not None
    stale = two | {"test": {"P@10": [value + 0.01 for value in two["test"]["P@10"]]}}
    for other in (stale, two | {"per_video": "nowhere.npz"}, make_cell(rng, system="BL")):
        gap, p = summary.compare([one], [other], tmp_path)
        assert gap is not None and p is None
    assert summary.compare([one], [], tmp_path) == (None, None)
    path = tmp_path / two["per_video"]
    with np.load(path) as arrays:
        ids, p10_SV = arrays["video_ids"], arrays["p10_SV"]
    np.savez(path, video_ids=np.char.add("other", ids), p10_SV=p10_SV)
    with pytest.raises(ValueError, match="same test videos"):
        summary.compare([one], [two], tmp_path)
