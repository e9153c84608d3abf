"""One step against plain NumPy, the laws of populations, and the result of a run."""

import dataclasses
import functools
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import short_runs
import tiny_world
from short_runs import assert_same_bytes, log_of, run, without_times

from uhman_jax import channel_statistics, input_pipeline, train
from uhman_jax.config import Decay, Loss, Optimiser, RankWeight, to_dict
from uhman_jax.dataset.raw import read_raw_dataset, write_raw_dataset
from uhman_jax.dataset.view import TEST, TRAIN, VALIDATION
from uhman_jax.evaluate.ranking import make_ranker, rank_scores, rank_videos, summaries
from uhman_jax.evaluate.reference_rankings import positives_of
from uhman_jax.losses import make_loss
from uhman_jax.models.build import build_model
from uhman_jax.runtime.errors import UserError
from uhman_jax.train import loop
from uhman_jax.train import state as state_lib
from uhman_jax.train import step as step_lib


@pytest.fixture(scope="module", autouse=True)
def programs():
    """Are traced once."""
    with short_runs.one_trace_per_program():
        yield


def loss_and_gradient(model, config):
    """Returns (params, statistics, batch, key) -> loss and gradient of one seed, as in a step."""
    loss = make_loss(**to_dict(config.loss), num_hashtags=model.num_hashtags)

    @jax.jit
    def function(params, statistics, batch, key=jax.random.key(0)):  # noqa: B008
        key, negatives_key = jax.random.split(key)
        negatives_BPN = loss.sample(negatives_key, batch.positives_BP, batch.positives_mask_BP)
        inputs = model, params, statistics, batch, negatives_BPN, key
        return step_lib.loss_and_gradient(*inputs, config, loss, "cpu")

    return function


def start_of(config, world):
    """Model, its variables of the first seed, and a batch."""
    model, state = tiny_world.fresh(config, world)
    params = jax.tree.map(lambda leaf: leaf[0], state.params)
    return model, params, state.statistics, batch_of(config, world)


def take_steps(config, world, num_steps, total=100):
    """State after some steps, and the metrics of each."""
    model, state = tiny_world.fresh(config, world)
    train_step, metrics = loop.make_train_step(model, config, total, None), []
    for step in range(num_steps):
        state, figures = train_step(state, batch_of(config, world, step))
        metrics.append(figures)
    return state, metrics


def batch_of(config, world, step=0):
    view, store, *_ = world
    order = input_pipeline.TrainOrder(view.rows(TRAIN), config.train.batch_size, 0)
    return input_pipeline.train_batches(view, store, order)[step]


# The loss of a batch and one update


def set_loss(config, kind):
    """Sets a loss, or WARP with a rank weight."""
    config.loss.name = kind if isinstance(kind, Loss) else Loss.WARP
    if isinstance(kind, RankWeight):
        config.loss.rank_weight = kind


def slow_loss(loss, scores_T, positives):
    """The loss of one example."""
    if loss is Loss.LOGISTIC:
        prob_T = 1 / (1 + np.exp(-scores_T / 0.2))
        right_T = np.where(np.isin(np.arange(len(prob_T)), positives), prob_T, 1 - prob_T)
        return -np.log(right_T).sum()
    if loss is Loss.SOFTMAX:
        return (np.log(np.exp(scores_T / 0.2).sum()) - scores_T[positives] / 0.2).mean()
    total, others = 0.0, np.setdiff1d(np.arange(len(scores_T)), positives)
    for positive in positives:
        hinge = np.maximum(0, 0.3 - scores_T[positive] + scores_T[others])
        rank = int((hinge > 0).sum())
        if loss is RankWeight.NONE:
            total += 4 * hinge.mean()
        elif rank:
            total += sum(1 / r for r in range(1, rank + 1)) * hinge.sum() / rank
    return total


