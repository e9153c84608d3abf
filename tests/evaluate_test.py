"""Reference rows against slow rankings, slices and attention by hand, and the written files."""

import dataclasses
import json
import math
import pathlib
import types
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny_world

from uhman_jax import input_pipeline, metrics, train
from uhman_jax.config import Distribution, ViewConfig
from uhman_jax.dataset import truth as truth_lib
from uhman_jax.dataset.raw import RawDataset, Video
from uhman_jax.dataset.view import TEST, TRAIN, VALIDATION, Ragged, View, build_view
from uhman_jax.errors import UserError
from uhman_jax.evaluate import attention, evaluate, ranking, references, results, slices

NOTHING = lambda line: None  # noqa: E731


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A population that has learned the tiny world."""
    folder = tmp_path_factory.mktemp("evaluate")
    root = tiny_world.write_dataset(folder / "data", num_videos=300)
    config = tiny_world.make_config(root, num_epochs=25, num_seeds=2)
    view, store = tiny_world.load(root, config)
    statistics = input_pipeline.channel_statistics(view, store, progress=False)
    state = train.train(config, view, store, *statistics, folder / "run", say=NOTHING)
    return types.SimpleNamespace(
        config=config,
        view=view,
        store=store,
        state=state,
        model=train.build_model(config.model, view),
    )


def make_truth(view, *, seed=0):
    """A truth in another order than the view's, with ties, and a hashtag that the view lacks.

    Of each clip, object 0 is in regions 16..31 at 0.0 s, object 1 in regions 0..3 at 0.2 s.
    """
    rng = np.random.default_rng(seed)
    video_ids = rng.permutation([*view.video_ids, "other"]).tolist()
    hashtags = rng.permutation([*view.hashtags, "unseen"]).tolist()
    shape = len(video_ids), len(hashtags)
    boxes = [(0, 0.0, 0.0, 0.25, 1.0, 0.5), (1, 0.2, 0.0, 0.0, 0.5, 0.125)]
    names = ("object", "time_s", "x0", "y0", "x1", "y1")
    objects = [
        {"video_id": video_id, "class_name": "thing"} | dict(zip(names, box, strict=True))
        for video_id in video_ids
        for box in boxes
    ]
    tagged = set(view.video_ids[::2])
    clips = [
        {
            "video_id": video_id,
            "object": 1 if video_id in tagged else -1,
            "class_names": ["thing", "thing"],
            "affinity": [0.0, 1.0],
        }
        for video_id in video_ids
    ]
    return truth_lib.Truth(
        hashtags=tuple(hashtags),
        video_ids=tuple(video_ids),
        probability_VT=rng.integers(0, 4, shape).astype(np.float32) / 4,
        observable_VT=rng.random(shape, np.float32),
        objects=pa.Table.from_pylist(objects, truth_lib.OBJECTS_SCHEMA),
        clips=pa.Table.from_pylist(clips, truth_lib.CLIPS_SCHEMA),
    )


def run_evaluate(trained, workdir, **kwargs):
    workdir.mkdir(exist_ok=True)
    return evaluate(
        trained.model,
        trained.state.best_params,
        trained.state.statistics,
        trained.config,
        trained.view,
        trained.store,
        workdir,
        say=NOTHING,
        **kwargs,
    )


def test_training_beats_popularity_clearly(trained, tmp_path):
    values = run_evaluate(trained, tmp_path)
    # Half of the clips have "all" and their own word, the others their own word alone.
    assert values["popularity/P@1"] < 0.62
    assert min(values["test/P@1/seeds"]) > values["popularity/P@1"] + 0.2
    assert min(values["test/MAP/seeds"]) > values["popularity/MAP"] + 0.2


# Ranking


def test_ranking_covers_each_video_once_and_agrees_with_sorting(trained):
    view, rows_V = trained.view, trained.view.rows(TEST)
    batches = input_pipeline.eval_batches(view, trained.store, rows=rows_V, batch_size=7)
    ranker = ranking.make_ranker(trained.model, top_k=3)
    result = ranking.rank_videos(
        ranker, trained.state.params, trained.state.statistics, input_pipeline.iterate(batches)
    )
    np.testing.assert_array_equal(result.rows_V, rows_V)
    whole = input_pipeline.eval_batches(view, trained.store, rows=rows_V, batch_size=len(rows_V))[0]
    for s in range(2):
        params = jax.tree.map(lambda leaf, s=s: leaf[s], trained.state.params)
        variables = {"params": params, "statistics": trained.state.statistics}
        scores_VT = np.asarray(trained.model.apply(variables, whole.video, whole.user))
        for v, row in enumerate(rows_V):
            order = np.argsort(-scores_VT[v], kind="stable")
            ids = view.positives.row(row)
            expected = [1 + int(np.flatnonzero(order == hashtag)[0]) for hashtag in ids]
            assert result.ranks_SVP[s, v, : len(ids)].tolist() == expected
            assert result.mask_VP[v].sum() == len(ids)
            assert result.top_SVT[s, v].tolist() == order[:3].tolist()
            np.testing.assert_allclose(
                result.top_scores_SVT[s, v], scores_VT[v, order[:3]], atol=1e-5
            )


def test_batch_size_changes_no_rank(trained):
    rows_V = trained.view.rows(TEST)
    ranks = []
    for size in (4, 64):
        batches = input_pipeline.eval_batches(
            trained.view, trained.store, rows=rows_V, batch_size=size
        )
        ranker = ranking.make_ranker(trained.model)
        state = trained.state
        ranks.append(
            ranking.rank_videos(
                ranker, state.params, state.statistics, input_pipeline.iterate(batches)
            ).ranks_SVP
        )
    np.testing.assert_array_equal(*ranks)


@pytest.mark.parametrize("num_hashtags", [24, 23])  # four blocks of 6 and one with padding
def test_blocks_change_no_ranking(num_hashtags):
    rng = np.random.default_rng(num_hashtags)
    # Whole numbers, so that sums are exact and ties are many; two queries are not numbers.
    query_BD = rng.integers(-2, 3, (9, 3)).astype(np.float32)
    query_BD[[4, 7], [0, 2]] = np.nan, np.inf
    hashtags_TD = rng.integers(-1, 2, (num_hashtags, 3)).astype(np.float32)
    positives_BP = np.stack([rng.permutation(num_hashtags)[:5] for _ in range(9)]).astype(np.int32)
    mask_BP = rng.random((9, 5)) < 0.7
    whole, parts = (
        jax.jit(ranking.rank_queries, static_argnames=("top_k", "block_size"))(
            query_BD, hashtags_TD, positives_BP, mask_BP, top_k=8, block_size=size
        )
        for size in (num_hashtags, 6)
    )
    number_B = np.isfinite(query_BD).all(axis=1)
    np.testing.assert_array_equal(whole[0], parts[0])
    for one, other in zip(whole[1:], parts[1:], strict=True):
        np.testing.assert_array_equal(np.asarray(one)[number_B], np.asarray(other)[number_B])
    scores_BT = np.asarray(jnp.matmul(query_BD, hashtags_TD.T))
    ranks_BP = metrics.ranks(jnp.asarray(scores_BT), positives_BP, mask_BP)
    np.testing.assert_array_equal(whole[0], ranks_BP)
    order_BT = np.argsort(-scores_BT, axis=1, kind="stable")[:, :8]
    np.testing.assert_array_equal(whole[1][number_B], order_BT[number_B])


def test_no_video_is_an_error():
    with pytest.raises(ValueError, match="at least one video, got none"):
        ranking.rank_videos(ranking.Ranker(lambda _: None, lambda *_: None), {}, {}, [])


# Reference rows


def test_popularity_ranks_by_training_uses_and_by_name_where_they_tie(trained):
    view = trained.view
    rows_V = view.rows(TEST)
    uses = dict.fromkeys(view.hashtags, 0)
    for row in view.rows(TRAIN):
        for hashtag in view.positives.row(row):
            uses[view.hashtags[hashtag]] += 1
    order = sorted(uses, key=lambda name: (-uses[name], name))
    positives_VP, mask_VP = references.positives_of(view, rows_V)
    ranks_VP = references.popularity_ranks(positives_VP)
    for v, row in enumerate(rows_V):
        expected = [1 + order.index(view.hashtags[hashtag]) for hashtag in view.positives.row(row)]
        assert ranks_VP[v][mask_VP[v]].tolist() == expected


def small_view(attributes_V, tags_V, splits_V, *, history=None, num_hashtags):
    """A view of a few videos; hashtags are called by their place in the alphabet.

    Args:
        attributes_V: gender, age and country of each video.
        tags_V: hashtag ids of each video.
        splits_V: TRAIN, VALIDATION or TEST.
        history: of each video.
        num_hashtags: T.
    """

    def ragged(rows):
        offsets = np.cumsum([0] + [len(row) for row in rows])
        return Ragged(np.array([t for row in rows for t in row], np.int32), offsets)

    history = history or [()] * len(tags_V)
    gender_V, age_V, country_V = np.array(attributes_V, np.int32).T
    train = [
        t for tags, split in zip(tags_V, splits_V, strict=True) if split == TRAIN for t in tags
    ]
    names = tuple("unknown" for _ in range(9))
    return View(
        hashtags=tuple("abcdefgh"[:num_hashtags]),
        counts_T=np.bincount(np.array(train, int), minlength=num_hashtags),
        kept_T=np.ones(num_hashtags),
        genders=names,
        ages=names,
        countries=names,
        video_ids=tuple(f"clip{v}" for v in range(len(tags_V))),
        user_ids=tuple(f"user{v}" for v in range(len(tags_V))),
        split_V=np.array(splits_V, np.int8),
        gender_V=gender_V,
        age_V=age_V,
        country_V=country_V,
        history=ragged(history),
        positives=ragged(tags_V),
        max_positives=max(len(tags) for tags in tags_V),
        max_history=max(1, *(len(row) for row in history)),
        report={},
        fingerprint="",
    )


def test_user_history_puts_own_hashtags_first_and_the_rest_by_popularity():
    everything = (0, 1, 2, 3, 4)
    view = small_view(
        [(0, 0, 0)] * 4,
        [everything, everything, everything, (1, 4)],
        [TEST] * 4,
        history=[(3, 1), (), (4, 0, 2), (1,)],
        num_hashtags=5,
    )
    rows_V = np.array([2, 0, 1, 3])
    positives_VP, mask_VP = references.positives_of(view, rows_V)
    ranks_VP = references.user_history_ranks(view, rows_V, positives_VP)
    assert ranks_VP[0].tolist() == [2, 4, 3, 5, 1]  # 4 0 2, then 1 3
    assert ranks_VP[1].tolist() == [3, 2, 4, 1, 5]  # 3 1, then 0 2 4
    assert ranks_VP[2].tolist() == [1, 2, 3, 4, 5]  # who has no history gets the popular ones
    assert ranks_VP[3][mask_VP[3]].tolist() == [1, 5]


def test_user_history_agrees_with_sorting_on_a_real_view(trained):
    view, rows_V = trained.view, trained.view.rows(TEST)
    positives_VP, mask_VP = references.positives_of(view, rows_V)
    ranks_VP = references.user_history_ranks(view, rows_V, positives_VP)
    for v, row in enumerate(rows_V):
        own = view.history.row(row).tolist()
        order = own + [t for t in range(len(view.hashtags)) if t not in own]
        expected = [1 + order.index(hashtag) for hashtag in view.positives.row(row)]
        assert ranks_VP[v][mask_VP[v]].tolist() == expected


def test_user_attributes_by_hand():
    """Train uses: a 4, b 3, c 3 of 10; gender 1 has a 2, b 3, c 0 and gender 2 a 2, b 0, c 3.

    Smoothed: p = 5/13, 4/13, 4/13. Score: p times (uses / p + 3) for each attribute. Gender 1:
    a 2 * 13/5 + 3 = 8.2, b 3 * 13/4 + 3 = 12.75, c 3. Age and country are unknown to everyone: a
    4 * 13/5 + 3 = 13.4, b and c 12.75. So a 5/13 * 8.2 * 13.4**2 = 566, b 638, c 150: b a c. For
    gender 2, b and c change places. A gender that train has not seen has a factor of 3 for all:
    a before b and c, which tie and so stand by popularity, here by name.
    """
    train = [((1, 0, 0), (0, 1))] * 2 + [((1, 0, 0), (1,))]
    train += [((2, 0, 0), (0, 2))] * 2 + [((2, 0, 0), (2,))]
    others = [((gender, 0, 0), (0, 1, 2)) for gender in (1, 2, 3, 2)]
    unseen = [((1, 0, 0), (2,))] * 50  # of other splits, which must not count
    attributes_V, tags_V = zip(*train, *others, *unseen, strict=True)
    splits_V = [TRAIN] * 6 + [TEST] * 4 + [VALIDATION, TEST] * 25
    view = small_view(attributes_V, tags_V, splits_V, num_hashtags=3)
    rows_V = np.arange(6, 10)
    positives_VP, _ = references.positives_of(view, rows_V)
    ranks_VP = references.user_attributes_ranks(view, rows_V, positives_VP)
    assert ranks_VP.tolist() == [[2, 1, 3], [2, 3, 1], [1, 2, 3], [2, 3, 1]]


def test_user_attributes_agree_with_exact_fractions():
    """Few users and many hashtags, some without a use in train, so that scores often tie."""
    rng = np.random.default_rng(0)
    num_videos, num_hashtags = 41, 8
    attributes_V = rng.integers(0, (2, 3, 5), (num_videos, 3))
    tags_V = [sorted(rng.permutation(6)[: 1 + v % 3].tolist()) for v in range(num_videos)]
    splits_V = [TRAIN] * 19 + [VALIDATION] * 5 + [TEST] * 17
    counts_T = np.bincount(np.concatenate(tags_V[:19]), minlength=num_hashtags)
    new_id = np.argsort(np.argsort(-counts_T, kind="stable"))  # a view has the most used first
    tags_V = [sorted(new_id[tags].tolist()) for tags in tags_V]
    view = small_view(attributes_V, tags_V, splits_V, num_hashtags=num_hashtags)
    rows_V = np.arange(24, num_videos)
    all_VP = np.tile(np.arange(num_hashtags), (len(rows_V), 1))
    ranks_VP = references.user_attributes_ranks(view, rows_V, all_VP)

    total, ties = sum(len(tags) for tags in tags_V[:19]), 0
    for v, row in enumerate(rows_V):
        scores = []
        for t in range(num_hashtags):
            prob = Fraction(sum(t in tags for tags in tags_V[:19]) + 1, total + num_hashtags)
            score = prob
            for a in range(3):
                own = [w for w in range(19) if attributes_V[w, a] == attributes_V[row, a]]
                uses = sum(t in tags_V[w] for w in own)
                of_value = sum(len(tags_V[w]) for w in own)
                score *= (uses + num_hashtags * prob) / (of_value + num_hashtags) / prob
            scores.append(score)
        order = sorted(range(num_hashtags), key=lambda t: (-scores[t], t))
        assert ranks_VP[v].tolist() == [1 + order.index(t) for t in range(num_hashtags)]
        ties += num_hashtags - len(set(scores))
    assert ties > len(rows_V)


def test_reference_rows_count_in_train_alone(trained):
    """Other labels of the test clips change no ranking."""
    view = trained.view
    rows_V = view.rows(TEST)
    values = view.positives.values.copy()
    is_test = np.repeat(view.split_V == TEST, np.diff(view.positives.offsets))
    values[is_test] = len(view.hashtags) - 1 - values[is_test]
    other = dataclasses.replace(view, positives=view.positives._replace(values=values))
    all_VP = np.tile(np.arange(len(view.hashtags)), (len(rows_V), 1))
    for ranks in (references.user_history_ranks, references.user_attributes_ranks):
        np.testing.assert_array_equal(ranks(view, rows_V, all_VP), ranks(other, rows_V, all_VP))


def with_sides(truth, seed=1):
    """The truth with tables of the clip's and the user's part, with zeros and ties."""
    rng = np.random.default_rng(seed)
    sides = {
        name: rng.integers(0, 5, truth.probability_VT.shape).astype(np.float32) / 8
        for name in ("content_VT", "user_VT")
    }
    return dataclasses.replace(truth, **sides)


@pytest.mark.parametrize(
    "name", ["content_oracle", "user_oracle", "additive_oracle", "observable_oracle", "oracle"]
)
def test_oracles_rank_by_the_truth_of_the_right_video_and_hashtag(trained, name):
    """And by the share of a hashtag's uses that the view keeps."""
    truth = with_sides(make_truth(trained.view))
    kept_T = np.random.default_rng(2).integers(1, 9, len(trained.view.hashtags)) / 8
    view = dataclasses.replace(trained.view, kept_T=kept_T)
    kept = dict(zip(view.hashtags, kept_T, strict=True))
    kept_H = np.array([kept.get(name, 1.0) for name in truth.hashtags])[None]
    rows_V = view.rows(TEST)
    scores_VT = dict(references.oracle_scores(truth, view, rows_V))[name]
    ranks_VP = ranking.rank_scores(scores_VT, *references.positives_of(view, rows_V))

    def log(table):
        return np.log(np.maximum(table, 1e-9))

    table = {
        "content_oracle": truth.content_VT * kept_H,
        "user_oracle": truth.user_VT * kept_H,
        "additive_oracle": log(truth.content_VT * kept_H)
        + log(truth.user_VT * kept_H)
        - log(truth.content_VT.mean(axis=0) * kept_H),
        "observable_oracle": truth.observable_VT * kept_H,
        "oracle": truth.probability_VT * kept_H,
    }[name]
    for v, row in enumerate(rows_V):
        scores = table[truth.video_ids.index(view.video_ids[row])]
        by_name = dict(zip(truth.hashtags, scores, strict=True))
        positives = [view.hashtags[hashtag] for hashtag in view.positives.row(row)]
        for slot, name in enumerate(positives):
            ahead = sum(
                by_name[other] >= by_name[name]
                if other not in positives
                else (-by_name[other], positives.index(other)) < (-by_name[name], slot)
                for other in view.hashtags
                if other != name
            )
            assert ranks_VP[v, slot] == 1 + ahead


