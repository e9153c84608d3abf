"""A full ranking against sorting, slices by hand, and the written files."""

import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny_world
from fake_truth import make_truth

from uhman_jax import channel_statistics, input_pipeline, metrics, train
from uhman_jax.dataset.view import TEST
from uhman_jax.evaluate import evaluate, ranking, reference_rankings, slices
from uhman_jax.models.build import build_model
from uhman_jax.runtime.errors import UserError

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
    return types.SimpleNamespace(
        config=config,
        view=view,
        store=store,
        state=state,
        model=build_model(config.model, view),
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
        log=NOTHING,
        **kwargs,
    )


def test_training_beats_popularity_clearly(trained, tmp_path):
    values = run_evaluate(trained, tmp_path)
    # Half of the clips have "all" and their own word, the others their own word alone. Over five
    # seeds of data and training and two roundings, mean and sd: 0.45, 0.07 and 0.98, 0.015;
    # 0.46, 0.03 and 0.985, 0.012.
    assert values["popularity/P@1"] < 0.8 < min(values["test/P@1/seeds"])
    assert values["popularity/MAP"] < 0.7 < min(values["test/MAP/seeds"])


# Ranking


def scores(trained, rows_V):
    """As `tiny_world.scores`, of the last parameters."""
    state = trained.state
    return tiny_world.scores(
        trained.model, state.params, state.statistics, trained.view, trained.store, rows_V
    )


def rank(trained, rows_V, batch_size, top_k=0):
    view, store, state = trained.view, trained.store, trained.state
    batches = input_pipeline.eval_batches(view, store, rows=rows_V, batch_size=batch_size)
    ranker = ranking.make_ranker(trained.model, top_k)
    batches = input_pipeline.iterate(batches)
    return ranking.rank_videos(ranker, state.params, state.statistics, batches)


def test_ranking_covers_each_video_once_and_agrees_with_sorting(trained):
    view, rows_V = trained.view, trained.view.rows(TEST)
    result = rank(trained, rows_V, batch_size=7, top_k=3)
    np.testing.assert_array_equal(result.rows_V, rows_V)
    scores_SVT, apart_SV = scores(trained, rows_V)
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


def test_batch_size_changes_no_rank(trained):
    rows_V = trained.view.rows(TEST)
    ranks = [rank(trained, rows_V, size).ranks_SVP for size in (4, 64)]
    _, apart_SV = scores(trained, rows_V)
    np.testing.assert_array_equal(ranks[0][apart_SV], ranks[1][apart_SV])


# Blocks of 6, without and with padding; 45 slots are worth a guess among many hashtags alone.
@pytest.mark.parametrize("num_hashtags", [24, 23, 95])
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


@pytest.mark.parametrize("block", [3, 7, 20, 64])  # of 45 slots
def test_the_positives_scores_are_guessed_as_they_are(block):
    rng = np.random.default_rng(block)
    query_BD = rng.integers(-9, 10, (9, 4)).astype(np.float32)  # whole numbers: sums are exact
    query_BD[3] = np.nan
    hashtags_TD = rng.integers(-9, 10, (70, 4)).astype(np.float32)
    positives_BP = np.stack([rng.permutation(70)[:5] for _ in range(9)]).astype(np.int32)
    mask_BP = rng.random((9, 5)) < 0.7
    scores_BP = np.take_along_axis(query_BD @ hashtags_TD.T, positives_BP, axis=1)
    known_BP = mask_BP & ~np.isnan(scores_BP)
    guess_BP = ranking._guess(query_BD, jnp.asarray(hashtags_TD), positives_BP, mask_BP, block)
    np.testing.assert_array_equal(guess_BP, np.where(known_BP, scores_BP, -np.inf))


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_a_block_is_the_whole_or_a_share_with_little_padding(platform):
    for batch_size in (1, 64, 1024, 20_000):
        for num_rows in (1, 669, 4500, 100_000, 1_000_003):
            block = ranking.fitting_block(batch_size, num_rows, platform)
            num_blocks = -(-num_rows // block)
            assert num_blocks * block - num_rows < 128 * num_blocks
            assert batch_size * block <= max(640 * batch_size, 2**24 + 128 * batch_size)
    assert ranking.fitting_block(1024, 669, platform) == 669


def test_a_wrong_guess_of_the_positives_scores_changes_no_ranking(monkeypatch):
    """Two models at once, of which one is guessed wrong: blocks are gone through once more."""
    rng = np.random.default_rng(0)
    # Whole numbers, so that sums are exact.
    query_SBD = rng.integers(-99, 100, (2, 4, 8)).astype(np.float32)
    hashtags_STD = rng.integers(-99, 100, (2, 60, 8)).astype(np.float32)
    positives_BP = np.stack([rng.permutation(60)[:5] for _ in range(4)]).astype(np.int32)
    mask_BP = rng.random((4, 5)) < 0.7
    exact, wrong_for = ranking._guess, jnp.inf

    def guess(query_BD, *others):
        wrong = query_BD[0, 0] == wrong_for
        return exact(query_BD, *others) + jnp.where(wrong, 1000.0, 0.0)

    monkeypatch.setattr(ranking, "_guess", guess)

    def rank():
        def one(query_BD, hashtags_TD):
            return ranking.rank_queries(
                query_BD, hashtags_TD, positives_BP, mask_BP, top_k=3, block_size=4
            )

        return jax.jit(jax.vmap(one))(query_SBD, hashtags_STD)

    right = rank()
    wrong_for = query_SBD[1, 0, 0]
    jax.tree.map(np.testing.assert_array_equal, rank(), right)


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
