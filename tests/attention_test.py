"""Facts about attention, by hand: mass and the most attended regions and frames."""

import dataclasses

import numpy as np
import pytest
from fake_truth import make_truth

from uhman_jax import input_pipeline
from uhman_jax.dataset.view import TEST
from uhman_jax.evaluate import attention


def test_attention_facts_average_frames_then_clips(world):
    view, store, *_ = world
    rows_V = view.rows(TEST)
    records = store.rows([view.video_ids[row] for row in rows_V])
    rows_V = rows_V[store.num_frames_V[records] == 2]
    regions_FM = np.zeros((2, 64))
    regions_FM[0, 14:18], regions_FM[1, 0] = 0.25, 1.0

    def observer(batch):
        size = len(batch.row_B)
        regions_SBFM = np.zeros((1, size, store.max_frames, 64))
        regions_SBFM[:, :, :2] = regions_FM
        return regions_SBFM, np.tile(np.array([0.75, 0.25, 0.0]), (1, size, 1))

    def facts_by(truth):
        batches = input_pipeline.eval_batches(view, store, rows=rows_V, batch_size=4)
        clips = attention.observe(observer, input_pipeline.iterate(batches), view, store)
        return attention.attention_facts(clips, truth)

    truth = make_truth(view)
    assert facts_by(dataclasses.replace(truth, objects=truth.objects.slice(0, 0))) == {}
    facts = facts_by(truth)
    # Frame 0 shows object 0 (regions 16..31): half of the attention on 14..17. Frame 1 shows
    # object 1 (regions 0..3), where all of it is; object 1 is the one that was tagged.
    assert facts["object_mass"] == pytest.approx([(0.5 + 1) / 2])
    assert facts["object_chance"] == pytest.approx([(16 + 4) / 2 / 64])
    assert facts["tagged_mass"] == pytest.approx([1.0])
    assert facts["tagged_chance"] == pytest.approx([4 / 64])
    assert facts["tagged_frame_mass"] == pytest.approx([0.25])
    assert facts["tagged_frame_chance"] == pytest.approx([0.5])
    # Region 0 of frame 1 has 0.25, the four of frame 0 have 0.75 / 4 each; frame 0 is on top.
    assert facts["top_region_tagged"] == pytest.approx([1.0])
    assert facts["top_region_tagged_chance"] == pytest.approx([4 / 128])
    assert facts["top_frame_tagged"] == pytest.approx([0.0])
    # Object 1's region is the most attended one, of the 20 of 128 that hold an object.
    assert facts["top_region_object"] == pytest.approx([1.0])
    assert facts["top_region_object_chance"] == pytest.approx([20 / 128])
    assert facts["top_frame_tagged_chance"] == pytest.approx([0.5])


@pytest.mark.parametrize(
    ("frames_F", "regions_FM", "expected"),
    [
        # The largest product counts, not the largest region weight.
        ([0.6, 0.4], [[0.7, 0.3, 0.0], [0.0, 0.0, 1.0]], {"region": 0.0, "frame": 0.0}),
        ([0.4, 0.6], [[0.9, 0.1, 0.0], [0.5, 0.4, 0.1]], {"region": 0.0, "frame": 1.0}),
        ([0.4, 0.6], [[0.5, 0.4, 0.1], [0.2, 0.1, 0.7]], {"region": 1.0, "frame": 1.0}),
        # 0.5 * 0.4 twice: once in the object, once beside it; frames tie as well.
        ([0.5, 0.5], [[0.4, 0.3, 0.3], [0.3, 0.3, 0.4]], {"region": 0.5, "frame": 0.5}),
        # All tie, up to the last bit of a float32: the value of chance.
        ([0.5, 0.5 + 6e-8], [[1 / 3, 1 / 3, 1 / 3 + 3e-8]] * 2, {"region": 2 / 6, "frame": 0.5}),
    ],
)
def test_top_facts_by_hand(frames_F, regions_FM, expected):
    mask_FM = np.array([[False, False, False], [False, True, True]])  # frame 1 shows the object
    frames_SF = np.float32([frames_F, [0.0, 1.0]])
    regions_SFM = np.float32([regions_FM, [[0.2, 0.4, 0.4], [1.0, 0.0, 0.0]]])
    clip = attention.ClipAttention("", np.zeros(2), regions_SFM, frames_SF)
    facts = attention._facts("tagged", clip, mask_FM)
    # The second seed looks at the right frame and there beside the object.
    assert facts["top_region_tagged"].tolist() == pytest.approx([expected["region"], 0.0])
    assert facts["top_frame_tagged"].tolist() == pytest.approx([expected["frame"], 1.0])
    assert facts["top_region_tagged_chance"].tolist() == pytest.approx([2 / 6] * 2)
    assert facts["top_frame_tagged_chance"].tolist() == pytest.approx([1 / 2] * 2)
