"""Vocabulary, attributes and histories of a view, and that no label leaks into them."""

import collections
import dataclasses
import math
import random
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from views import (
    EVERY_SPLIT,
    EVERY_VIEW,
    build,
    contents,
    make_raw,
    names_of,
    random_world,
    relabel,
    spell,
)

from uhman_jax.config import Distribution, Split, ViewConfig
from uhman_jax.dataset.raw import User, Video
from uhman_jax.dataset.view import TEST, TRAIN, VALIDATION, build_view
from uhman_jax.dataset.vocabulary import describe_min_count
from uhman_jax.runtime.errors import UserError

# ---- Worked by hand


def test_small_view_by_hand():
    videos = [
        Video("a", "", "ann", ("sun", "sea"), 1),
        Video("b", "", "ann", ("sea",), 2),
        Video("c", "", "bob", ("sea", "sky"), 3),
        Video("d", "", "ann", ("sky", "new"), 4),
        Video("e", "", "bob", ("sun",), 5),
    ]
    users = [User("ann", "f", 17, "no", ("sky", "old")), User("bob", "m", None, "", ())]
    view = build(videos, users, split=Split.TEMPORAL)  # test e, validation d, train a b c
    assert view.video_ids == ("a", "b", "c", "d", "e")
    assert view.user_ids == ("ann", "ann", "bob", "ann", "bob")
    assert view.split_V.tolist() == [TRAIN, TRAIN, TRAIN, VALIDATION, TEST]
    assert view.hashtags == ("sea", "sky", "sun") and view.counts_T.tolist() == [3, 1, 1]
    assert view.genders == ("unknown", "f", "m") and view.gender_V.tolist() == [1, 1, 2, 1, 2]
    assert view.ages == ("unknown", "13-17") and view.age_V.tolist() == [1, 1, 0, 1, 0]
    assert view.countries == ("unknown", "no") and view.country_V.tolist() == [1, 1, 0, 1, 0]
    assert [names_of(view, view.positives, row) for row in range(5)] == [
        ["sea", "sun"], ["sea"], ["sea", "sky"], ["sky"], ["sun"],
    ]  # fmt: skip
    assert [names_of(view, view.history, row) for row in range(5)] == [
        ["sea", "sky"],  # b's, and ann's own list
        ["sea", "sky", "sun"],  # a's, and her list
        [],  # bob's other video is a test video
        ["sea", "sky", "sun"],  # a and b use sea twice; not "new", which is d's own
        ["sea", "sky"],  # c's
    ]
    assert (view.max_positives, view.max_history) == (2, 3)
    assert view.report["rare_uses"] == 1  # "new"
    for array, kind in [
        (view.split_V, np.int8), (view.counts_T, np.int64), (view.gender_V, np.int32),
        (view.history.values, np.int32), (view.positives.offsets, np.int64),
        (view.rows(TRAIN), np.int64),
    ]:  # fmt: skip
        assert array.dtype == kind


def test_a_share_of_the_training_videos_keeps_hashtags_and_the_other_splits():
    """Checks that a smaller part is nested in a larger one, and counts only its own uses."""
    videos, users = random_world(5)
    videos = spell(videos, 0)
    whole = build(videos, users)
    before = set(whole.video_ids)
    for share in (0.5, 0.25):
        part = build(videos, users, train_share=share)
        assert part.hashtags != whole.hashtags, "they are ordered by their uses"
        shown = [sorted(zip(view.hashtags, view.spellings, strict=True)) for view in (part, whole)]
        assert shown[0] == shown[1]
        train_ids = {part.video_ids[row] for row in part.rows(TRAIN)}
        assert len(train_ids) == math.floor(share * len(whole.rows(TRAIN)) + 0.5)
        assert train_ids < before
        before = train_ids
        for split in (VALIDATION, TEST):
            one, other = (np.array(v.video_ids)[v.rows(split)].tolist() for v in (part, whole))
            assert one == other
        uses = collections.Counter(
            name for row in part.rows(TRAIN) for name in names_of(part, part.positives, row)
        )
        assert part.counts_T.tolist() == [uses[name] for name in part.hashtags]
        assert list(part.hashtags) == sorted(part.hashtags, key=lambda name: (-uses[name], name))
        row = int(part.rows(TEST)[0])
        original = {video.video_id: set(video.hashtags) for video in videos}
        assert set(names_of(part, part.positives, row)) == original[part.video_ids[row]]


