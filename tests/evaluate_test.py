"""Reference rows against slow rankings, slices and attention by hand, and the written files."""

import dataclasses
import json
import math
import types

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny_world

from uhman_jax import input_pipeline, train
from uhman_jax.dataset import truth as truth_lib
from uhman_jax.dataset.view import TEST, TRAIN
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


def test_no_video_is_an_error():
    with pytest.raises(ValueError, match="at least one video, got none"):
        ranking.rank_videos(lambda *unused: None, {}, {}, [])


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


@pytest.mark.parametrize("observable", [False, True])
def test_oracle_ranks_by_the_truth_of_the_right_video_and_hashtag(trained, observable):
    view, truth = trained.view, make_truth(trained.view)
    rows_V = view.rows(TEST)
    ranks_VP = references.oracle_ranks(truth, view, rows_V, observable=observable)
    table = truth.observable_VT if observable else truth.probability_VT
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


def test_a_truth_of_another_world_is_an_error(trained):
    truth = make_truth(trained.view)
    truth = dataclasses.replace(truth, video_ids=truth.video_ids[5:])
    with pytest.raises(UserError, match="every video must be one of the simulated ones"):
        references.oracle_ranks(truth, trained.view, np.arange(len(trained.view.video_ids)))


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
        for reference in ("popularity", "oracle", "observable_oracle"):
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
