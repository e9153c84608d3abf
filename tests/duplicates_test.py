"""Videos of equal content: no split divides them, and their number is reported."""

import collections
import dataclasses
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from views import EVERY_SPLIT, build, make_raw, random_world

from uhman_jax.config import Duplicates, Split, ViewConfig
from uhman_jax.dataset.duplicates import describe_copies, find_copies, leave_out_copies
from uhman_jax.dataset.raw import Video
from uhman_jax.dataset.rules import CURRENT
from uhman_jax.dataset.split import assign_splits, stateless_hash
from uhman_jax.dataset.view import TEST, TRAIN, VALIDATION, build_view
from uhman_jax.runtime.errors import UserError


def video(video_id, user_id="u", timestamp=None):
    return Video(video_id, f"{video_id}.mp4", user_id, ("tag",), timestamp)


# ---- Worked by hand


def test_copies_are_grouped_and_the_oldest_is_the_first():
    videos = [
        video("f"), video("e", timestamp=5), video("d", timestamp=0), video("c", timestamp=5),
        video("b"), video("a"), video("h"), video("g", timestamp=9),
    ]  # fmt: skip
    contents = dict(f="x", e="x", d="x", c="x", b="x", a="y", g="y", h="") | {"not there": ""}
    copies = find_copies(videos, contents)
    assert ["".join(v.video_id for v in group) for group in copies] == ["ga", "dcebf"]
    kept = leave_out_copies(videos, copies)
    assert "".join(v.video_id for v in kept) == "dhg"


def test_users_are_bound_through_others():
    """Users a and b share one content, b and c another."""
    videos = [video(f"v{i}", user_id) for i, user_id in enumerate("abbcdefghijklmno")]
    copies = find_copies(videos, dict(v0="x", v1="x", v2="y", v3="y"))
    options = dict(test_share=0.25, validation_share=0.3, copies=copies)
    splits = [assign_splits(videos, Split.COLD_USER, seed=seed, **options) for seed in range(20)]
    assert {tuple(split_V[:4].tolist()) for split_V in splits} == {
        (TRAIN,) * 4,
        (VALIDATION,) * 4,
        (TEST,) * 4,
    }


def test_a_content_that_was_posted_before_is_not_new():
    """The newest post is a copy of the oldest; the last of the others is the test."""
    videos = [video(f"v{t}", timestamp=t) for t in range(10)]
    contents = dict(v9="x", v0="x", v4="y")
    options = dict(test_share=0.1, validation_share=0.2, seed=0)
    split_V = assign_splits(videos, Split.TEMPORAL, copies=find_copies(videos, contents), **options)
    assert "".join(map(str, split_V)) == "0000001120"


@pytest.mark.parametrize(("split", "unit"), [(Split.COLD_USER, "users"), (Split.RANDOM, "videos")])
def test_a_split_that_duplicates_make_impossible_names_the_remedy(split, unit):
    message = f"a {split.value} split must leave {unit} to train on, got 6 {unit}, bound by "
    message += "duplicates or the column group into 1 group, of which 1 are test and 0 validation; "
    message += "set --config.data.duplicates=drop, divide groups, add"
    videos = [video(f"v{i}", f"u{i}") for i in range(6)]
    contents = {v.video_id: "black" for v in videos}
    config = ViewConfig(split=split, min_count=1)
    ids = list(contents)
    with pytest.raises(UserError, match=message):
        build_view(make_raw(videos), ids, config, contents)
    build_view(make_raw(videos), ids, config, contents, Duplicates.KEEP)


@pytest.mark.parametrize(
    ("counts", "duplicates", "text"),
    [
        ((), Duplicates.TOGETHER, ""),
        ((1, 2, 1), Duplicates.TOGETHER,
         "1 content has several ids, 2 videos in all. All videos of a content are kept in one "
         "part of the split; 1 of the contents would otherwise be in several of train, validation "
         "and test (--config.data.duplicates=drop keeps only the first video of each)."),
        ((3, 7, 2, 4), Duplicates.DROP,
         "3 contents have several ids, 7 videos in all. Only the first video of each is kept, "
         "which leaves out 4; 2 of the contents would otherwise be in several of train, "
         "validation and test."),
        ((2, 4, 1), Duplicates.KEEP,
         "2 contents have several ids, 4 videos in all. They count as different videos, which "
         "puts 1 of the contents in several of train, validation and test "
         "(--config.data.duplicates=together keeps each in one of them, "
         "--config.data.duplicates=drop keeps only the first video of each)."),
    ],
)  # fmt: skip
def test_descriptions(counts, duplicates, text):
    names = ("contents", "videos", "contents_in_several_parts_if_kept", "videos_left_out")
    report = {f"duplicate_{name}": n for name, n in zip(names, counts, strict=False)}
    assert describe_copies(report, duplicates) == text