@pytest.mark.parametrize("kind", [*RankWeight, Loss.SOFTMAX, Loss.LOGISTIC])
def test_batch_loss_is_the_mean_over_the_real_examples(root, world, kind):
    config = tiny_world.make_config(root)
    config.loss.margin, config.loss.temperature = 0.3, 0.2
    set_loss(config, kind)
    model, params, statistics, batch = start_of(config, world)
    real_B = np.arange(len(batch.mask_B)) < len(batch.mask_B) - 3  # the last three become padding
    batch = batch._replace(mask_B=real_B)
    loss, _ = loss_and_gradient(model, config)(params, statistics, batch)
    variables = {"params": params, "statistics": statistics}
    scores_BT = np.asarray(model.apply(variables, batch.video, batch.user), np.float64)
    expected = [
        slow_loss(kind, scores_T, ids_P[mask_P])
        for scores_T, ids_P, mask_P in zip(
            scores_BT[real_B], batch.positives_BP, batch.positives_mask_BP, strict=False
        )
    ]
    np.testing.assert_allclose(loss, np.mean(expected), rtol=1e-5)


@pytest.mark.parametrize("kind", [*RankWeight, Loss.LOGISTIC])
def test_sampled_loss_never_scores_the_whole_vocabulary(root, world, kind):
    config = tiny_world.sampled(tiny_world.make_config(root))
    set_loss(config, kind)
    model, *inputs = start_of(config, world)
    loss = loss_and_gradient(model, config)
    shapes = str(jax.make_jaxpr(loss)(*inputs, jax.random.key(0)))
    num_examples, num_hashtags = inputs[-1].row_B.shape[0], len(world[0].hashtags)
    assert f"[{num_examples},{num_hashtags}]" not in shapes
    values = [loss(*inputs, jax.random.key(seed))[0] for seed in range(3)]
    assert np.isfinite(values).all() and len(set(map(float, values))) > 1


def test_a_step_is_sgd_with_clipping_decay_of_matrices_momentum_and_rates(root, world):
    config = tiny_world.make_config(
        root,
        learning_rate=0.02,
        user_rate=3.0,
        hashtag_rate=5.0,
        attention_rate=7.0,
        clip_norm=0.5,
        weight_decay=0.01,
        momentum=0.9,
    )
    config.model.bias = True  # it has the plain rate and does not decay
    rates = dict.fromkeys(("gender_AK", "age_AK", "country_AK", "history_TK"), 0.06)
    rates |= {"hashtag_TK": 0.1, "query_KHW": 0.14, "key_KHW": 0.14}
    model, state = tiny_world.fresh(config, world)
    train_step = loop.make_train_step(model, config, 100, None)
    batches = [batch_of(config, world, step) for step in range(3)]

    params = jax.tree.map(lambda leaf: np.asarray(leaf[0], np.float64), state.params)
    trace = jax.tree.map(np.zeros_like, params)
    statistics = jax.tree.map(np.asarray, state.statistics)
    gradient_of = loss_and_gradient(model, config)
    for step, batch in enumerate(batches):
        as_float32 = jax.tree.map(lambda leaf: leaf.astype(np.float32), params)
        gradient = jax.tree.map(np.asarray, gradient_of(as_float32, statistics, batch)[1])
        norm = np.sqrt(
            sum((leaf.astype(np.float64) ** 2).sum() for leaf in jax.tree.leaves(gradient))
        )
        assert norm > 0.5, "clipping must matter here"
        gradient = jax.tree.map(lambda leaf: leaf * (0.5 / norm), gradient)  # noqa: B023
        gradient = jax.tree.map(
            lambda leaf, param: leaf + (0.01 * param if param.ndim >= 2 else 0), gradient, params
        )
        trace = jax.tree.map(lambda old, new: 0.9 * old + new, trace, gradient)
        params = jax.tree_util.tree_map_with_path(
            lambda path, param, update: param - rates.get(path[-1].key, 0.02) * update,
            params,
            trace,
        )
        state, metrics = train_step(state, batch)
        assert int(state.step) == step + 1
        np.testing.assert_allclose(metrics.gradient_norm_S[0], norm, rtol=1e-4)
    jax.tree.map(
        lambda got, want: np.testing.assert_allclose(got[0], want, atol=2e-6), state.params, params
    )


