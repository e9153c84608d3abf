"""Tests of the bench on real tags: peers, choice of settings, results, intervals, tables."""

import dataclasses
import doctest
import json
import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse as sp
import tiny_world

pytest.importorskip("sklearn", reason="scikit-learn, a peer, is not installed")

from experiments.real_tags import bench, ours, peers, table
from experiments.real_tags import inputs as inputs_lib
from experiments.real_tags.results import TEST, VALIDATION, Cut, Results
from uhman_jax.dataset.view import TRAIN, Ragged
from uhman_jax.dataset.view import VALIDATION as VALIDATION_SPLIT
from uhman_jax.run_directory import read_log
from uhman_jax.runtime import lock
from uhman_jax.runtime.errors import UserError
from uhman_jax.trained_run import open_run

NUM_TAGS, NUM_USERS = 24, 7
SMALL = {
    "lightfm": {"components": 8, "size": 16, "rate": 0.05, "alpha": 0.0},
    "logistic": {"components": 8, "alpha": 0.1},
    "ridge": {"alpha": 0.1},
    "knn": {"neighbours": 5, "power": 4},
}


@pytest.fixture(scope="module")
def toy():
    """150 clips; the tags of a clip are a function of its features and its user."""
    rng = np.random.default_rng(0)
    kind_N, user_N = rng.integers(12, size=150), rng.integers(NUM_USERS, size=150)
    labels_NT = np.zeros((150, NUM_TAGS), np.float32)
    labels_NT[np.arange(150), kind_N] = labels_NT[np.arange(150), 12 + user_N] = 1
    features_NC = np.eye(12)[kind_N] + 0.1 * rng.normal(size=(150, 12))
    part_N = np.split(rng.permutation(150), [100, 125])
    return inputs_lib.Inputs(
        inputs_lib.standardise(features_NC.astype(np.float32), part_N[0]),
        sp.csr_array(np.eye(NUM_USERS, dtype=np.float32)[user_N]),
        sp.csr_array((150, 0), dtype=np.float32),
        sp.csr_array(labels_NT * (np.arange(NUM_TAGS) >= 12)),
        sp.csr_array(labels_NT),
        *part_N,
    )


@pytest.mark.parametrize("name", peers.PEERS)
def test_a_peer_ranks_separable_tags_first(toy, name):
    if name == "lightfm":
        pytest.importorskip("lightfm", reason="lightfm is not installed")
    setting = {"user": 1.0, "history": 1.0} | SMALL[name]
    assert setting.keys() == peers.PEERS[name].grid.keys()
    predict = peers.PEERS[name].fit(toy.without_test(), toy.train, setting, 0)
    _, ndcg_V = peers.per_clip(predict(toy.test), toy.labels_NT[toy.test])
    assert ndcg_V.mean() > 0.9
    noise_NC = np.random.default_rng(1).normal(size=toy.features_NC.shape).astype(np.float32)
    nothing = {"users_NU": toy.users_NU * 0, "history_NT": toy.history_NT * 0}
    data = toy._replace(features_NC=noise_NC, **nothing).without_test()
    blind = peers.PEERS[name].fit(data, toy.train, setting, 0)
    assert peers.per_clip(blind(toy.test), toy.labels_NT[toy.test])[1].mean() < 0.6


@pytest.mark.parametrize("name", ["ridge", "knn"])
def test_labels_of_test_clips_change_neither_choice_nor_scores(toy, name):
    shuffled = toy.labels_NT.toarray()
    shuffled[toy.test] = np.roll(shuffled[toy.test], 5, axis=1)
    other = toy._replace(labels_NT=sp.csr_array(shuffled))
    one, two = (peers.tune(peers.PEERS[name], data, 3, budget=4) for data in (toy, other))
    assert one.chosen == two.chosen and one.tried == two.tried
    np.testing.assert_array_equal(one.predict(toy.test), two.predict(toy.test))
    shuffled[toy.validation] = np.roll(shuffled[toy.validation], 5, axis=1)
    other = toy._replace(labels_NT=sp.csr_array(shuffled))
    assert peers.tune(peers.PEERS[name], other, 3, budget=4).tried != one.tried