def test_no_ranking_beats_the_oracle_of_a_balanced_view():
    """Hashtags with known chances of which some are frequent, against the chances left as known."""
    rng = np.random.default_rng(0)
    num_videos, num_hashtags = 4000, 40
    chance_VT = rng.beta(0.3, 3.0, (num_videos, num_hashtags))
    chance_VT[:, :8] = rng.beta(1.0, 2.0, (num_videos, 8))
    names = tuple(f"t{t:02}" for t in range(num_hashtags))
    uses_VT = rng.random(chance_VT.shape) < chance_VT
    videos = [
        Video(f"v{v}", "", "u", tuple(np.array(names)[uses_VT[v]]), None)
        for v in np.flatnonzero(uses_VT.any(axis=1))
    ]
    raw = RawDataset(pathlib.Path(), tuple(videos), {}, (), "")
    config = ViewConfig(distribution=Distribution.BALANCED, balanced_top=8, min_count=1)
    view = build_view(raw, [video.video_id for video in videos], config)
    rows_V = np.arange(len(view.video_ids))
    video_ids = tuple(f"v{v}" for v in range(num_videos))
    truth = truth_lib.Truth(names, video_ids, chance_VT, chance_VT, None, None)
    positives = references.positives_of(view, rows_V)

    def precision(view):
        scores_VT = dict(references.oracle_scores(truth, view, rows_V))["oracle"]
        return (ranking.rank_scores(scores_VT, *positives) <= 3).sum(axis=1) / 3

    plain = dataclasses.replace(view, kept_T=np.ones(num_hashtags))
    gain_V = precision(view) - precision(plain)
    assert gain_V.mean() > 5 * gain_V.std() / np.sqrt(len(gain_V)) > 0