def test_the_moving_average_follows_its_formula_and_is_kept(root, world, tmp_path):
    config = tiny_world.make_config(root, ema=0.3, num_epochs=1)
    model, state = tiny_world.fresh(config, world)
    train_step = loop.make_train_step(model, config, 100, None)
    average = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), state.params)
    for step in range(4):
        state, _ = train_step(state, batch_of(config, world, step))
        decay = min(0.3, (step + 1) / (step + 10))  # 0.1, 0.18, 0.25, 0.3
        average = jax.tree.map(
            lambda old, new, decay=decay: decay * old + (1 - decay) * np.asarray(new),
            average,
            state.params,
        )
    jax.tree.map(
        lambda got, want: np.testing.assert_allclose(got, want, atol=1e-6), state.average, average
    )
    final = run(config, world, tmp_path)  # its only validation comes after the last step
    assert_same_bytes(final.best_params, final.average)
    assert not np.allclose(final.average["hashtag_TK"], final.params["hashtag_TK"], atol=1e-4)
    assert tiny_world.fresh(tiny_world.make_config(root), world)[1].average == ()


def test_a_step_of_adamw_is_its_formula_with_decay_of_matrices(root, world):
    """Loshchilov and Hutter (2019): b1 = 0.9, b2 = 0.999, epsilon = 1e-8."""
    config = tiny_world.make_config(root, learning_rate=0.01, weight_decay=0.3, clip_norm=0.0)
    config.train.optimiser = Optimiser.ADAMW
    config.model.bias = True  # it does not decay
    config.train.user_rate = config.train.hashtag_rate = 1.0
    model, state = tiny_world.fresh(config, world)
    batch = batch_of(config, world)
    before = jax.tree.map(lambda leaf: np.asarray(leaf[0], np.float64), state.params)
    params = jax.tree.map(lambda leaf: leaf[0], state.params)
    gradient = loss_and_gradient(model, config)(params, state.statistics, batch)[1]
    gradient = jax.tree.map(np.asarray, gradient)
    state, _ = loop.make_train_step(model, config, 100, None)(state, batch)

    def check(after, old, slope):  # after one step both moments are those of this gradient
        update = slope / (np.abs(slope) + 1e-8) + (0.3 * old if old.ndim >= 2 else 0)
        sure = (np.abs(slope) > 1e-6) | (slope == 0)  # elsewhere rounding decides the sign
        np.testing.assert_allclose(after[0][sure], (old - 0.01 * update)[sure], atol=1e-5)
        assert sure.mean() > 0.5

    jax.tree.map(check, state.params, before, gradient)


def test_a_step_compiles_once(root, world):
    config = tiny_world.make_config(root)
    model, state = tiny_world.fresh(config, world)
    train_step = loop.make_train_step(model, config, 100, None)
    record = jax.jit(
        functools.partial(state_lib.record_validation, patience=2, decay_factor=0.1),
        donate_argnums=0,
    )
    for step in range(4):
        state, _ = train_step(state, batch_of(config, world, step))
        state = record(state, np.float32([step]))
    assert train_step._cache_size() == 1


def test_learning_rate_falls_at_its_shares_of_the_run():
    config = tiny_world.make_config("", learning_rate=0.1, decay_at=(0.5, 0.8), decay_factor=0.1)
    rate = step_lib.learning_rate(config.train, 10)
    rates = [float(rate(jnp.int32(step))) for step in range(10)]
    np.testing.assert_allclose(rates, [0.1] * 5 + [0.01] * 3 + [0.001] * 2, rtol=1e-6)
    config.train.decay = Decay.PLATEAU
    assert float(step_lib.learning_rate(config.train, 10)(jnp.int32(9))) == pytest.approx(0.1)
    config.train.decay = Decay.COSINE
    rate = step_lib.learning_rate(config.train, 10)
    rates = [float(rate(jnp.int32(step))) for step in (0, 5, 10)]
    np.testing.assert_allclose(rates, [0.1, 0.05, 0.0], atol=1e-8)


# Populations


def test_a_seed_of_a_population_equals_a_run_of_this_seed(root, world):
    population = tiny_world.make_config(root, num_seeds=3)
    single = tiny_world.make_config(root, num_seeds=1)
    for config in (population, single):
        tiny_world.smooth(tiny_world.sampled(config)).model.dropout = 0.2
    single.seed = 2
    many, (*_, many_metrics) = take_steps(population, world, 5)
    one, (*_, one_metrics) = take_steps(single, world, 5)
    np.testing.assert_allclose(many_metrics.loss_S[2], one_metrics.loss_S[0], rtol=1e-4)
    jax.tree.map(
        lambda all_S, one_S: np.testing.assert_allclose(all_S[2], one_S[0], atol=1e-5),
        many.params,
        one.params,
    )
    assert not np.allclose(many_metrics.loss_S[0], many_metrics.loss_S[1])