def test_the_best_setting_on_validation_is_chosen(toy):
    def fit(inputs, rows, setting, seed):
        assert inputs.labels_NT[toy.test].nnz == 0 and not len(inputs.test)
        fitted.append((setting["noise"], len(set(rows.tolist()))))
        noise_NT = np.random.default_rng(seed).normal(size=toy.labels_NT.shape)
        return lambda asked: (toy.labels_NT.toarray() + setting["noise"] * noise_NT)[asked]

    fitted = []
    peer = peers.Peer(fit, {"noise": (5.0, 1.0, 9.0)})
    tuned = peers.tune(peer, toy, 4, budget=3)
    assert tuned.chosen == {"noise": 1.0, "fits": 4}, "the mean of four has less noise"
    assert [setting["noise"] for setting, _ in tuned.tried] == [n for n, _ in fitted[:3]]
    assert all(size == 100 for _, size in fitted[:3])
    assert all(noise == 1.0 and 50 < size < 80 for noise, size in fitted[3:]), "bootstrap samples"
    same = tuned.predict(toy.test)
    fitted.clear()
    tuned = peers.tune(peer._replace(is_random=True), toy, 4, budget=3)
    assert all(size == 100 for _, size in fitted)
    np.testing.assert_array_equal(tuned.predict(toy.test), same)


def test_values_of_a_clip():
    labels = sp.csr_array(np.array([[1, 0, 1] + [0] * 9, [0] * 11 + [1]]))
    scores = np.array([[3.0, 2.0, 1.0] + [0.0] * 9, [0.0] * 12])
    precision_V, ndcg_V = peers.per_clip(scores, labels)
    np.testing.assert_allclose(precision_V, [0.2, 0.0], rtol=1e-6)  # ties count against a ranking
    ideal = 1 + 1 / np.log2(3)
    np.testing.assert_allclose(ndcg_V, [(1 + 1 / np.log2(4)) / ideal, 0.0], rtol=1e-6)


