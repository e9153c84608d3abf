"""Runs with a direct path, and the choice of the weights of both paths."""

import json

import jax
import numpy as np
import pytest
import tiny_world

from tools.export.folder import export_run
from uhman_jax import direct_path, run, train
from uhman_jax.config import Estimator
from uhman_jax.dataset.view import TEST, VALIDATION
from uhman_jax.evaluate import path_weights
from uhman_jax.input_pipeline import eval_batches, iterate
from uhman_jax.models.two_paths import PATHS
from uhman_jax.models.uhman import UHMAN
from uhman_jax.recommend import Recommender
from uhman_jax.trained_run import open_run


def drawn(first, second, rng):
    """Both paths' towers for 2,000 clips, and a hashtag of each from a softmax of a weighted sum.

    The weights are `first` and `second`.
    """
    towers = [
        (
            rng.normal(size=(2000, 6)).astype(np.float32),
            rng.normal(size=(40, 6)).astype(np.float32),
        )
        for _ in PATHS
    ]
    logits_VT = sum(
        weight * query @ hashtags.T
        for weight, (query, hashtags) in zip((first, second), towers, strict=True)
    )
    ids_V1 = np.argmax(logits_VT + rng.gumbel(size=logits_VT.shape), axis=1)[:, None]
    return towers, ids_V1, np.ones_like(ids_V1, bool)


@pytest.mark.parametrize("weights", [(1.5, 0.5), (0.4, 1.0), (0.0, 1.0)])
def test_weights_are_those_of_the_generating_scores(weights):
    found = path_weights._best_weights(*drawn(*weights, np.random.default_rng(0)))
    np.testing.assert_allclose(found, weights, atol=0.1)


@pytest.mark.parametrize("seed", range(3))
def test_a_direct_path_that_does_not_help_has_no_weight(seed):
    towers, ids_V1, mask_V1 = drawn(1.5, 0, np.random.default_rng(seed))
    noise = path_weights._best_weights(towers, ids_V1, mask_V1)
    np.testing.assert_allclose(noise, [1.5, 0], atol=0.1)
    assert noise[1] == 0
    towers[1] = -towers[0][0], towers[0][1]
    assert path_weights._best_weights(towers, ids_V1, mask_V1)[1] == 0
    # Two useless paths still give a ranking, that of the network.
    assert path_weights._best_weights(towers[1:] * 2, ids_V1, mask_V1).tolist() == [1, 0]
    one = [(query_VX[:1], hashtags_TX) for query_VX, hashtags_TX in towers]
    weight_P = path_weights._best_weights(one, ids_V1[:1], mask_V1[:1])
    assert np.isfinite(weight_P).all() and weight_P[0] > 0 and weight_P[1] == 0


def test_blocks_do_not_change_the_weights(monkeypatch):
    towers, ids_V1, mask_V1 = drawn(1.0, 1.0, np.random.default_rng(1))
    towers = [(query_VX[:50], hashtags_TX) for query_VX, hashtags_TX in towers]
    whole = path_weights._best_weights(towers, ids_V1[:50], mask_V1[:50])
    monkeypatch.setattr(path_weights, "_SCORES", 280)  # 7 clips
    in_blocks = path_weights._best_weights(towers, ids_V1[:50], mask_V1[:50])
    np.testing.assert_allclose(in_blocks, whole, atol=1e-3)


