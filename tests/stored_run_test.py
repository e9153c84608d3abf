"""A run and its features that commit be6e33a made still open, and go on under their own rules.

`fixtures/stored_run.tar.xz` holds 24 clips of one colour, tables with spellings that later rules
read in another way, features made by the small network, a run of three epochs, and four answers of
`recommend`. Its config names its folders relative to the one that holds them.
"""

import json
import pathlib
import shutil
import sys
import tarfile

import numpy as np
import pytest
import small_network

from uhman_jax import run
from uhman_jax.dataset.raw import read_raw_dataset
from uhman_jax.dataset.rules import CURRENT
from uhman_jax.dataset.view import View
from uhman_jax.preprocess import feature_client, find_videos, pipeline
from uhman_jax.recommend import Profile, Recommender
from uhman_jax.runtime import storage
from uhman_jax.runtime.errors import UserError

ARCHIVE = pathlib.Path(__file__).parent / "fixtures" / "stored_run.tar.xz"
SERVER = (sys.executable, small_network.__file__, "serve")


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """The folder of the stored run, which is also the working folder."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(feature_client, "COMMAND", SERVER)
    return tmp_path


def silent(line):
    """Takes a line for a person."""


def test_the_same_data_give_the_view_that_was_stored(stored):
    old = View.load("run/view.npz")
    assert old.rules == 1 and old.spellings == old.hashtags
    assert {"dark,", "bright;"} < set(old.hashtags)  # as tables were read then
    lines = []
    assert run.run(run.read_config(stored / "run")[0], "run", log=lines.append, report=True)
    assert any("finished earlier" in line for line in lines)
    assert (stored / "run" / "report.html").exists()


def test_its_config_means_what_it_meant(stored):
    config, _ = run.read_config(stored / "run")
    assert config.data.duplicates.value == "keep"


def test_evaluated_again_it_gets_the_same_figures(stored):
    before = json.loads((stored / "run" / "metrics.json").read_text("utf-8"))
    config, _ = run.read_config(stored / "run")
    assert run.run(config, "run", mode="evaluate", log=silent, report=False)
    after = json.loads((stored / "run" / "metrics.json").read_text("utf-8"))
    assert set(before) <= set(after)
    for key, value in before.items():
        if isinstance(value, float):
            assert after[key] == pytest.approx(value, rel=1e-5), key
    assert after["data"] == before["data"]


def test_a_training_that_was_cut_short_goes_on(stored):
    (stored / "run" / "metrics.json").unlink()
    shutil.rmtree(stored / "run" / "checkpoints" / "6")
    config, _ = run.read_config(stored / "run")
    lines = []
    assert run.run(config, "run", log=lines.append, report=False)
    metrics = json.loads((stored / "run" / "metrics.json").read_text("utf-8"))
    assert metrics["step"] == metrics["num_steps"] == 6


def test_started_with_todays_defaults_it_goes_on_with_its_own_meaning(stored):
    from uhman_jax.config import Config

    config, _ = run.read_config(stored / "run")
    config.data.duplicates = Config().data.duplicates
    assert run.run(config, "run", log=silent, report=False)
    config.data.duplicates = type(config.data.duplicates).DROP
    with pytest.raises(UserError, match="data.duplicates"):
        run.run(config, "run", log=silent, report=False)


def test_it_recommends_as_it_did(stored):
    answers = json.loads((stored / "answers.json").read_text("utf-8"))
    with Recommender.load("run") as recommender:
        for text, expected in answers.items():
            gender, country, history = text.split("|")
            profile = Profile.parse(gender=gender, country=country, history=history, age=20)
            got = recommender.recommend("clips/c00.mp4", profile, top_k=5)
            assert [name for name, *_ in got] == [name for name, *_ in expected], text
            np.testing.assert_allclose(
                [values[1:] for values in got], [row[1:] for row in expected], rtol=1e-3
            )


def test_its_features_are_found_complete_and_take_further_clips(stored):
    config, _ = run.read_config(stored / "run")
    raw = read_raw_dataset("clips", strict=False, rules=1)
    files = [(video.video_id, video.path) for video in raw.videos]
    (folder,) = (stored / "clips" / "features").iterdir()
    assert pipeline.is_complete(folder, files, config.preprocess, "clips")
    assert pipeline.features_dir("clips", config.preprocess) == storage.path(
        f"clips/features/{folder.name}"
    )
    before = {path.name: path.read_bytes() for path in folder.glob("*.tfrecord-*")}
    summary = pipeline.preprocess(
        "clips",
        files,
        folder,
        config.preprocess,
        network=small_network.SmallNetwork,
        progress=False,
    )
    assert summary.reused == len(files)
    assert before == {path.name: path.read_bytes() for path in folder.glob("*.tfrecord-*")}


def test_a_new_run_on_the_same_tables_reads_them_by_todays_rules(stored):
    shutil.rmtree(stored / "clips" / "features")
    raw = read_raw_dataset("clips", strict=False)
    assert raw.rules == CURRENT
    assert {name for video in raw.videos for name in video.hashtags} == {
        "dark", "night", "fun", "istanbul", "bright", "strasse",
    }  # fmt: skip
    assert len(raw.videos) == 24 and len(raw.users) == 12  # odd ages and times cost no row
    assert {user.gender for user in raw.users.values()} == {"female", "male", ""}
    assert len(find_videos.list_inputs(stored / "clips")) == 24


def test_it_is_inspected_and_exported(stored):
    from tools.export.folder import export_run
    from tools.inspect_run.study import inspect_run

    inspect_run(stored / "run", None, seed=None, top_k=3, max_clips=50)
    found = json.loads((stored / "run" / "inspect.json").read_text("utf-8"))
    assert set(found["nearest"]) <= set(View.load("run/view.npz").hashtags)
    export_run(stored / "run", stored / "exported", None, "test")
    names = json.loads((stored / "exported" / "hashtags.json").read_text("utf-8"))
    assert tuple(names) == View.load("run/view.npz").hashtags