TEMPORAL = {"split": Split.TEMPORAL}
RARE = [("all", "three")] * 3 + [("all", "two")] * 2 + [("all",)] * 13 + [("all", "two")] * 2


@pytest.mark.parametrize(
    "tags, options, hashtags, counts, report",
    [  # of the 20 videos with rare hashtags, 14 and 15 are validation and the last four are test
        (RARE, TEMPORAL | {"min_count": 3}, "all three", [14, 3], {"rare_uses": 4}),
        ([tuple("bca")] * 5, {}, "a b c", [3, 3, 3], {"rare_uses": 0}),  # of equal ones by name
        ([tuple("dacb")] * 10, {"max_positives": 3}, "a c d", [7, 7, 7], {"surplus_uses": 10}),
    ],
)
def test_vocabularies_by_hand(tags, options, hashtags, counts, report):
    videos = [Video(f"v{i:02d}", "", "u", names, i) for i, names in enumerate(tags)]
    view = build(videos, **options)
    assert view.hashtags == tuple(hashtags.split()) and view.counts_T.tolist() == counts
    assert report.items() <= view.report.items()
    assert view.max_positives == min(len(tags[0]), options.get("max_positives", 99))


def test_hashtag_that_no_train_video_keeps_is_not_known():
    videos = [Video(f"v{i}", "", "u", ("a", "b"), i) for i in range(10)]
    videos[9] = dataclasses.replace(videos[9], hashtags=("b", "a"))  # the test video keeps only b
    videos[8] = dataclasses.replace(videos[8], hashtags=("a",))
    view = build(videos, split=Split.TEMPORAL, max_positives=1, test_share=0.2)
    assert view.hashtags == ("a",) and view.counts_T.tolist() == [7]
    assert "v9" not in view.video_ids and view.report["test_videos_without_hashtag"] == 1


def test_history_keeps_the_most_used():
    videos = [
        Video(f"v{i}", "", "u", ("d",) + ("b",) * (i > 2) + ("c",) * (i > 4), i) for i in range(8)
    ]
    view = build(videos, [User("u", "", None, "", ("a",))], split=Split.TEMPORAL, max_history=2)
    assert view.max_history == 2
    test = view.rows(TEST)[0]
    assert names_of(view, view.history, test) == ["d", "b"]  # of d, b, a and c


def test_history_has_no_gap_at_the_own_hashtags():
    """Removing all of a video's hashtags would reveal them."""
    videos = [Video(f"v{i}", "", "u", ("same",), i) for i in range(5)]
    view = build(videos)
    assert all(names_of(view, view.history, row) == ["same"] for row in range(5))


def test_no_history_anywhere():
    videos = [Video(f"v{i}", "", f"u{i}", ("t",), i) for i in range(5)]
    view = build(videos)
    assert view.history.values.size == 0 and view.max_history == 1
    assert view.history.row(3).tolist() == []


def test_attribute_values_outside_train_are_unknown():
    videos = [Video(f"v{i}", "", f"u{i}", ("t",), i) for i in range(10)]
    genders = ["b", "b", "b", "a", "a", "unknown", "", "c", "b", "c"]  # 7 validation, 8 and 9 test
    ages = [50, 17, 18, 12, 13, 44, 45, 30, 24, 35]
    users = [User(f"u{i}", genders[i], ages[i], genders[i], ()) for i in range(10)]
    view = build(videos, users, split=Split.TEMPORAL)
    assert view.split_V.tolist() == [TRAIN] * 7 + [VALIDATION] + [TEST] * 2
    assert view.genders == view.countries == ("unknown", "b", "a")
    assert view.gender_V.tolist() == view.country_V.tolist() == [1, 1, 1, 2, 2, 0, 0, 0, 1, 0]
    assert view.ages == ("unknown", "<13", "13-17", "18-24", "35-44", "45+")
    assert view.age_V.tolist() == [5, 2, 3, 1, 2, 4, 5, 0, 3, 4]


