"""Which of a user's other videos have a hashtag of a history, in parts."""

import numpy as np

from uhman_jax.dataset.history import NUM_PARTS, Ragged, build_histories, history_parts

RNG = np.random.default_rng(0)


def slow_parts(user_V, is_train_V, positives, history):
    """Computes the parts from their definition, one entry at a time."""
    part, seen = {}, {}
    for v in range(len(user_V)):
        if is_train_V[v]:
            part[v] = seen.get(user_V[v], 0) % NUM_PARTS
            seen[user_V[v]] = seen.get(user_V[v], 0) + 1
    values = []
    for v in range(len(user_V)):
        for t in history.row(v):
            others = [
                o for o in part if user_V[o] == user_V[v] and o != v and t in positives.row(o)
            ]
            bits = sum(1 << p for p in {part[o] for o in others})
            values.append(bits or 1 << (int(t) % NUM_PARTS))
    return np.array(values, np.uint32).view(np.int32)


def test_parts_are_those_of_the_other_train_videos():
    num_videos, num_hashtags = 400, 12
    user_V = RNG.choice(8, num_videos, p=[0.6, 0.1, 0.1, 0.05, 0.05, 0.05, 0.04, 0.01])
    is_train_V = RNG.random(num_videos) < 0.7
    uses = np.nonzero(RNG.random((num_videos, num_hashtags)) < 0.1)
    past = np.array([0, 1, 7]), np.array([3, 11, 5])
    positives = Ragged.build(*uses, num_videos)
    name_rank_T = np.arange(num_hashtags)
    history = build_histories(user_V, is_train_V, uses, past, name_rank_T, max_history=9)
    parts = history_parts(user_V, is_train_V, positives, history)
    assert parts.dtype == np.int32 and (parts != 0).all()
    np.testing.assert_array_equal(parts, slow_parts(user_V, is_train_V, positives, history))


def test_no_history_and_no_train_video():
    empty = Ragged(np.zeros(0, np.int32), np.zeros(3, np.int64))
    positives = Ragged(np.int32([1, 2]), np.int64([0, 1, 2]))
    assert history_parts(np.array([0, 1]), np.array([True, False]), positives, empty).size == 0
    listed = Ragged(np.int32([33]), np.int64([0, 1, 1]))
    parts = history_parts(np.array([0, 1]), np.array([False, False]), positives, listed)
    assert parts.tolist() == [2]  # part 33 mod 32