def test_an_additive_oracle_is_perfect_where_clip_and_user_are_independent(trained):
    """Given the hashtag, by Bayes' rule: p(t | clip, user) ~ p(t | clip) p(t | user) / p(t)."""
    view, truth = trained.view, with_sides(make_truth(trained.view))
    product_VT = truth.content_VT * truth.user_VT / truth.content_VT.mean(axis=0)[None]
    truth = dataclasses.replace(truth, probability_VT=product_VT)
    rows_V = view.rows(TEST)
    scores = dict(references.oracle_scores(truth, view, rows_V))
    positive_VT = scores["oracle"] > 0
    for v in range(len(rows_V)):
        found = scores["additive_oracle"][v][positive_VT[v]]
        np.testing.assert_allclose(found, np.log(scores["oracle"][v][positive_VT[v]]), rtol=1e-5)
        others = scores["additive_oracle"][v][~positive_VT[v]]
        assert found.min(initial=np.inf) > others.max(initial=-np.inf)


def test_rows_that_a_truth_cannot_give_are_absent(trained):
    view, rows_V = trained.view, trained.view.rows(TEST)
    counted = ["popularity", "user_history", "user_attributes"]
    plain, sided = make_truth(view), with_sides(make_truth(view))
    for truth, oracles in (
        (None, []),
        (
            dataclasses.replace(sided, user_VT=None),
            ["observable_oracle", "oracle"],
        ),
        (plain, ["observable_oracle", "oracle"]),
        (
            sided,
            "content_oracle user_oracle additive_oracle observable_oracle oracle".split(),
        ),
    ):
        values = references.reference_metrics(view, rows_V, truth)
        names = [key.removesuffix("/MAP") for key in values if key.endswith("/MAP")]
        assert names == counted + oracles
        assert all(0 <= values[f"{name}/P@1"] <= 1 for name in names)