def test_videos_without_features_or_hashtags_are_counted():
    videos = [Video(f"v{i:02d}", "", "u", ("t",), i) for i in range(30)]
    videos[3] = dataclasses.replace(videos[3], hashtags=("rare",))
    videos[25] = dataclasses.replace(videos[25], hashtags=("rarer",), timestamp=25)
    videos[7] = dataclasses.replace(videos[7], timestamp=None)
    config = ViewConfig(min_count=2, split=Split.TEMPORAL)
    ids = {video.video_id for video in videos[1:]} | {"of another dataset"}
    view = build_view(make_raw(videos), ids, config)
    assert len(view.video_ids) == 27 and {"v00", "v03", "v25"}.isdisjoint(view.video_ids)
    assert view.report == {
        "raw_videos": 30,
        "videos_without_features": 1,
        "videos_without_timestamp": 1,
        "rare_uses": 2,
        "surplus_uses": 0,
        "train_videos_without_hashtag": 1,
        "validation_videos_without_hashtag": 0,
        "test_videos_without_hashtag": 1,
    }


# ---- Against a slow, obvious version


def slow_history(view, videos, users, row, max_history):
    """Returns the history of a row by counting names."""
    user_id, count = view.user_ids[row], collections.Counter()
    for user in users:
        if user.user_id == user_id:
            count.update(user.history)
    for other in view.rows(TRAIN):
        if view.user_ids[other] == user_id and other != row:
            count.update(names_of(view, view.positives, other))
    ranked = sorted(count, key=lambda name: (-count[name], name))
    return [name for name in ranked if name in view.hashtags][:max_history]


@pytest.mark.parametrize("split, distribution", EVERY_VIEW)
@pytest.mark.parametrize("num_users, max_history", [(3, 2), (3, 7), (30, 5), (200, 32)])
def test_histories_and_counts_agree_with_counting(split, distribution, num_users, max_history):
    videos, users = random_world(num_users, num_users=num_users)
    options = dict(split=split, distribution=distribution, balanced_top=4, min_count=2)
    view = build(videos, users, max_history=max_history, **options)
    for row in range(len(view.video_ids)):
        expected = slow_history(view, videos, users, row, max_history)
        assert names_of(view, view.history, row) == expected
        assert np.all(np.diff(view.positives.row(row)) > 0)
    train = [view.positives.row(row) for row in view.rows(TRAIN)]
    counts = np.bincount(np.concatenate(train), minlength=len(view.hashtags)).tolist()
    assert view.counts_T.tolist() == counts and min(counts) >= 1
    assert list(view.hashtags) == [
        n for _, n in sorted(zip(np.negative(counts), view.hashtags, strict=True))
    ]
    lengths = np.diff(view.history.offsets)
    assert view.max_history == lengths.max() <= max_history
    assert view.max_positives == np.diff(view.positives.offsets).max()


# ---- Laws


@pytest.mark.parametrize("split, distribution", EVERY_VIEW)
def test_order_of_rows_changes_nothing(split, distribution):
    videos, users = random_world(10)
    options = dict(split=split, distribution=distribution, balanced_top=4, min_count=3)
    reference = build(videos, users, **options)
    for seed in range(3):
        random.Random(seed).shuffle(videos)
        random.Random(seed).shuffle(users)
        view = build(videos, users, **options)
        assert view.fingerprint == reference.fingerprint and view.report == reference.report


labels = st.lists(
    st.sampled_from(
        [f"t{i:02d}" for i in range(25)] + ["T00", "T01", "never seen", "nor this", "Nor This"]
    ),
    min_size=1,
    max_size=8,
    unique_by=str.lower,
).map(tuple)


