"""A full ranking against sorting, slices by hand, and the written files."""

import json
import types

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny_world
from fake_truth import make_truth

from uhman_jax import channel_statistics, clip_means, input_pipeline, train
from uhman_jax.dataset.view import TEST, VALIDATION
from uhman_jax.evaluate import (
    calibration,
    confidence,
    evaluate,
    ranking,
    reference_rankings,
    slices,
)
from uhman_jax.runtime.errors import UserError
from uhman_jax.scores import COMPARED, REFERENCES, interval

NOTHING = lambda line: None  # noqa: E731


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A population that has learned the tiny world."""
    folder = tmp_path_factory.mktemp("evaluate")
    root = tiny_world.write_dataset(folder / "data", num_videos=300)
    config = tiny_world.make_config(root, num_epochs=25, num_seeds=2)
    view, store = tiny_world.load(root, config)
    statistics = channel_statistics.measure(view, store)
    state = train.train(config, view, store, statistics, folder / "run", log=NOTHING)
    model, fresh = tiny_world.fresh(config, (view, store, statistics))
    return types.SimpleNamespace(
        config=config, view=view, store=store, state=state, model=model, fresh=fresh
    )


def run_evaluate(trained, workdir, **kwargs):
    state = trained.state
    arguments = trained.model, state.best_params, state.statistics, trained.config
    kwargs = {"log": NOTHING, **kwargs}
    return evaluate(*arguments, trained.view, trained.store, workdir, **kwargs)


@pytest.fixture(scope="module")
def evaluated(trained, tmp_path_factory):
    """Values and folder of an evaluation, and its log."""
    folder, lines = tmp_path_factory.mktemp("evaluated"), []
    known = {"truth": make_truth(trained.view), "extra": {"step": 7}}
    known["means"] = clip_means.measure(trained.view, trained.store)
    return run_evaluate(trained, folder, log=lines.append, **known), folder, lines


def test_training_beats_popularity_clearly(evaluated):
    values, *_ = evaluated
    # Half of the clips have "all" and their own word, the others only their own word. Over five
    # seeds of data and training and two roundings, mean and sd: 0.45, 0.07 and 0.98, 0.015;
    # 0.46, 0.03 and 0.985, 0.012.
    assert values["popularity/P@1"] < 0.8 < min(values["test/P@1/seeds"])
    assert values["popularity/MAP"] < 0.7 < min(values["test/MAP/seeds"])


# The references


def ndcg(ranks):
    """NDCG@10 of a clip with at most ten hashtags, given their ranks."""
    gains = [1 / np.log2(1 + rank) for rank in ranks if rank <= 10]
    return sum(gains) / sum(1 / np.log2(1 + rank) for rank in range(1, 1 + len(ranks)))


def ndcg_of_file(view, folder, seed):
    """NDCG@10 of every test clip, by the stored hashtags of a seed; None: of the ensemble."""
    rows = pq.read_table(folder / "predictions.parquet").to_pylist()
    rows = [row for row in rows if row["seed"] == seed]
    assert [row["video_id"] for row in rows] == [view.video_ids[row] for row in view.rows(TEST)]
    true = [[row["hashtags"].index(name) for name in row["true_hashtags"]] for row in rows]
    return [ndcg(np.add(places, 1)) for places in true]


def assert_paired(values, view, own):
    """The differences are of the clips' values `own` of NDCG@10, with an interval over clips."""
    popular = [ndcg(view.positives.row(row) + 1) for row in view.rows(TEST)]
    gap_V = np.subtract(own, popular)
    assert values["test-popularity/NDCG@10"] == pytest.approx(np.mean(gap_V), rel=1e-5)
    # Every user of this world has one clip, so the interval is Student's.
    width = values["test-popularity/NDCG@10/interval_clips"]
    assert width == pytest.approx(interval(gap_V.tolist()), rel=0.1)


def test_differences_of_the_ensemble_are_paired_over_clips(trained, tmp_path):
    """Of each clip, the ensemble's value minus the reference's.

    The second seed is not trained, so that the ensemble is not like the mean over seeds.
    """
    view, folder = trained.view, tmp_path
    mixed = jax.tree.map(
        lambda own, new: np.stack([own[0], new[1]]), trained.state.best_params, trained.fresh.params
    )
    state = trained.state._replace(best_params=mixed)
    values = run_evaluate(types.SimpleNamespace(**{**vars(trained), "state": state}), folder)
    assert abs(values["test_ensemble/NDCG@10"] - values["test/NDCG@10"]) > 0.02
    own = ndcg_of_file(view, folder, None)
    assert_paired(values, view, own)
    assert values["test_ensemble/NDCG@10"] == pytest.approx(np.mean(own), rel=1e-5)
    width = values["test_ensemble/NDCG@10/interval_clips"]
    assert width == pytest.approx(interval(own), rel=0.1)
    mean = np.mean([ndcg_of_file(view, folder, seed) for seed in (0, 1)], axis=0)
    assert values["test/NDCG@10"] == pytest.approx(np.mean(mean), rel=1e-5)
    width = values["test/NDCG@10/interval_clips"]
    assert width == pytest.approx(interval(mean.tolist()), rel=0.1)


