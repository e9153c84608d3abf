"""Splits: their sizes, their members, and the effect of another seed or video."""

import hashlib

import numpy as np
import pytest
from views import EVERY_SPLIT, build, names_of, random_world

from uhman_jax.config import Split
from uhman_jax.dataset.raw import Video
from uhman_jax.dataset.view import TEST, TRAIN, VALIDATION


@pytest.mark.parametrize("split", EVERY_SPLIT)
@pytest.mark.parametrize("shares", [(0.2, 0.1), (0.5, 0.5), (0.1, 0), (0, 0.3)])
def test_shares(split, shares):
    test_share, validation_share = shares
    options = dict(split=split, test_share=test_share, validation_share=validation_share)
    view = build(*random_world(2, num_videos=500, num_users=200), **options)
    assert len(view.video_ids) == 500
    test, validation = len(view.rows(TEST)), len(view.rows(VALIDATION))
    slack = 4 if split is Split.COLD_USER else 0  # half of a user's videos
    assert abs(test - 500 * test_share) <= slack
    assert abs(validation - round((500 - test) * validation_share)) <= slack
    assert len(view.rows(TRAIN)) == 500 - test - validation
    rows = np.concatenate([view.rows(s) for s in (TRAIN, VALIDATION, TEST)])
    assert sorted(rows.tolist()) == list(range(500))


def test_temporal_split_puts_the_newest_last():
    videos, users = random_world(3)
    view = build(videos, users, split=Split.TEMPORAL)
    when = {v.video_id: -1 if v.timestamp is None else v.timestamp for v in videos}
    times = [[when[view.video_ids[row]] for row in view.rows(s)] for s in (TRAIN, VALIDATION, TEST)]
    assert max(times[0]) < min(times[1]) and max(times[1]) < min(times[2])
    assert sum(time == -1 for time in times[0]) == view.report["videos_without_timestamp"] > 0


def test_cold_users_are_in_one_split():
    videos, users = random_world(4)
    view = build(videos, users, split=Split.COLD_USER)
    members = [{view.user_ids[row] for row in view.rows(s)} for s in (TRAIN, VALIDATION, TEST)]
    assert all(members) and sum(map(len, members)) == len(set(view.user_ids))
    for row in view.rows(TEST):  # a cold user has only their own list
        own = [user.history for user in users if user.user_id == view.user_ids[row]]
        assert set(names_of(view, view.history, row)) <= set(*own)


def test_random_split_mixes_users_and_times():
    videos, users = random_world(5)
    view = build(videos, users)
    test = {view.user_ids[row] for row in view.rows(TEST)}
    assert len(test & {view.user_ids[row] for row in view.rows(TRAIN)}) > 20


def test_the_smallest_share_of_training_videos_is_one():
    view = build(*random_world(5), train_share=1e-9)
    assert len(view.rows(TRAIN)) == 1


@pytest.mark.parametrize("split", [Split.RANDOM, Split.COLD_USER])
def test_seed_changes_the_split(split):
    videos, users = random_world(6)
    one, again, two = (build(videos, users, split=split, seed=seed) for seed in (1, 1, 2))
    assert one.fingerprint == again.fingerprint != two.fingerprint
    ids = [{view.video_ids[row] for row in view.rows(TEST)} for view in (one, two)]
    assert ids[0] != ids[1]


def test_another_video_moves_few_between_splits():
    videos, users = random_world(7)
    fewer, more = build(videos[:-1], users), build(videos, users)
    split = dict(zip(more.video_ids, more.split_V, strict=True))
    moved = sum(split[v] != s for v, s in zip(fewer.video_ids, fewer.split_V, strict=True))
    assert moved <= 2


def test_five_clips_are_enough():
    videos = [Video(f"clip {i}", "", "me", ("t",), None) for i in range(5)]
    view = build(videos)
    assert [len(view.rows(split)) for split in (TRAIN, VALIDATION, TEST)] == [3, 1, 1]


@pytest.mark.parametrize(
    ("split", "digest"),
    [
        (Split.RANDOM, "c34c0734e379dd2c"),
        (Split.TEMPORAL, "68709aa4c5c41f4e"),
        (Split.COLD_USER, "40057901a1b1535b"),
    ],
)
def test_splits_without_duplicates_stay_what_they_were(split, digest):
    """Checks that runs of an earlier version continue; the digests are of commit be6e33a."""
    videos, users = random_world(3, num_videos=97)
    view = build(videos, users, split=split, seed=5, validation_share=0.3)
    assert hashlib.sha256(view.split_V.tobytes()).hexdigest()[:16] == digest