@settings(max_examples=40, deadline=None)
@given(st.data(), st.sampled_from(EVERY_VIEW), st.integers(0, 5))
def test_labels_outside_train_change_nothing(data, kind, seed):
    """Checks that no label of a validation or test video changes a train row or any history."""
    split, distribution = kind
    options = dict(split=split, distribution=distribution, balanced_top=4, min_count=3)
    videos, users = random_world(seed, num_users=8)
    videos = spell(videos, seed)
    before = build(videos, users, **options)
    outside = [before.video_ids[r] for r in range(len(before.video_ids)) if before.split_V[r]]
    ids = data.draw(st.sets(st.sampled_from(outside), min_size=1))
    swapped = relabel(videos, ids, lambda video: tuple(map(str.swapcase, video.written)))
    assert build(swapped, users, **options).fingerprint == before.fingerprint, "of other spellings"
    # One row of each split is unchanged, so that no split can be empty.
    ids -= {before.video_ids[before.rows(s)[0]] for s in (VALIDATION, TEST)}
    after = build(relabel(videos, ids, lambda video: data.draw(labels)), users, **options)
    assert (after.hashtags, after.spellings) == (before.hashtags, before.spellings)
    assert after.counts_T.tolist() == before.counts_T.tolist()
    for name in ("genders", "ages", "countries"):
        assert getattr(after, name) == getattr(before, name)
    assert contents(after, after.rows(TRAIN)) == contents(before, before.rows(TRAIN))
    known = set(before.video_ids) & set(after.video_ids)
    old, new = (contents(v, range(len(v.video_ids))) for v in (before, after))
    for video_id in known:
        assert new[video_id][:6] == old[video_id][:6], "all but the label itself"
    assert known >= set(before.video_ids) - ids


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(EVERY_SPLIT), st.integers(0, 5), st.integers(1, 12))
def test_own_label_is_not_in_the_own_history(data, split, seed, max_history):
    """Checks that the history of a video does not depend on its own label."""
    videos, users = random_world(seed, num_users=6)
    # Train has two other uses of each hashtag, so that the vocabulary stays the same.
    everything = tuple(f"t{i:02d}" for i in range(25))
    anchors = [Video(f"anchor {i}", "", f"anchor {i}", everything, None) for i in range(40)]
    options = dict(split=split, min_count=2, max_positives=30, max_history=max_history)
    before = build(videos + anchors, users, **options)
    row = data.draw(st.integers(0, len(before.video_ids) - 1))
    video_id = before.video_ids[row]
    changed = relabel(videos + anchors, {video_id}, lambda video: data.draw(labels))
    after = build(changed, users, **options)
    assert set(after.hashtags) == set(before.hashtags)
    if video_id in after.video_ids:
        new = after.video_ids.index(video_id)
        assert names_of(after, after.history, new) == names_of(before, before.history, row)
        assert after.split_V[new] == before.split_V[row]


def test_train_label_does_reach_the_other_histories():
    """Checks that histories are not empty, for which the checks above would also pass."""
    videos, users = random_world(11, num_users=6)
    before = build(videos, users, max_history=99)
    row = before.rows(TRAIN)[0]
    videos = relabel(videos, {before.video_ids[row]}, lambda video: ("t00", "brand new"))
    after = build(videos, users, max_history=99)
    reached = [r for r in range(len(videos)) if "brand new" in names_of(after, after.history, r)]
    same_user = [r for r in range(len(videos)) if after.user_ids[r] == after.user_ids[row]]
    assert reached == [r for r in same_user if r != row] and len(reached) > 5


# ---- Errors


def test_errors_name_the_remedy():
    videos = [Video(f"v{i}", "", f"u{i % 2}", (f"t{i % 3}",), None) for i in range(30)]

    def message(videos=videos, ids=None, **options):
        config = ViewConfig(**{"min_count": 1} | options)
        ids = [video.video_id for video in videos] if ids is None else ids
        with pytest.raises(UserError) as caught:
            build_view(make_raw(videos), ids, config)
        return str(caught.value)

    assert "got none of 30; preprocess them first" in message(ids=["other"])
    text = message(min_count=100)
    assert "must have 100 uses in train (view.min_count), got" in text and "in 22 train" in text
    balanced = message(distribution=Distribution.BALANCED)
    assert "below the number of hashtags (3), got 150; use 0" in balanced
    assert "3), got 3" in message(distribution=Distribution.BALANCED, balanced_top=3)
    assert "got no timestamp in 30 videos" in message(split=Split.TEMPORAL)
    assert "got 2 users of which 1 are test and 1 validation" in message(split=Split.COLD_USER)
    assert "got 2 videos of which 1 are test and 1 validation" in message(videos[:2])
    unique = [dataclasses.replace(video, hashtags=(video.video_id,)) for video in videos]
    assert "the validation split must have a video with a hashtag that train" in message(unique)