def test_inputs_of_a_view(root):
    config = tiny_world.make_config(root)
    view, store = tiny_world.load(root, config)
    mean_VC = inputs_lib.mean_features(store)
    clip = store[3]
    decoded_FMC = clip.codes_FMC.astype(np.float64) * clip.scale_C + clip.offset_C
    np.testing.assert_allclose(mean_VC[3], decoded_FMC.mean(axis=(0, 1)), rtol=1e-4, atol=1e-5)
    found = inputs_lib.read_inputs(view, store, mean_VC)
    np.testing.assert_allclose(found.features_NC[found.train].mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(found.features_NC[found.train].std(axis=0), 1, rtol=1e-3)
    assert found.labels_NT[[5]].indices.tolist() == view.positives.row(5).tolist()
    assert np.array_equal(np.flatnonzero(view.split_V == TRAIN), found.train)
    is_used = found.users_NU.sum(axis=1) > 0
    assert is_used[found.train].all() and not is_used[found.test].any(), "a user per clip"
    count_V = np.zeros(len(view.video_ids), int)
    count_V[:2] = 4, 1  # earlier hashtags of the first two clips
    history = Ragged(np.int32([3, 0, 1, 2, 5]), np.concatenate([[0], np.cumsum(count_V)]))
    other = dataclasses.replace(view, history=history)
    history_NT = inputs_lib.read_inputs(other, store, mean_VC).history_NT.toarray()
    np.testing.assert_array_equal(history_NT[0], [0.5] * 4 + [0] * (len(view.hashtags) - 4))
    assert history_NT[1, 5] == 1 and history_NT.sum() == 3
    num_known = len(view.genders) + len(view.ages) + len(view.countries) - 3
    assert found.attributes_NA.shape[1] == num_known
    hidden = found.without_test()
    assert hidden.labels_NT[found.test].nnz == 0 and len(hidden.test) == 0
    assert hidden.labels_NT[found.train].nnz == found.labels_NT[found.train].nnz


def test_an_interval_counts_clips_once_and_resamples_users():
    failed, attempted = doctest.testmod(table)
    assert attempted and not failed
    rng = np.random.default_rng(1)
    user_V = np.repeat(np.arange(200), 5)
    value_V = rng.normal(size=200)[user_V]  # the clips of a user are equal
    ids, users = np.arange(1000).astype(str), user_V.astype(str)
    mean, low, high = table.paired_interval(ids, users, value_V)
    assert mean == pytest.approx(value_V.mean())
    expected = 2 * 1.96 * value_V.std() / np.sqrt(200)
    assert high - low == pytest.approx(expected, rel=0.1), "not the square root of 1000"
    twice = table.paired_interval(np.tile(ids, 2), np.tile(users, 2), np.tile(value_V, 2))
    np.testing.assert_allclose(twice, (mean, low, high), rtol=1e-12)


def facts(values):
    """Returns facts about ten clips of five users, of whom one is cold."""
    clips = np.arange(10)
    return {
        "video_ids": np.array([f"{values}{v}" for v in clips]),
        "user_ids": np.array([f"u{v // 2}" for v in clips]),
        "is_cold": clips < 2,
        "cosine": clips / 10,
    }


def test_a_table_shows_differences_from_the_best_peer_on_validation(tmp_path):
    results = Results(tmp_path)
    better = np.where(np.arange(10) < 2, 0.1, 0.5)
    for part in (VALIDATION, TEST):
        for seed in (10, 11) if part == TEST else (0, 10, 11):
            cut = Cut("toy", "random", seed, part)
            # The best peer on validation is not the best one on test.
            for name, value in ("ridge", 0.3), ("knn", 0.2 if part == VALIDATION else 0.4):
                values = {metric: np.full(10, value) for metric in ("P@10", "NDCG@10")}
                results.add(cut, name, 8, values, facts(seed), setting="")
            values = {"P@10": better, "NDCG@10": better}
            results.add(cut, "plus", 8, values, facts(seed), setting="")
    results.add(Cut("toy", "random", 10, TEST), "bl", 8, values, facts(10), setting="")
    results = Results(tmp_path)
    assert results.has(Cut("toy", "random", 11, TEST), "plus", 8, "")
    assert not results.has(Cut("toy", "random", 11, TEST), "plus", 8, "another setting")
    development, text = table.tables(results).split("**toy, random split, test**")
    assert development.startswith("**toy, random split, validation**, split seeds 0; 10 clips.")
    assert text.startswith(", split seeds 10, 11; 20 clips.")
    assert "The best peer on validation is ridge." in text
    rows = {line.split(" | ")[0]: line.strip("| ").split(" | ") for line in text.splitlines()}
    assert rows["| ridge"][2:] == ["0.3000", "0.3000", "", "", "", ""][: len(rows["| ridge"]) - 2]
    assert rows["| plus"][2:4] == ["0.4200", "0.4200"]
    low, high = rows["| plus"][4].split("(")[1].strip(")").split(" to ")
    assert rows["| plus"][4].startswith("+0.1200") and float(low) < 0.12 < float(high)
    assert rows["| plus"][6:] == ["-0.2000 (-0.2000 to -0.2000)"] * 2
    assert "Left out, because split seeds are missing: bl." in text
    readme = tmp_path / "README.md"
    readme.write_text("a<!-- tables: begin -->old<!-- tables: end -->z")
    table.write_tables(readme, text)
    assert readme.read_text() == f"a<!-- tables: begin -->\n\n{text}\n\n<!-- tables: end -->z"
    with pytest.raises(UserError, match="got none"):
        table.tables(Results(tmp_path / "empty"))


@pytest.fixture
def small_bench(root, tmp_path):
    """A function that runs a peer or a system on a tiny world, and the folder of results."""

    def call(name, **options):
        data = tiny_world.make_config(root)
        bench.Bench(tmp_path / "results", tmp_path / "runs", 2).run(name, data, **options)

    return call, tmp_path / "results"


def lines(folder, name="results.jsonl"):
    path = folder / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_finished_lines_are_skipped_and_test_is_opened_by_a_verdict_only(small_bench, monkeypatch):
    call, folder = small_bench
    call("ridge")
    (row,) = lines(folder)
    assert (row["system"], row["part"], row["fits"], row["split"]) == (
        "ridge", "validation", 2, "random",
    )  # fmt: skip
    assert set(row["chosen"]) == {"user", "history", "alpha", "fits"}
    assert not list(folder.glob("clips/*test*")) and not lines(folder, "test_openings.jsonl")

    with monkeypatch.context() as patch:
        patch.setattr(bench, "tune", None)
        call("ridge")  # does nothing
    monkeypatch.setattr("sys.argv", ["x", "--root=/a folder/oca/", "--seeds=0,1", "--verdict"])
    call("ridge", verdict=True)
    assert [row["part"] for row in lines(folder)] == ["validation", "test"]
    (opening,) = lines(folder, "test_openings.jsonl")
    assert opening.keys() == {"date", "commit", "command"}
    flags = "--root=oca --seeds=0,1 --verdict"
    assert opening["command"] == f"python -m experiments.real_tags {flags}"
    call("ridge", verdict=True)  # finished: test is not opened again
    assert len(lines(folder, "test_openings.jsonl")) == 1
    clips = Results(folder).clips(Cut("data", "random", 0, TEST))
    assert clips["P@10/ridge/2"].mean() == pytest.approx(lines(folder)[1]["P@10"], abs=1e-5)
    assert clips["is_cold"].all()


def test_a_system_on_composites_says_where_it_looked(finished, tmp_path, monkeypatch):
    class Left:
        """The poster's picture fills the left half of every frame."""

        def __init__(self, root):
            self.tagged = dict.fromkeys(open_run(finished).view.video_ids, 0)

        def region_masks(self, video_id, times_F, num_regions):
            side = int(num_regions**0.5)
            half = np.arange(num_regions) % side < side / 2
            return np.broadcast_to(half, (len(times_F), 1, num_regions))

    data = open_run(finished).located
    monkeypatch.setattr(ours, "trained", lambda config, folder: finished)
    bench.Bench(tmp_path / "single", tmp_path / "runs", 2).run("natural", data)
    assert "attention" not in lines(tmp_path / "single")[0]
    monkeypatch.setattr(bench, "PLACES", "videos.csv")
    monkeypatch.setattr(bench, "Places", Left)
    bench.Bench(tmp_path, tmp_path / "runs", 2).run("natural", data)
    for row in lines(tmp_path):
        facts = row["attention"]
        assert facts["top_region_tagged_chance"] == pytest.approx(0.5, abs=0.1)
        assert 0 < facts["tagged_mass"] < 1 and 0 <= facts["top_region_tagged"] <= 1


def test_a_system_is_scored_by_model_and_by_the_mean_of_its_models(finished, tmp_path, monkeypatch):
    data = open_run(finished).located
    monkeypatch.setattr(ours, "trained", lambda config, folder: finished)
    bench.Bench(tmp_path, tmp_path / "runs", 2).run("natural", data)
    rows = {row["fits"]: row for row in lines(tmp_path)}
    assert rows.keys() == {1, 2}

    prepared = bench.prepare(data, lambda line: None)
    view, store = prepared.view, prepared.store
    (scores_SVT,) = ours.scores("natural", finished, prepared, view.rows(VALIDATION_SPLIT)).values()
    labels_NT = inputs_lib.read_inputs(view, store, inputs_lib.mean_features(store)).labels_NT
    labels_VT = labels_NT[view.rows(VALIDATION_SPLIT)]
    ndcg_S = [peers.per_clip(scores_VT, labels_VT)[1].mean() for scores_VT in scores_SVT]
    log = read_log(finished)
    best = np.argmax([entry["validation/MAP"] for entry in log], axis=0)
    logged = [log[b]["validation/NDCG@10"][seed] for seed, b in enumerate(best)]
    np.testing.assert_allclose(ndcg_S, logged, atol=1e-4)
    assert rows[1]["NDCG@10"] == pytest.approx(np.mean(ndcg_S), abs=1e-4)
    together = peers.per_clip(scores_SVT.mean(axis=0), labels_VT)[1].mean()
    assert rows[2]["NDCG@10"] == pytest.approx(together, abs=1e-4)


def test_a_run_has_a_directory_of_its_own_and_must_end(root, tmp_path, monkeypatch):
    config = ours.config_of("bl", tiny_world.make_config(root), 2)
    monkeypatch.setattr(ours, "run", lambda config, workdir, **options: True)
    workdir = ours.trained(config, tmp_path)
    config.train.num_epochs += 1
    assert ours.trained(config, tmp_path) != workdir
    monkeypatch.setattr(ours, "run", lambda config, workdir, **options: False)
    with pytest.raises(UserError, match="got a signal"):
        ours.trained(config, tmp_path)


@pytest.mark.parametrize("name", ours.SYSTEMS)
def test_systems_differ_and_keep_the_data(name, root):
    data = tiny_world.make_config(root)
    data.view.seed = 3
    config = ours.config_of(name, data, 2)
    assert (config.view.seed, config.data.root, config.train.num_seeds) == (3, str(root), 2)
    prints = {ours.fingerprint(ours.config_of(other, data, 2)) for other in ours.SYSTEMS}
    assert len(prints) == len(ours.SYSTEMS)
    moved = dataclasses.replace(config, data=dataclasses.replace(config.data, root="elsewhere"))
    assert ours.fingerprint(moved) == ours.fingerprint(config)


def test_a_second_process_in_the_same_results_is_refused(tmp_path, monkeypatch):
    """Each would write the whole file, and lose the lines of the other."""
    arguments = [sys.executable, "-m", "experiments.real_tags", "--root=/nowhere", "--only=ridge"]
    with lock.hold(tmp_path / "results", "wait"):
        done = subprocess.run(
            [*arguments, f"--results={tmp_path / 'results'}"], capture_output=True, text=True
        )
    assert done.returncode == 2 and "one process at a time may work in" in done.stderr
    assert "choose another folder with --results" in done.stderr
    assert not (tmp_path / "results" / "results.jsonl").exists()