@pytest.mark.parametrize("split", [Split.RANDOM, Split.COLD_USER])
def test_a_clip_that_very_many_post_does_not_fill_the_test(split):
    """Checks that all are in train if 60 of 100 users post the same clip, with any seed."""
    videos = [video(f"v{i}", f"u{i}") for i in range(100)]
    options = dict(test_share=0.2, validation_share=0.1)
    options["copies"] = find_copies(videos, {f"v{i}": "black" for i in range(60)})
    for seed in range(20):
        split_V = assign_splits(videos, split, seed=seed, **options)
        assert np.bincount(split_V).tolist() == [72, 8, 20] and not split_V[:60].any()


# ---- Laws


@st.composite
def worlds(draw):
    """Draws videos with many equal contents, users and times."""
    num_videos = draw(st.integers(3, 25))
    small = st.integers(0, draw(st.integers(1, 12)))
    users = [f"u{draw(small)}" for _ in range(num_videos)]
    times = [draw(st.none() | st.integers(0, 5)) for _ in range(num_videos)]
    ids = draw(st.permutations([f"v{i:02}" for i in range(num_videos)]))
    videos = [video(*row) for row in zip(ids, users, times, strict=True)]
    letters = "abcdefgh"[: draw(st.integers(1, 8))]
    contents = {
        video_id: draw(st.sampled_from(letters)) if draw(st.booleans()) else "" for video_id in ids
    }
    return videos, contents


def slow_parts(videos, contents, split, test_share, validation_share, seed):
    """Returns the part of each video from sets that are joined until none overlap, or None."""
    key = (lambda v: v.user_id) if split is Split.COLD_USER else (lambda v: v.video_id)
    units = []
    for unit in ([v for v in videos if key(v) == name] for name in {key(v) for v in videos}):
        known = {contents[v.video_id] for v in unit} - {""}
        joined = [other for other in units if known & {contents[v.video_id] for v in other}]
        units = [other for other in units if other not in joined] + [sum(joined, unit)]

    def position(unit):
        purpose = "split users" if split is Split.COLD_USER else "split"
        times = [v.timestamp for v in unit if v.timestamp is not None]
        limit = math.floor(max(test_share, validation_share) * len(videos) + 0.5)
        last = len(unit) > limit and len(set(map(key, unit))) > 1
        first = -min(times, default=-1) if split is Split.TEMPORAL else last
        return first, stateless_hash(purpose, seed, min(map(key, unit)))

    units.sort(key=position)
    parts = {}
    for part, share in ((2, test_share), (1, validation_share)):
        if share and units:
            sizes = np.cumsum(list(map(len, units)))
            target = math.floor(share * sizes[-1] + 0.5)
            best = int(np.argmin(np.abs(sizes - target))) + 1
            parts |= {v.video_id: part for unit in units[:best] for v in unit}
            units = units[best:]
    return parts | {v.video_id: 0 for unit in units for v in unit} if units else None


@pytest.mark.parametrize("split", EVERY_SPLIT)
@given(
    world=worlds(),
    shares=st.tuples(st.sampled_from([0, 0.1, 0.2, 0.5]), st.sampled_from([0, 0.1, 0.4])),
    seed=st.integers(0, 3),
)
@settings(max_examples=120, deadline=None)
def test_splits_are_those_of_a_slow_reference_and_divide_no_content(split, world, shares, seed):
    videos, contents = world
    assume(split is not Split.TEMPORAL or any(v.timestamp is not None for v in videos))
    how = dict(test_share=shares[0], validation_share=shares[1], seed=seed)
    expected = slow_parts(videos, contents, split, *shares, seed)

    def divide():
        return assign_splits(videos, split, copies=find_copies(videos, contents), **how)

    if expected is None:
        with pytest.raises(UserError, match="must leave"):
            divide()
        return
    found = dict(zip((v.video_id for v in videos), divide().tolist(), strict=True))
    assert found == expected
    parts = collections.defaultdict(set)
    for v in videos:
        if contents[v.video_id]:
            parts[contents[v.video_id]].add(found[v.video_id])
        if split is Split.COLD_USER:
            parts["user", v.user_id].add(found[v.video_id])
    assert all(len(part) == 1 for part in parts.values())