def test_there_is_a_difference_to_every_reference(evaluated):
    values, *_ = evaluated
    for name in REFERENCES:
        for metric in COMPARED:
            gap = values[f"test_ensemble/{metric}"] - values[f"{name}/{metric}"]
            assert values[f"test-{name}/{metric}"] == pytest.approx(gap, abs=1e-6)
            assert f"{name}/{metric}/seeds" not in values
    assert values["test/F1@10/interval_clips"] >= 0
    assert not any(key.startswith("test-oracle") for key in values)


def test_the_confidence_of_the_ensemble_is_fitted_to_its_scores(trained, evaluated):
    view, state = trained.view, trained.state
    world = state.statistics, view, trained.store
    (values, folder, _), rows_V = evaluated, view.rows(VALIDATION)
    scores_SVT, _ = tiny_world.scores(trained.model, state.best_params, *world, rows_V)
    scores_VT = scores_SVT.mean(axis=0)
    order_VT = np.argsort(-scores_VT, axis=1)
    hits_VT = [
        np.isin(order_T, view.positives.row(row))
        for order_T, row in zip(order_VT, rows_V, strict=True)
    ]
    best_VT = np.take_along_axis(scores_VT, order_VT, axis=1)
    expected = calibration.fit(best_VT, np.array(hits_VT)).confidence(best_VT)
    found, first = confidence.load(folder, None), confidence.load(folder, 0)
    np.testing.assert_allclose(found.confidence(best_VT), expected, atol=0.01)
    assert found != first and 0 <= values["calibration_ensemble/error@10"] < 1


def test_one_seed_is_no_ensemble(trained, tmp_path):
    first = jax.tree.map(lambda leaf: leaf[:1], trained.state.best_params)
    state = trained.state._replace(best_params=first)
    values = run_evaluate(types.SimpleNamespace(**{**vars(trained), "state": state}), tmp_path)
    assert not [key for key in values if "ensemble" in key]
    assert "ensemble" not in json.loads((tmp_path / "calibration.json").read_text())
    rows = pq.read_table(tmp_path / "predictions.parquet").to_pylist()
    assert {row["seed"] for row in rows} == {0}
    assert_paired(values, trained.view, ndcg_of_file(trained.view, tmp_path, 0))


def test_ridge_sees_the_clip_and_its_settings_are_known(evaluated):
    """Half of the words are decided by the clip, and ridge finds them; popularity can not."""
    values, _, lines = evaluated
    assert values["ridge/MAP"] > values["popularity/MAP"] + 0.2
    assert values["knn/MAP"] > values["popularity/MAP"] + 0.05
    assert values["references"].keys() == {"validation_videos", "knn", "ridge"}
    (line,) = [line for line in lines if line.startswith("References: ")]
    assert f"ridge with penalty {values['references']['ridge']['penalty']:g} (chosen on" in line


def test_without_mean_features_the_other_references_remain(trained, tmp_path):
    values = run_evaluate(trained, tmp_path)
    assert "popularity/P@10" in values and "test-user_history/P@10" in values
    assert "ridge/P@10" not in values and "references" not in values


# Ranking


@pytest.fixture(scope="module")
def scored(trained):
    """`tiny_world.scores` of the test videos by the last parameters."""
    view, state = trained.view, trained.state
    variables = trained.model, state.params, state.statistics
    return tiny_world.scores(*variables, view, trained.store, view.rows(TEST))


def rank(trained, batch_size, top_k=0):
    view, state = trained.view, trained.state
    how = {"rows": view.rows(TEST), "batch_size": batch_size}
    batches = input_pipeline.iterate(input_pipeline.eval_batches(view, trained.store, **how))
    ranker = ranking.make_ranker(trained.model, top_k)
    return ranking.rank_videos(ranker, state.params, state.statistics, batches)