def test_the_recipe_follows_the_run_where_it_must():
    config = tiny_world.make_config("/nowhere", num_seeds=3, batch_size=24)
    config.loss.estimator = Estimator.SAMPLED
    found = direct_path.direct_config(config)
    assert found.train.batch_size == 72  # a multiple of 24, which the devices divide
    assert (found.train.num_seeds, found.loss.estimator) == (3, Estimator.SAMPLED)
    assert not found.model.direct_path and not config.model.bias


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run with both paths, and a repetition that was stopped in the direct path."""
    folder = tmp_path_factory.mktemp("direct")
    config = tiny_world.make_config(tiny_world.write_dataset(folder / "data"), num_seeds=2)
    config.train.num_epochs, config.model.direct_path = 4, True
    assert run.run(config, folder / "whole", log=lambda line: None, report=False)
    return config, folder


def test_a_run_shows_both_paths_and_their_weights(finished):
    _, folder = finished
    metrics = json.loads((folder / "whole" / "metrics.json").read_text("utf-8"))
    assert set(metrics["path_weights"]) == set(PATHS) and max(metrics["path_weights"].values()) > 0
    for name in PATHS:
        gap = metrics["test_ensemble/P@10"] - metrics[f"{name}/P@10"]
        assert metrics[f"test-{name}/P@10"] == pytest.approx(gap, abs=1e-6)
    assert (folder / "whole" / "direct" / "checkpoints").is_dir()


def test_a_path_alone_ranks_as_its_own_model(finished):
    config, folder = finished
    trained = open_run(folder / "whole")
    state = train.restore(
        direct_path.direct_config(config), trained.view, folder / "whole" / "direct"
    )
    both, store = trained.models(), trained.features()
    (batch,) = iterate(
        eval_batches(trained.view, store, rows=trained.view.rows(TEST), batch_size=64)
    )
    for seed in range(2):
        own = jax.tree.map(lambda leaf, seed=seed: leaf[seed], state.kept)
        variables = {"params": own, "statistics": state.statistics}
        expected = both.module.direct.apply(variables, batch.video, batch.user)
        alone = both.module.alone(both.params, "direct")
        alone = jax.tree.map(lambda leaf, seed=seed: leaf[seed], alone)
        variables = {"params": alone, "statistics": both.statistics}
        found = both.module.apply(variables, batch.video, batch.user)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_evaluating_again_gives_the_same_weights_and_scores(finished):
    config, folder = finished
    path = folder / "whole" / "metrics.json"
    before = json.loads(path.read_text("utf-8"))
    assert run.run(config, folder / "whole", "evaluate", log=lambda line: None, report=False)
    assert json.loads(path.read_text("utf-8")) == before


def test_a_run_that_was_stopped_in_the_direct_path_goes_on_there(finished, monkeypatch):
    config, folder = finished
    lines, whole = [], json.loads((folder / "whole" / "metrics.json").read_text("utf-8"))
    real = direct_path.train

    def stopped_train(config, view, store, statistics, workdir, **options):
        if workdir.name == direct_path.FOLDER:
            calls = iter([False] * 3)
            options["should_stop"] = lambda: next(calls, True)
        return real(config, view, store, statistics, workdir, **options)

    with monkeypatch.context() as patch:
        patch.setattr(direct_path, "train", stopped_train)
        assert not run.run(config, folder / "parts", log=lines.append, report=False)
    where = folder / "parts" / "direct" / "checkpoints"
    assert lines[-1].startswith("Saved at step") and lines[-1].endswith(f"in {where}.")
    assert run.run(config, folder / "parts", log=lambda line: None, report=False)
    assert json.loads((folder / "parts" / "metrics.json").read_text("utf-8")) == whole


def test_without_validation_clips_there_is_only_the_network(finished, tmp_path):
    config, _ = finished
    config.view.validation_share = 0.0
    try:
        assert run.run(config, tmp_path, log=lambda line: None, report=False)
    finally:
        config.view.validation_share = 0.1
    trained = open_run(tmp_path)
    assert not len(trained.view.rows(VALIDATION))
    assert "path_weights" not in trained.metrics and isinstance(trained.models().module, UHMAN)


def test_it_recommends_and_is_exported_as_any_run(finished, tmp_path):
    _, folder = finished
    trained = open_run(folder / "whole")
    view, store = trained.view, trained.features()
    model, variables = trained.model(0)
    rows = view.rows(TEST)
    (batch,) = iterate(eval_batches(view, store, rows=rows, batch_size=64))
    scores_BT = model.apply(variables, batch.video, batch.user)

    recommender = Recommender(trained, model, variables, clips=None)
    recommender.compile()
    record = store[store.rows([view.video_ids[rows[0]]])[0]]
    (suggestions,) = recommender.suggest(record, [recommender.profile(view.user_ids[rows[0]])], 3)
    best = np.argsort(-scores_BT[0])[:3]
    assert [suggestion.hashtag for suggestion in suggestions] == [view.spellings[t] for t in best]
    np.testing.assert_allclose([s.score for s in suggestions], scores_BT[0][best], rtol=1e-3)

    export_run(folder / "whole", tmp_path / "out", queries="test")
    queries_VD, hashtags_TD = (
        np.load(tmp_path / "out" / f"{n}.npy") for n in ("queries", "hashtags")
    )
    found = (queries_VD @ hashtags_TD.T)[: len(rows)]
    np.testing.assert_allclose(found, scores_BT[: len(rows)], rtol=1e-3, atol=1e-3)