def test_a_truth_of_another_world_is_an_error(trained):
    truth = make_truth(trained.view)
    truth = dataclasses.replace(truth, video_ids=truth.video_ids[5:])
    with pytest.raises(UserError, match="every video must be one of the simulated ones"):
        rows_V = np.arange(len(trained.view.video_ids))
        dict(references.oracle_scores(truth, trained.view, rows_V))


# Slices


def test_frequency_slices_count_only_their_own_hashtags(trained):
    view = trained.view
    groups = slices.frequency_groups(view)
    assert sorted(np.concatenate([ids for _, ids in groups]).tolist()) == list(
        range(len(view.hashtags))
    )
    assert [name.split(":")[0] for name, _ in groups] == ["rare", "medium", "frequent"]
    rows_V = view.rows(TEST)
    positives_VP, mask_VP = references.positives_of(view, rows_V)
    ranks_VP = references.popularity_ranks(positives_VP)
    result = ranking.Ranking(rows_V, ranks_VP[None], mask_VP, None, None)
    entries = [entry for entry in slices.slice_metrics(view, result) if entry["by"] == "frequency"]
    for entry, (name, ids) in zip(entries, groups, strict=True):
        recalls, precisions = [], []
        for row in rows_V:
            own = [hashtag for hashtag in view.positives.row(row) if hashtag in ids]
            if own:
                found = sum(hashtag + 1 <= 10 for hashtag in own)
                recalls.append(found / len(own))
                precisions.append(found / 10)
        assert entry["name"] == name and entry["num_videos"] == len(recalls)
        assert entry["R@10"] == pytest.approx(np.mean(recalls))
        assert entry["P@10"] == pytest.approx(np.mean(precisions))


