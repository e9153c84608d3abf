"""An exported folder against the run that it came from, loaded without the package."""

import dataclasses
import json
import os
import pathlib
import pickle
import shutil
import subprocess
import sys
import textwrap
from unittest import mock

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
import views
from hypothesis import given, settings
from hypothesis import strategies as st

from tools import cli
from tools.export import folder as export_lib
from tools.export import load as load_lib
from uhman_jax.dataset.attributes import country_names
from uhman_jax.dataset.raw import read_raw_dataset
from uhman_jax.dataset.view import TEST, View
from uhman_jax.evaluate import confidence as confidence_lib
from uhman_jax.input_pipeline import eval_batches
from uhman_jax.recommend.profile import Profile, ProfileEncoder
from uhman_jax.runtime.errors import UserError
from uhman_jax.scores import Scores, verdict
from uhman_jax.trained_run import open_run

ROOT = pathlib.Path(__file__).parents[1]
# Hides all installed packages except for JAX and its dependencies.
BARE = """
import importlib.metadata, sys
allowed = "jax jaxlib numpy ml_dtypes opt_einsum scipy flatbuffers".split()
others = set(importlib.metadata.packages_distributions()) - set(allowed)
class Nothing:
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        if top in ("uhman_jax", "tools") or top in others and top not in sys.stdlib_module_names:
            raise ImportError(name)
sys.meta_path.insert(0, Nothing())
"""


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory):
    """The folder with the second seed's model."""
    folder = tmp_path_factory.mktemp("exported") / "out" / "it"
    export_lib.export_run(finished, folder, seed=1, queries="test")
    return folder


@pytest.fixture(scope="module")
def asked(finished, exported):
    """Results of the folder's loader for all test clips, in a process without the package.

    Users are as in users.csv, except for the history, which is the view's.
    """
    run, requests = open_run(finished), []
    view, store = run.view, run.features()
    raw = read_raw_dataset(finished.parent / "data", strict=True, check_files=False)
    for row in view.rows(TEST):
        record = store[store.rows([view.video_ids[row]])[0]]
        user = raw.users[view.user_ids[row]]
        past = [f" #{view.hashtags[t].upper()}" for t in view.history.row(row)]
        profile = {"age": user.age, "country": user.country.upper(), "history": past}
        profile |= {"gender": user.gender} if user.gender else {}
        requests.append(((record.codes_FMC, record.scale_C, record.offset_C), profile))
    work = exported.parents[1]
    (work / "requests").write_bytes(pickle.dumps(requests))
    script = f"""
    import json, pickle, sys
    sys.path[:] = [path for path in sys.path if path not in ("", {str(ROOT)!r})]
    sys.path.insert(0, {str(exported)!r})
    from load import load
    model, found = load({str(exported)!r}), []
    for clip, profile in pickle.load(open("requests", "rb")):
        found.append([model.recommend(*clip, **profile), model.recommend(*clip)])
        found[-1].append(model.query(*clip, **profile).tolist())
    json.dump(found, open("found.json", "w"))
    print(sorted(sys.modules))
    """
    command = [sys.executable, "-c", BARE + textwrap.dedent(script)]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    result = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "'jax'" in result.stdout and "'flax'" not in result.stdout
    assert "'uhman_jax'" not in result.stdout
    return json.loads((work / "found.json").read_text())


def test_the_folder_ranks_as_the_run_did(finished, asked):
    rows = pq.read_table(finished / "predictions.parquet").to_pylist()
    rows = [row for row in rows if row["seed"] == 1]
    assert len(rows) == len(asked) > 20
    for row, (found, _, _) in zip(rows, asked, strict=True):
        names, scores, confidence = zip(*found, strict=True)
        stored = dict(zip(row["hashtags"], row["scores"], strict=True))
        assert len(names) == len(stored) and list(scores) == sorted(scores, reverse=True)
        # Hashtags whose scores differ only by rounding may swap.
        np.testing.assert_allclose(scores, [stored[name] for name in names], atol=1e-5)
        expected = confidence_lib.load(finished, 1).confidence(np.array([scores]))[0]
        np.testing.assert_allclose(confidence, expected, atol=1e-9)


def scores_by_the_package(finished, user):
    """Scores of five test clips by the second seed's model, for a changed user."""
    run = open_run(finished)
    model, variables = run.model(1)
    rows = run.view.rows(TEST)[:5]
    (batch,) = eval_batches(run.view, run.features(), rows=rows, batch_size=5)
    scores = jax.jit(model.apply)(variables, batch.video, user(batch.user))
    return batch.video, np.asarray(scores)


def test_a_user_without_attributes_is_unknown(finished, asked):
    _, scores_BT = scores_by_the_package(finished, lambda user: jax.tree.map(np.zeros_like, user))
    for scores_T, (_, unknown, _) in zip(scores_BT, asked, strict=False):
        found = [value for _, value, _ in unknown]
        np.testing.assert_allclose(found, np.sort(scores_T)[::-1][: len(found)], atol=1e-5)
    assert any(found != unknown for found, unknown, _ in asked)


