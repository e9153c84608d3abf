"""Reading the truth, and its region masks against boxes worked out by hand."""

import dataclasses
import json

import numpy as np
import pyarrow as pa
import pytest

from uhman_jax.runtime.errors import UserError
from uhman_jax.simulator import truth as truth_lib


def cells(mask_M) -> set[tuple[int, int]]:
    """(row, column) of the regions of a mask."""
    return {divmod(int(region), 8) for region in np.flatnonzero(mask_M)}


def make_truth(objects) -> truth_lib.Truth:
    columns = [list(column) for column in zip(*objects, strict=True)] or [[]] * 8
    clips = [["b", "a"], [0, -1], [["star", "fish"], ["moon"]], [[1.5, -0.5], [0.0]]]
    return truth_lib.Truth(
        hashtags=("x", "y", "z"),
        video_ids=("b", "a"),
        probability_VT=np.float32([[0.5, 0.25, 1], [0, 0, 0.75]]),
        observable_VT=np.float32([[0.25, 0.25, 0.5], [0, 0.125, 0.75]]),
        objects=pa.table(columns, schema=truth_lib.OBJECTS_SCHEMA),
        clips=pa.table(clips, schema=truth_lib.CLIPS_SCHEMA),
        content_VT=np.float32([[0.5, 0, 0.25], [0.75, 0, 0.5]]),
        user_VT=np.float32([[0.125, 0.25, 0], [0, 0, 1]]),
    )


FILES = ["world.json", "objects.parquet", "clips.parquet"]
FILES += ["probability.npy", "observable.npy", "content.npy", "user.npy"]
OBJECTS = [
    ("b", 0, "star", 0.2, 0.0, 0.0, 0.25, 0.125),
    ("b", 0, "star", 0.4, 0.125, 0.0, 0.375, 0.125),
    ("b", 1, "fish", 0.4, 0.5, 0.5, 1.0, 1.0),
    ("a", 0, "moon", 0.0, 0.9, 0.9, 0.95, 0.95),
]


def test_regions_follow_the_grid():
    quarter = np.array([[0.0, 0.5, 0.5, 1.0]])
    assert truth_lib.box_regions(quarter, 4).nonzero()[1].tolist() == [2]
    assert truth_lib.box_regions(quarter, 49).sum() == 9 + 6  # whole and half covered cells


@pytest.mark.parametrize(
    "box, expected",
    [
        ((0.0, 0.0, 0.25, 0.125), {(0, 0), (0, 1)}),  # two whole cells
        ((0.0625, 0.0, 0.1875, 0.125), {(0, 0), (0, 1)}),  # half of either cell, exactly
        ((0.07, 0.0, 0.18, 0.125), {(0, 0), (0, 1)}),  # 0.055 of a cell's 0.125, half of the box
        ((0.12, 0.12, 0.13, 0.13), set()),  # a quarter of the box in each of four cells
        ((0.07, 0.0, 0.17, 0.125), {(0, 0)}),  # 0.055 of 0.1 of the box
        ((0.26, 0.51, 0.27, 0.52), {(4, 2)}),  # small, inside one cell
        ((0.0, 0.05, 1.0, 0.2), {(0, x) for x in range(8)} | {(1, x) for x in range(8)}),
        ((0.0, 0.07, 1.0, 0.2), {(1, x) for x in range(8)}),  # 0.055 / 0.125 of row 0
        ((0.0, 0.0, 1.0, 1.0), {(y, x) for y in range(8) for x in range(8)}),
        ((0.3, 0.3, 0.3, 0.3), set()),  # empty
    ],
)
def test_box_regions(box, expected):
    assert cells(truth_lib.box_regions(np.array([box]), 64)[0]) == expected


def test_region_masks_take_the_nearest_grid_time():
    truth = make_truth(OBJECTS)
    mask_FOM = truth.region_masks("b", [0.0, 0.09, 0.21, 0.33, 0.45, 0.51], 64)
    assert mask_FOM.shape == (6, 2, 64) and mask_FOM.dtype == bool
    star, fish = [[cells(mask_M) for mask_M in mask_FOM[:, index]] for index in (0, 1)]
    first, second = {(0, 0), (0, 1)}, {(0, 1), (0, 2)}
    quarter = {(y, x) for y in range(4, 8) for x in range(4, 8)}
    assert star == [set(), set(), first, second, second, set()]
    assert fish == [set(), set(), set(), quarter, quarter, set()]


def test_region_masks_of_other_videos_and_of_no_frame():
    truth = make_truth(OBJECTS)
    (mask_OM,) = truth.region_masks("a", [0.0], 64)
    assert [cells(mask_M) for mask_M in mask_OM] == [{(7, 7)}]
    assert truth.region_masks("b", [], 64).shape == (0, 2, 64)
    unseen = make_truth(OBJECTS[:3])
    assert not unseen.region_masks("a", [0.0, 0.2], 64).any()
    assert not make_truth([]).region_masks("b", [0.2], 64).any()


def test_rows_and_tagged_objects_by_id():
    truth = make_truth(OBJECTS)
    assert truth.tagged == {"b": 0}  # nothing in "a"
    assert truth.rows(["a", "b", "a"]).tolist() == [1, 0, 1]
    with pytest.raises(UserError, match="must be one of the simulated ones, got 'c'"):
        truth.rows(["a", "c"])


def write(root, truth):
    """Writes a truth as one of a complete dataset; returns its folder."""
    truth_lib.write_truth(root, truth)
    assert truth_lib.load_truth(root) is None  # not complete without the marker
    (root / truth_lib.MARKER).write_text("{}")
    return root / "truth"


def test_written_truth_is_read_back(tmp_path):
    truth = make_truth(OBJECTS)
    write(tmp_path, truth)
    back = truth_lib.load_truth(tmp_path)
    assert (back.hashtags, back.video_ids) == (truth.hashtags, truth.video_ids)
    for name in ("probability_VT", "observable_VT", "content_VT", "user_VT"):
        np.testing.assert_array_equal(getattr(back, name), getattr(truth, name))
    assert back.objects.equals(truth.objects) and back.clips.equals(truth.clips)


def test_truth_of_before_the_marginal_oracles_is_read(tmp_path):
    truth = dataclasses.replace(make_truth(OBJECTS), content_VT=None, user_VT=None)
    path = write(tmp_path, truth) / "world.json"
    names = {file.name for file in path.parent.iterdir()}
    assert names == set(FILES) - {"content.npy", "user.npy"}
    world = json.loads(path.read_text())
    for older in (world, {name: world[name] for name in ("hashtags", "video_ids")}):
        path.write_text(json.dumps(older))
        back = truth_lib.load_truth(tmp_path)
        assert back.content_VT is None and back.user_VT is None
        np.testing.assert_array_equal(back.observable_VT, truth.observable_VT)


@pytest.mark.parametrize("name", FILES)
def test_damaged_truth_names_the_file(tmp_path, name):
    path = write(tmp_path, make_truth(OBJECTS)) / name
    for content in (path.read_bytes()[:-9], b'{"other": 1}', None):
        path.unlink() if content is None else path.write_bytes(content)
        with pytest.raises(UserError, match=f"must be whole, got .*{name}.*simulate it again"):
            truth_lib.load_truth(tmp_path)


def test_no_truth_about_real_data(tmp_path):
    assert truth_lib.load_truth(tmp_path) is None