# Validation: the best parameters and the plateau


def test_validation_keeps_the_best_parameters_and_decays_on_a_plateau():
    params, zero_S = {"w_SK": jnp.zeros((2, 3))}, jnp.zeros(2, jnp.int32)
    fields = dict.fromkeys(state_lib.State._fields, ())
    fields |= {"params": params, "best_params": params, "best_step_S": zero_S, "stale_S": zero_S}
    fields |= {"rate_scale_S": jnp.ones(2), "loss_sum_S": jnp.full(2, 7.0)}
    fields |= {"loss_steps": jnp.int32(4), "best_score_S": jnp.full(2, -jnp.inf)}
    state = state_lib.State(**fields)
    # Seed 0 improves at 1 and 4; seed 1 at 1, then never: a tie is kept, but no improvement, and
    # NaN is neither.
    scores = [(0.1, 0.5), (0.1, 0.4), (0.05, 0.5), (0.2, np.nan), (0.1, 0.3), (0.1, 0.2)]
    for number, score_S in enumerate(scores, start=1):
        state = state._replace(
            step=jnp.int32(10 * number), params={"w_SK": jnp.full((2, 3), float(number))}
        )
        state = state_lib.record_validation(
            state, jnp.array(score_S, jnp.float32), patience=2, decay_factor=0.1
        )
    np.testing.assert_array_equal(state.best_params["w_SK"], [[4.0] * 3, [3.0] * 3])
    np.testing.assert_array_equal(state.best_step_S, [40, 30])
    np.testing.assert_allclose(state.best_score_S, [0.2, 0.5])
    # Two validations without improvement: seed 0 after 2-3 and 5-6, seed 1 after 2-3 and 4-5.
    np.testing.assert_allclose(state.rate_scale_S, [0.01, 0.01], rtol=1e-6)
    np.testing.assert_array_equal(state.stale_S, [2, 5])
    np.testing.assert_array_equal(state.loss_sum_S, [0, 0])
    assert int(state.loss_steps) == 0 and int(state.validated_step) == 60