def test_a_history_consists_of_known_hashtags(finished, exported):
    model = load_lib.load(exported)
    last = len(model.hashtags) - 1

    def used_it(user):
        ids_BR, mask_BR = np.full_like(user.history_BR, last), np.ones_like(user.history_mask_BR)
        unknown = jax.tree.map(np.zeros_like, user)
        return unknown._replace(history_BR=ids_BR, history_mask_BR=mask_BR)

    assert model.shapes["history"] == 1, "else the rows above are no histories"
    video, scores_BT = scores_by_the_package(finished, used_it)
    for b, scores_T in enumerate(scores_BT):
        clip = video.codes_BFMC[b][video.mask_BF[b]], video.scale_BC[b], video.offset_BC[b]
        found = model.recommend(*clip, history=["never used", f"#{model.hashtags[last]}", "all"])
        best = scores_T[model.hashtags.index(found[0][0])]
        assert best == pytest.approx(scores_T.max(), abs=1e-5)
        expected = np.sort(scores_T)[::-1][: len(found)]
        np.testing.assert_allclose([value for _, value, _ in found], expected, atol=1e-5)


def test_vectors_times_query_are_the_scores(exported, asked):
    vectors_TD = np.load(exported / "hashtags.npy")
    names = json.loads((exported / "hashtags.json").read_text())
    assert vectors_TD.dtype == np.float32 and len(vectors_TD) == len(names)
    for found, _, query_D in asked:
        scores_T = vectors_TD @ np.float32(query_D)
        expected = [scores_T[names.index(name)] for name, _, _ in found]
        np.testing.assert_allclose([value for _, value, _ in found], expected, atol=1e-6)


def test_queries_of_a_split_belong_to_its_clips(finished, exported, asked):
    view = View.load(finished / "view.npz")
    ids = json.loads((exported / "video_ids.json").read_text())
    assert ids == [view.video_ids[row] for row in view.rows(TEST)]
    queries_VD = np.load(exported / "queries.npy")
    np.testing.assert_allclose(queries_VD, [query_D for *_, query_D in asked], atol=1e-6)


def test_another_process_writes_the_same_bytes_over_it(finished, exported):
    before = {path.name: path.read_bytes() for path in exported.iterdir()}
    inode = exported.stat().st_ino
    flags = [f"--run={finished}", f"--output={exported}", "--seed=1", "--queries=test"]
    line = [sys.executable, "-m", "tools.export", *flags]
    result = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("Wrote 18 files") and "INFO" not in result.stderr
    assert exported.stat().st_ino != inode, "the folder is another one"
    assert {path.name: path.read_bytes() for path in exported.iterdir()} == before
    assert [path.name for path in exported.parent.iterdir()] == ["it"]
    for name in ("query", "recommend"):
        assert b".py" not in before[f"{name}.jax_export"], "paths of this machine"


def test_programs_take_any_batch_on_three_platforms(exported):
    program = jax.export.deserialize(bytearray((exported / "query.jax_export").read_bytes()))
    assert program.platforms == ("cpu", "cuda", "tpu")
    zeros = [np.zeros((3, *aval.shape[1:]), aval.dtype) for aval in program.in_avals]
    assert program.call(*zeros).shape == (3, 6)


def test_the_card_says_what_it_is(finished, exported):
    page = (exported / "README.md").read_text()
    metrics = json.loads((finished / "metrics.json").read_text())
    assert f"{metrics['test/P@10']:.4f}" in page and "mean over 2 seeds" in page
    assert all(entry["name"] in page for entry in metrics["slices"])
    assert f"{100 * metrics['calibration/error@10']:.1f} percentage points" in page
    assert "seed 1" in page and "simulated" not in page and "made by a test" in page
    (sentence,) = verdict(Scores.from_metrics(metrics))[:1]
    assert sentence.replace("+-", "±") in page and f"{metrics['ridge/P@10']:.4f}" in page


def test_a_simulated_run_without_confidence(finished, tmp_path):
    copy = shutil.copytree(finished, tmp_path / "run")
    (copy / "calibration.json").unlink()
    metrics = json.loads((copy / "metrics.json").read_text())
    (copy / "metrics.json").write_text(json.dumps(metrics | {"simulated": True}))
    export_lib.export_run(copy, tmp_path / "out")
    one_C = np.ones(7)
    found = load_lib.load(tmp_path / "out").recommend(np.zeros((1, 64, 7), np.uint8), one_C, one_C)
    assert [confidence for _, _, confidence in found] == [None] * len(found)
    assert "**The training data are simulated.**" in (tmp_path / "out" / "README.md").read_text()
    assert json.loads((tmp_path / "out" / "model.json").read_text())["seed"] == 0