def test_user_slices_have_the_right_members(trained):
    view, rows_V = trained.view, trained.view.rows(TEST)
    groups = dict(slices.user_groups(view, rows_V))
    for v, row in enumerate(rows_V):
        missing = 0 in (view.gender_V[row], view.age_V[row], view.country_V[row])
        history = len(view.history.row(row)) > 0
        assert groups["no history"][v] == (not history)
        assert groups["missing attributes"][v] == missing
        assert groups["history and all attributes"][v] == (history and not missing)
    assert all(member_V.any() for member_V in groups.values())


# Attention


def test_attention_facts_average_frames_then_clips(trained):
    view, store = trained.view, trained.store
    rows_V = view.rows(TEST)
    records = store.rows([view.video_ids[row] for row in rows_V])
    rows_V = rows_V[store.num_frames_V[records] == 2]
    regions_FM = np.zeros((2, 64))
    regions_FM[0, 14:18], regions_FM[1, 0] = 0.25, 1.0

    def observer(params, statistics, batch):
        size = len(batch.row_B)
        regions_SBFM = np.zeros((1, size, store.max_frames, 64))
        regions_SBFM[:, :, :2] = regions_FM
        return regions_SBFM, np.tile(np.array([0.75, 0.25, 0.0]), (1, size, 1))

    batches = input_pipeline.eval_batches(view, store, rows=rows_V, batch_size=4)
    facts = attention.attention_facts(
        observer, None, None, input_pipeline.iterate(batches), view, store, make_truth(view)
    )
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
        # All tie, up to the last bit of a float32: what chance gives.
        ([0.5, 0.5 + 6e-8], [[1 / 3, 1 / 3, 1 / 3 + 3e-8]] * 2, {"region": 2 / 6, "frame": 0.5}),
    ],
)
def test_top_facts_by_hand(frames_F, regions_FM, expected):
    mask_FM = np.array([[False, False, False], [False, True, True]])  # frame 1 shows the object
    frames_SF = np.float32([frames_F, [0.0, 1.0]])
    regions_SFM = np.float32([regions_FM, [[0.2, 0.4, 0.4], [1.0, 0.0, 0.0]]])
    facts = attention._top_facts("tagged", frames_SF, regions_SFM, mask_FM)
    # The second seed looks at the right frame and there beside the object.
    assert facts["top_region_tagged"].tolist() == pytest.approx([expected["region"], 0.0])
    assert facts["top_frame_tagged"].tolist() == pytest.approx([expected["frame"], 1.0])
    assert facts["top_region_tagged_chance"].tolist() == pytest.approx([2 / 6] * 2)
    assert facts["top_frame_tagged_chance"].tolist() == pytest.approx([1 / 2] * 2)