def test_a_run_writes_its_log_and_its_best_parameters_have_the_score_of_the_log(
    root, world, tmp_path
):
    config = tiny_world.make_config(root, num_seeds=2, num_epochs=5)
    state = run(config, world, tmp_path)
    entries = log_of(tmp_path)
    view, store, *_ = world
    per_epoch = -(-len(view.rows(TRAIN)) // 10)
    assert [entry["step"] for entry in entries] == [per_epoch * e for e in range(1, 6)]
    assert int(state.step) == train.total_steps(config, view) == 5 * per_epoch
    for entry in entries:
        for key in ("loss", "learning_rate", "validation/P@10", "validation/MAP", "train/MAP"):
            assert len(entry[key]) == 2 and np.isfinite(entry[key]).all()
        assert 0 < entry["validation_ensemble/MAP"] <= 1 and "train_ensemble/MAP" not in entry
    best_S = np.max([entry["validation/MAP"] for entry in entries], axis=0)
    np.testing.assert_allclose(state.best_score_S, best_S, rtol=1e-6)
    batches = input_pipeline.eval_batches(view, store, rows=view.rows(VALIDATION), batch_size=16)
    model = build_model(config.model, view)
    ranker = make_ranker(model)
    ranking = rank_videos(
        ranker, state.best_params, state.statistics, input_pipeline.iterate(batches)
    )
    scores = summaries(ranking.ranks_SVP, ranking.mask_VP)["MAP"]
    rows_V = view.rows(VALIDATION)
    _, apart_SV = tiny_world.scores(model, state.best_params, state.statistics, view, store, rows_V)
    # Where scores are the same but for rounding the other program may rank otherwise.
    np.testing.assert_allclose(scores, best_S, rtol=1e-6, atol=np.mean(~apart_SV))


def test_a_validation_logs_the_score_of_the_ensemble(root, world, tmp_path):
    config = tiny_world.make_config(root, num_seeds=3, num_epochs=1)
    state = run(config, world, tmp_path)
    view, store, _ = world
    rows_V, model = view.rows(VALIDATION), build_model(config.model, view)
    opened = state.evaluated, state.statistics, view, store
    scores_SVT, _ = tiny_world.scores(model, *opened, rows_V)
    positives_VP, mask_VP = positives_of(view, rows_V)
    ranks_VP = rank_scores(scores_SVT.mean(axis=0), positives_VP, mask_VP)
    (entry,) = log_of(tmp_path)
    expected = summaries(ranks_VP[None], mask_VP)["MAP"][0]
    assert entry["validation_ensemble/MAP"] == pytest.approx(expected, rel=1e-3)
    assert len(set(entry["validation/MAP"])) > 1


def test_the_mean_loss_of_the_log_is_that_of_its_steps(root, world, tmp_path):
    config = tiny_world.make_config(root, num_epochs=2, eval_every=6)
    run(config, world, tmp_path)
    _, metrics = take_steps(config, world, 12, train.total_steps(config, world[0]))
    losses = [float(figures.loss_S[0]) for figures in metrics]
    got = [entry["loss"][0] for entry in log_of(tmp_path)[:2]]
    np.testing.assert_allclose(got, [np.mean(losses[:6]), np.mean(losses[6:])], rtol=1e-6)


def test_a_bias_starts_at_the_logit_of_the_share_of_training_videos(root, world, tmp_path):
    config = tiny_world.make_config(root, num_seeds=2, num_epochs=1, learning_rate=1e-30)
    config.model.bias, config.loss.temperature, config.view.min_count = True, 0.4, 3
    view, store = tiny_world.load(root, config)
    state = run(config, (view, store, world[2]), tmp_path)
    rows = view.rows(TRAIN)
    uses_T = [sum(t in view.positives.row(row) for row in rows) for t in range(len(view.hashtags))]
    share_T = (np.array(uses_T) + 0.5) / (len(rows) + 1)
    want_T = 0.4 * np.log(share_T / (1 - share_T))
    for params in (state.params, state.best_params):
        np.testing.assert_allclose(params["bias_T"], [want_T, want_T], rtol=1e-5)
    assert np.ptp(want_T) > 0.4
    _, fresh = tiny_world.fresh(config, (view, store, world[2]))
    assert not fresh.params["bias_T"].any()


# Leaks


def test_labels_of_test_videos_change_no_byte_of_the_parameters(root, world, tmp_path):
    view, *_ = world
    raw = read_raw_dataset(root, strict=True, check_files=False)
    tested = {view.video_ids[row] for row in view.rows(TEST)}
    videos = [
        dataclasses.replace(video, hashtags=("leak", f"thing{index % 3}land1"))
        if video.video_id in tested
        else video
        for index, video in enumerate(raw.videos)
    ]
    write_raw_dataset(tmp_path / "data", videos, list(raw.users.values()))
    shutil.copytree(root / "features", tmp_path / "data" / "features")
    config = tiny_world.make_config(root, decay=Decay.PLATEAU, patience=1)
    other_view, other_store = tiny_world.load(tmp_path / "data", config)
    assert len(tested) > 20 and other_view.fingerprint != view.fingerprint
    statistics = channel_statistics.measure(other_view, other_store)
    one = run(config, world, tmp_path / "one")
    other = run(config, (other_view, other_store, statistics), tmp_path / "other")
    assert_same_bytes(one, other)
    one_log, other_log = (without_times(log_of(tmp_path / name)) for name in ("one", "other"))
    assert one_log == other_log


def test_without_validation_videos_the_last_parameters_are_kept(root, tmp_path):
    config = tiny_world.make_config(root, num_epochs=2)
    config.view.validation_share = 0.0
    view, store = tiny_world.load(root, config)
    world = view, store, channel_statistics.measure(view, store)
    state = run(config, world, tmp_path)
    assert_same_bytes(state.params, state.best_params)
    assert "validation/P@10" not in log_of(tmp_path)[-1]
    config.train.stop_after = 3
    with pytest.raises(UserError, match="train.stop_after=3 needs validation videos, got none"):
        run(config, world, tmp_path / "other")
    config.train.decay = Decay.PLATEAU
    with pytest.raises(UserError, match="train.decay=plateau needs validation videos, got none"):
        run(config, world, tmp_path / "other")