def test_arguments_that_do_not_fit_are_errors(exported):
    model = load_lib.load(exported)
    codes_FMC, one_C = np.zeros((1, 64, 7), np.uint8), np.ones(7)
    for codes, how, words in (
        (np.zeros((17, 64, 7), np.uint8), {}, "at most"),
        (codes_FMC[:, :, :6], {}, "7 channels"),
        (codes_FMC.astype(np.float32), {}, "must be uint8"),
        (codes_FMC, {"top_k": 51}, "top_k must be"),
        (codes_FMC, {"age": -1}, "number of years"),
    ):
        with pytest.raises(ValueError, match=words):
            model.recommend(codes, one_C, one_C, **how)
    clip = codes_FMC[:0], one_C, one_C
    assert len(model.recommend(*clip, top_k=3)) == 3, "a clip without frames is ranked by its user"
    same = model.recommend(*clip, country="nowhere", gender="Unknown", history=["never used"])
    assert same == model.recommend(*clip)


def test_ages_fall_into_the_buckets_of_the_package(exported):
    buckets = json.loads((exported / "encodings.json").read_text())["ages"]
    begins = [(bucket["name"], bucket["from"]) for bucket in buckets]
    assert begins[:3] == [("<13", 0), ("13-17", 13), ("18-24", 18)] and begins[-1] == ("45+", 45)
    assert [bucket["id"] for bucket in buckets[:3]] == [0, 0, 1], "no user is younger than 20"


AWKWARD = "##＃﹟ \n&;:/.?()[]{},|_·・־״\"\\'“”"
AWKWARD += "🌊☀\u200b\u200d\ufe0f\u20e3\u3164\u2800\u0307aZ1éßカ한İﬁ～½"
texts = st.text(st.one_of(st.sampled_from(AWKWARD), st.characters()), max_size=40)
COUNTRIES = ("unknown", "US", "NAM", "atlantis", "new atlantis", "GB")
spelled = [*country_names(), "Atlantis", "NEW  Atlantis", "newatlantis", "🇺🇸", "NA", "n/a", "u.s."]


@settings(deadline=None)
@given(st.one_of(st.sampled_from(spelled), texts), st.sampled_from([1, 2]))
def test_the_loader_reads_attributes_as_the_package_does(text, rules):
    view = views.build(*views.random_world(15))
    genders = ("unknown", "female", "nonbinary")
    view = dataclasses.replace(view, rules=rules, genders=genders, countries=COUNTRIES)
    loaded = object.__new__(load_lib.Recommender)
    loaded._encodings = json.loads(json.dumps(export_lib.encodings(view)))
    expected = ProfileEncoder(view).encode([Profile.parse(text, "", text)])
    assert loaded._attribute("genders", text) == expected.gender_B[0]
    assert loaded._attribute("countries", text) == expected.country_B[0]


def flip(run):
    """Changes a byte of every checkpoint."""
    for path in run.glob("checkpoints/*.npz"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda run: shutil.rmtree(run), "must have config.json"),
        (lambda run: (run / "metrics.json").unlink(), "must have metrics.json"),
        (lambda run: (run / "metrics.json").write_text("{"), "must be as the run wrote it"),
        (lambda run: (run / "config.json").write_text("{"), "damaged"),
        (lambda run: (run / "config.json").write_text("{}"), "damaged"),
        (lambda run: (run / "view.npz").write_bytes(b"no"), "must match its checksum"),
        (lambda run: (run / "examples.npz").write_bytes(b"no"), "damaged"),
        (lambda run: shutil.rmtree(run / "checkpoints"), "must have checkpoints"),
        (flip, "damaged ones"),
    ],
)
def test_a_run_that_is_missing_or_damaged_is_a_sentence(finished, tmp_path, damage, words):
    copy = shutil.copytree(finished, tmp_path / "run")
    damage(copy)
    with pytest.raises(UserError, match=words):
        export_lib.export_run(copy, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_mistake_at_the_command_line_is_one_sentence(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        cli.print_report(lambda: export_lib.export_run(tmp_path, tmp_path / "out"))
    out, err = capsys.readouterr()
    assert end.value.code == 2 and not out
    assert err.count("\n") == 1 and "must have config.json" in err
    with pytest.raises(UserError, match="--run must be a local folder or file, got 'gs://b/r'"):
        cli.on_disk("run", "gs://b/r")


def test_other_files_are_not_replaced_and_the_seed_must_exist(finished, exported, tmp_path):
    with pytest.raises(UserError, match="0 to 1, got 2"):
        export_lib.export_run(finished, tmp_path / "out", seed=2)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("keep")
    added = shutil.copytree(exported, tmp_path / "added")
    (added / "notes.txt").write_text("keep")
    for output in (mine, added, mine / "notes.txt"):
        with pytest.raises(UserError, match="holds something else"):
            export_lib.export_run(finished, output)
    assert (mine / "notes.txt").read_text() == (added / "notes.txt").read_text() == "keep"


def test_a_write_that_fails_leaves_the_old_folder(finished, exported, tmp_path):
    copy = shutil.copytree(exported, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    full = mock.patch.object(export_lib.os, "fsync", side_effect=OSError(28, "No space left"))
    with full, pytest.raises(OSError, match="No space"):
        export_lib.export_run(finished, copy)
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