def test_top_facts_of_an_object_that_no_frame_shows():
    weights_SFM = np.full((1, 2, 3), 1 / 3)
    nowhere_FM = np.zeros((2, 3), bool)
    assert attention._top_facts("x", np.full((1, 2), 0.5), weights_SFM, nowhere_FM) == {}


# Files


def test_files_hold_what_the_report_and_people_read(trained, tmp_path):
    view = trained.view
    truth = make_truth(view)
    values = run_evaluate(trained, tmp_path, truth=truth, extra={"step": 7})
    stored = json.loads((tmp_path / "metrics.json").read_text())
    assert stored.keys() == values.keys() and stored["step"] == 7
    assert stored["simulated"] is True and stored["num_seeds"] == 2
    assert stored["extractor"] == "made by a test"
    assert stored["data"]["test_videos"] == len(view.rows(TEST))
    for name in ("P@1", "R@50", "F1@10", "NDCG@10", "MRR", "MAP", "kP/R@10"):
        assert stored[f"test/{name}"] == pytest.approx(np.mean(stored[f"test/{name}/seeds"]))
        for reference in ("popularity", "user_history", "user_attributes", "oracle"):
            assert 0 <= stored[f"{reference}/{name}"]
    low, high = stored["popularity/P@5"], stored["oracle/P@5"]
    if high > low:
        expected = (stored["test/P@5"] - low) / (high - low)
        assert stored["gap_closed/P@5"] == pytest.approx(expected)
    assert 0 < stored["attention/object_mass"] <= 1

    rows = pq.read_table(tmp_path / "predictions.parquet").to_pylist()
    assert len(rows) == 2 * len(view.rows(TEST))
    assert {row["seed"] for row in rows} == {0, 1}
    for row in rows:
        position = view.video_ids.index(row["video_id"])
        true = [view.hashtags[hashtag] for hashtag in view.positives.row(position)]
        assert row["true_hashtags"] == true and row["user_id"] == view.user_ids[position]
        assert sorted(row["hashtags"]) == sorted(view.hashtags)  # fewer than top_k there are
        assert row["scores"] == sorted(row["scores"], reverse=True)
    seed_1 = [row for row in rows if row["seed"] == 1]
    hits = [row["hashtags"][0] in row["true_hashtags"] for row in seed_1]
    assert stored["test/P@1/seeds"][1] == pytest.approx(np.mean(hits))

    with np.load(tmp_path / "examples.npz", allow_pickle=False) as arrays:
        assert len(arrays["video_ids"]) == 12
        assert set(arrays["video_ids"]) <= {row["video_id"] for row in rows}
        real_EF = arrays["frame_mask_EF"]
        np.testing.assert_allclose(arrays["regions_EFM"].sum(-1)[real_EF], 1, atol=1e-5)
        np.testing.assert_allclose(arrays["frames_EF"].sum(-1), 1, atol=1e-5)
        assert (arrays["frames_EF"][~real_EF] == 0).all()
        assert arrays["times_EF"].shape == real_EF.shape
    assert not list(tmp_path.glob("*.tmp")) and not list(tmp_path.glob(".*"))


def test_an_empty_test_split_is_an_error(trained, tmp_path):
    view = types.SimpleNamespace(rows=lambda split: np.zeros(0, np.int64))
    with pytest.raises(UserError, match="at least one test video, got none"):
        run_evaluate(types.SimpleNamespace(**{**vars(trained), "view": view}), tmp_path)


def test_interval_is_students():
    # Three values 1, 2, 3: t(0.975, 2) = 4.3027, deviation 1, over sqrt(3).
    assert results.interval([1.0, 2.0, 3.0]) == pytest.approx(4.30265 / math.sqrt(3), rel=1e-5)
    assert results.interval([1.0]) is None


def test_json_is_strict(tmp_path):
    results.write_json(tmp_path / "x.json", {"a": [float("nan"), np.float32(0.5)], "b": math.inf})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": [None, 0.5], "b": None}