# ---- Speed


@pytest.mark.parametrize("num_users", [1, 6500])
def test_ten_thousand_videos_are_fast(num_users):
    videos, users = random_world(18, num_videos=10_000, num_users=num_users + 3, num_hashtags=700)
    started = time.monotonic()
    view = build(videos, users, distribution=Distribution.BALANCED, min_count=10)
    assert time.monotonic() - started < 5, "generous: about 0.2 s when the machine is idle"
    assert len(view.video_ids) > 5_000


COUNTED = ["a b", "a", "a c", "c"]  # hashtags of the training videos


def test_the_effect_of_min_count_is_described_from_train_only():
    tags = [*COUNTED, "b b2 d", "d"]
    videos = [Video(f"v{i}", "", "u", tuple(t.split()), i) for i, t in enumerate(tags)]
    split_V = np.array([TRAIN] * 4 + [TEST, VALIDATION])
    text = (
        "Vocabulary: hashtags with at least {} in train (view.min_count). This drops {} of the "
        "uses and {} of the videos in train; {}10 drops 100.0 % and 100.0 %."
    )
    others = "3 drops 50.0 % and 25.0 %, 5 drops 100.0 % and 100.0 %, "
    described = describe_min_count(videos, split_V, 2)
    assert described == text.format("2 uses", "16.7 %", "0.0 %", others)
    described = describe_min_count(videos, split_V, 3)
    assert described == text.format("3 uses", "50.0 %", "25.0 %", others[27:])
    described = describe_min_count(videos, split_V, 1)
    assert described == text.format("1 use", "0.0 %", "0.0 %", others)


def test_an_automatic_min_count_fits_the_number_of_train_videos():
    videos, users = random_world(9)
    automatic, three, one = (build(videos, users, min_count=count) for count in (0, 3, 1))
    assert automatic.min_count == three.min_count == 3 and one.min_count == 1
    assert automatic.fingerprint == three.fingerprint
    videos = [Video(f"v{i:04}", "", "u", ("all", f"t{i // 4}"), None) for i in range(1400)]
    view = build(videos, min_count=0)  # 1008 in train, at most 4 uses of a rare hashtag
    assert view.min_count == 5 and view.hashtags == ("all",)


@pytest.mark.parametrize("split", EVERY_SPLIT)
def test_the_history_of_a_further_video_has_all_that_a_user_used(split):
    videos, users = random_world(21, num_users=120)
    users = [*users, User("nobody", history=("t00",))]
    view = build(videos, users, split=split)
    listed = {user.user_id: user.history for user in users}
    checked = [0, 0]
    for user_id in set(view.user_ids):
        rows = [row for row, name in enumerate(view.user_ids) if name == user_id]
        in_train = [row for row in rows if view.split_V[row] == TRAIN]
        used = [name for row in in_train for name in names_of(view, view.positives, row)]
        past = [name for name in listed.get(user_id, ()) if name in view.hashtags]
        count = collections.Counter([*used, *past])
        expected = sorted(count, key=lambda name: (-count[name], name))
        found = [view.hashtags[t] for t in view.next_history(user_id)]
        if len(expected) <= view.max_history:
            assert sorted(found) == sorted(expected)
        is_exact = len(in_train) < len(rows) or not past or max(count.values()) == 1
        checked[is_exact] += 1
        if is_exact:
            assert found == expected[: view.max_history]
    assert checked[1] > 50 and (checked[0] or split is Split.TEMPORAL)
    assert view.next_history("nobody") == view.next_history("") == []