def assert_sorted(result, scores_SVT, view):
    """The ranking of the test videos has the three best of these scores, and the right ranks."""
    rows_V = view.rows(TEST)
    np.testing.assert_array_equal(result.rows_V, rows_V)
    assert len(result.ranks_SVP) == len(scores_SVT)
    apart_SV = tiny_world.are_apart(scores_SVT)
    for s, scores_VT in enumerate(scores_SVT):
        for v, row in enumerate(rows_V):
            order = np.argsort(-scores_VT[v], kind="stable")
            ids = view.positives.row(row)
            assert result.mask_VP[v].sum() == len(ids)
            np.testing.assert_allclose(
                result.top_scores_SVT[s, v], scores_VT[v, order[:3]], atol=1e-5
            )
            if apart_SV[s, v]:
                expected = [1 + int(np.flatnonzero(order == hashtag)[0]) for hashtag in ids]
                assert result.ranks_SVP[s, v, : len(ids)].tolist() == expected
                assert result.top_SVT[s, v].tolist() == order[:3].tolist()


def test_ranking_covers_each_video_once_and_agrees_with_sorting(trained, scored):
    result = rank(trained, batch_size=7, top_k=3)
    assert_sorted(result, scored[0], trained.view)
    assert_sorted(result.ensemble, scored[0].mean(axis=0, keepdims=True), trained.view)
    assert result.ensemble.ensemble is None


def test_batch_size_changes_no_rank(trained, scored):
    small, large = (rank(trained, size).ranks_SVP for size in (4, 64))
    _, apart_SV = scored
    np.testing.assert_array_equal(small[apart_SV], large[apart_SV])


def test_no_video_is_an_error():
    with pytest.raises(ValueError, match="at least one video, got none"):
        ranking.rank_videos(ranking.Ranker(lambda _: None, None, None), {}, {}, [])


# Slices


def test_frequency_slices_count_only_their_own_hashtags(trained):
    view = trained.view
    groups = slices.frequency_groups(view)
    assert sorted(np.concatenate([ids for _, ids in groups]).tolist()) == list(
        range(len(view.hashtags))
    )
    assert [name.split(":")[0] for name, _ in groups] == ["rare", "medium", "frequent"]
    assert np.all(np.diff([view.counts_T[ids].mean() for _, ids in groups]) > 0)
    rows_V = view.rows(TEST)
    positives_VP, mask_VP = reference_rankings.positives_of(view, rows_V)
    ranks_VP = reference_rankings.popularity_ranks(positives_VP)
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


# Files


def test_the_files_for_the_report_and_for_people(trained, evaluated):
    view, (values, folder, _) = trained.view, evaluated
    stored = json.loads((folder / "metrics.json").read_text())
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
        expected = (stored["test_ensemble/P@5"] - low) / (high - low)
        assert stored["gap_closed_ensemble/P@5"] == pytest.approx(expected)
    assert 0 < stored["attention/object_mass"] <= 1

    rows = pq.read_table(folder / "predictions.parquet").to_pylist()
    assert len(rows) == 3 * len(view.rows(TEST))
    assert {row["seed"] for row in rows} == {0, 1, None}
    for row in rows:
        position = view.video_ids.index(row["video_id"])
        true = [view.hashtags[hashtag] for hashtag in view.positives.row(position)]
        assert row["true_hashtags"] == true and row["user_id"] == view.user_ids[position]
        assert sorted(row["hashtags"]) == sorted(view.hashtags)  # fewer than top_k there are
        assert row["scores"] == sorted(row["scores"], reverse=True)
    seed_1 = [row for row in rows if row["seed"] == 1]
    hits = [row["hashtags"][0] in row["true_hashtags"] for row in seed_1]
    assert stored["test/P@1/seeds"][1] == pytest.approx(np.mean(hits))

    with np.load(folder / "examples.npz", allow_pickle=False) as arrays:
        assert len(arrays["video_ids"]) == 12
        assert set(arrays["video_ids"]) <= {row["video_id"] for row in rows}
        real_EF = arrays["frame_mask_EF"]
        np.testing.assert_allclose(arrays["regions_EFM"].sum(-1)[real_EF], 1, atol=1e-5)
        np.testing.assert_allclose(arrays["frames_EF"].sum(-1), 1, atol=1e-5)
        assert (arrays["frames_EF"][~real_EF] == 0).all()
        assert arrays["times_EF"].shape == real_EF.shape
    assert not list(folder.glob("*.tmp")) and not list(folder.glob(".*"))


def test_an_empty_test_split_is_an_error(trained, tmp_path):
    view = types.SimpleNamespace(rows=lambda split: np.zeros(0, np.int64))
    with pytest.raises(UserError, match="at least one test video, got none"):
        run_evaluate(types.SimpleNamespace(**{**vars(trained), "view": view}), tmp_path)