@pytest.mark.parametrize("duplicates", list(Duplicates))
@given(world=worlds(), split=st.sampled_from(EVERY_SPLIT), seed=st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_views_lose_only_dropped_videos(duplicates, world, split, seed):
    videos, contents = world
    config = ViewConfig(split=split, seed=seed, min_count=1)
    ids = [v.video_id for v in videos]
    try:
        view = build_view(make_raw(videos), ids, config, contents, duplicates)
    except UserError:
        return
    again = build_view(make_raw(videos[::-1]), ids[::-1], config, contents, duplicates)
    assert again.fingerprint == view.fingerprint and again.report == view.report
    groups = collections.defaultdict(list)
    for v in videos:
        if contents[v.video_id]:
            groups[contents[v.video_id]].append(v)
    groups = [group for group in groups.values() if len(group) > 1]
    lost = set(ids) - set(view.video_ids)
    expected = set()
    if duplicates is Duplicates.DROP:
        for group in groups:
            times = [v.timestamp for v in group if v.timestamp is not None]
            oldest = [v for v in group if v.timestamp == (min(times) if times else None)]
            expected |= {v.video_id for v in group} - {min(v.video_id for v in oldest)}
    assert lost == expected
    assert view.report.get("duplicate_contents", 0) == len(groups)
    assert view.report.get("duplicate_videos", 0) == sum(map(len, groups))
    assert view.report.get("duplicate_videos_left_out", 0) == len(expected)
    if duplicates is Duplicates.KEEP:
        part = dict(zip(view.video_ids, view.split_V.tolist(), strict=True))
        apart = sum(len({part[v.video_id] for v in group}) > 1 for group in groups)
        assert view.report.get("duplicate_contents_in_several_parts_if_kept", 0) == apart
        assert view.fingerprint == build_view(make_raw(videos), ids, config).fingerprint


def test_duplicates_move_few_videos_and_keep_the_shares():
    """Checks that a pair among 240 videos moves at most one more video per boundary."""
    videos, users = random_world(9)
    before = build(videos, users)
    part = dict(zip(before.video_ids, before.split_V.tolist(), strict=True))
    for first, second in zip(before.video_ids[:60], before.video_ids[60:120], strict=True):
        contents = {first: "x", second: "x"}
        view = build_view(make_raw(videos, users), list(part), ViewConfig(min_count=1), contents)
        moved = [v for v, s in zip(view.video_ids, view.split_V, strict=True) if part[v] != s]
        assert len(moved) <= 1 + 2 * 2
        for split in (TRAIN, VALIDATION, TEST):
            assert abs(len(view.rows(split)) - len(before.rows(split))) <= 2


# ---- The column `group`


def grouped():
    """Returns videos of as many users; each third has no group, the others are in ten groups."""
    videos = [video(f"v{i:02}", f"u{i:02}", 10 * (i % 15) + 7 * (i // 15)) for i in range(60)]
    return [dataclasses.replace(v, group=f"g{i % 15}" * (i % 3 > 0)) for i, v in enumerate(videos)]


@pytest.mark.parametrize("duplicates", list(Duplicates))
@pytest.mark.parametrize("split", EVERY_SPLIT)
def test_a_group_is_in_one_part_of_every_split(split, duplicates):
    videos = grouped()
    ids, contents = [v.video_id for v in videos], {"v01": "x", "v59": "x", "v04": "y", "v08": "y"}
    used = set()
    for seed in range(5):
        config = ViewConfig(split=split, seed=seed, min_count=1)
        view = build_view(make_raw(videos), ids, config, contents, duplicates)
        part = dict(zip(view.video_ids, view.split_V.tolist(), strict=True))
        parts = collections.defaultdict(set)
        for v in videos:
            if v.group and v.video_id in part:
                parts[v.group].add(part[v.video_id])
        assert len(parts) == 10 and all(len(found) == 1 for found in parts.values())
        used |= {n for found in parts.values() for n in found}
        assert view.rules == CURRENT
        if duplicates is Duplicates.TOGETHER:  # v04 and v08 join their groups
            assert parts["g4"] == parts["g8"]
    assert used == {TRAIN, VALIDATION, TEST}


@pytest.mark.parametrize("split", EVERY_SPLIT)
def test_without_groups_a_view_is_that_of_earlier_rules(split):
    videos, users = random_world(3)
    view = build(videos, users, split=split)
    raw = dataclasses.replace(make_raw(videos, users), rules=2)
    config = ViewConfig(split=split, min_count=1)
    before = build_view(raw, [v.video_id for v in videos], config)
    assert view.rules == before.rules == 2 and view.fingerprint == before.fingerprint


@pytest.mark.parametrize("split", [Split.RANDOM, Split.COLD_USER])
def test_a_group_that_is_too_large_stays_in_train(split):
    videos = [video(f"v{i:02}", f"u{i:02}") for i in range(50)]
    videos = [dataclasses.replace(v, group="film" * (v.video_id < "v20")) for v in videos]
    for seed in range(20):
        view = build(videos, split=split, seed=seed)
        assert np.bincount(view.split_V).tolist() == [36, 4, 10] and not view.split_V[:20].any()
    videos = [dataclasses.replace(v, group="film") for v in videos]
    unit = "videos" if split is Split.RANDOM else "users"
    with pytest.raises(UserError, match=f"got 50 {unit}, bound by duplicates or the column group"):
        build(videos, split=split)


def test_in_a_temporal_split_a_group_is_as_old_as_its_oldest_video():
    videos = [video(f"v{t}", timestamp=t) for t in range(10)]
    videos = [dataclasses.replace(v, group="g" * (v.video_id in ("v9", "v0"))) for v in videos]
    view = build(videos, split=Split.TEMPORAL, test_share=0.1, validation_share=0.2)
    assert "".join(map(str, view.split_V)) == "0000001120"
