"""The command line: messages, exit status, and a second start, which reuses results."""

import json
import pathlib
import subprocess
import sys
import time

import pytest
import tiny_world

from uhman_jax import main as main_lib
from uhman_jax import run
from uhman_jax.config import Distribution, Estimator
from uhman_jax.runtime import signals

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def config_file(root, tmp_path_factory):
    return tiny_world.write_config(tmp_path_factory.mktemp("main") / "tiny.py", root)


# Flags


def test_help_names_the_command_and_the_flags(capsys):
    assert main_lib.main(["--help"]) == 0
    output = capsys.readouterr().out
    for word in ("--config", "--workdir", "--mode", "train_and_evaluate|evaluate", "75"):
        assert word in output


def test_overrides_reach_the_config():
    flags = (
        "--config=configs/natural.py --config.train.learning_rate=0.05 --workdir=there "
        "--config.loss.estimator=sampled --config.view.distribution=balanced --mode=evaluate "
        "--config.train.decay_at=0.5,0.75 --noconfig.model.unit_length --config.train.num_seeds 3"
    )
    arguments = main_lib.parse(flags.split())
    config = arguments.config
    assert config.train.learning_rate == 0.05 and config.train.num_seeds == 3
    assert config.loss.estimator is Estimator.SAMPLED
    assert config.view.distribution is Distribution.BALANCED
    assert config.train.decay_at == (0.5, 0.75) and config.model.unit_length is False
    assert str(arguments.workdir) == "there" and arguments.mode == "evaluate"


def test_the_run_directory_is_named_after_the_config():
    arguments = main_lib.parse(["--config=configs/natural.py"])
    assert arguments.workdir == pathlib.Path("runs/natural")
    assert arguments.mode == "train_and_evaluate"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "--config must name a file, got none; there are "),
        (["--config=configs/none.py"], "--config must name a file, got 'configs/none.py'"),
        (["--config=configs"], "--config must name a file, got 'configs'"),
        (["--config.loss.estimatr=sampled"], "did you mean --config.loss.estimator?"),
        (["--noconfig.model.unit_lenght"], "did you mean --config.model.unit_length?"),
        (["--config.loss=1"], "no setting is called 'loss'; did you mean --config.loss."),
        (["--config.loss.estimator=sampld"], "must be one of sampled exact, got 'sampld'; write e"),
        (
            ["--config.train.batch_size=many"],
            "must be a whole number, got 'many'; write e.g. --con",
        ),
        (["--config.train.batch_size=2.5"], "must be a whole number, got '2.5'"),
        (["--config.model.unit_length=maybe"], "must be true or false, got 'maybe'"),
        (["--config.train.decay_at=early"], "train.decay_at must be a tuple of numbers"),
        (["--config.train.batch_size=0"], "train.batch_size must be in [1, inf), got 0"),
        (["--config.train.batch_size"], "Missing value for flag --config.train.batch_size"),
        (["--mode=test"], "value should be one of <train_and_evaluate|evaluate>"),
        (["--wrkdir=x"], "Unknown command line flag 'wrkdir'. Did you mean: workdir"),
        (["train"], "settings are given as --flag=value, got 'train'"),
    ],
)
def test_a_wrong_command_line_is_one_sentence_and_status_2(argv, message, refused, monkeypatch):
    monkeypatch.setattr(run, "run", lambda *arguments: pytest.fail("the run began"))
    if argv and not any(arg.startswith("--config=") for arg in argv):
        argv = ["--config=configs/natural.py", *argv]
    assert message in refused(*argv)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def get_config(: pass", "SyntaxError"),
        ("x = 1", "get_config"),
        ("import no_such_module", "No module named 'no_such_module'"),
        ("def get_config(): return {'a': 1}", "must return a uhman_jax.config.Config, got dict"),
    ],
)
def test_a_broken_config_file_is_a_sentence(tmp_path, code, message, refused):
    path = tmp_path / "broken.py"
    path.write_text(code)
    assert message in refused(f"--config={path}")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--mesh=3x1"], "--mesh must multiply to the number of devices, 1, got 3x1; use e.g. 1x1"),
        (["--mesh=1x1", "--config.train.features=device"], "needs a run on one device, got a mesh"),
        (["--workdir={file}"], "--workdir must be a folder that can be written, got {file}: "),
        (["--workdir={file}/run"], "--workdir must be a folder that can be written, got {file}/ru"),
        (["--workdir=/proc/run"], "--workdir must be a folder that can be written, got /proc/run"),
        (["--workdir={long}"], "--workdir must be a folder that can be written, got "),
        (["--config.data.simulated_dir={file}"], "--config.data.simulated_dir must be a folder"),
        (["--config.data.simulated_dir=/proc/d"], "--config.data.simulated_dir must be a folder"),
        (["--config.preprocess.output_dir={file}"], "--config.preprocess.output_dir must be a fol"),
        (["--config.preprocess.weights={file}.h5"], "weights must be random, imagenet or a Keras"),
        (["--config.preprocess.output_dir=s3://b/x"], "a path must be local or begin with gs://"),
        (["--workdir=s3://b/x"], "a path must be local or begin with gs://"),
        (["--mode=evaluate"], "--mode=evaluate needs a trained run, got no checkpoint in"),
    ],
)
def test_flags_are_checked_before_any_work(argv, message, tmp_path, monkeypatch, refused):
    monkeypatch.setattr(run, "prepare", lambda *arguments: pytest.fail("the work began"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    names = {"file": tmp_path / "file", "long": "x" * 300}
    flags = [text.format(**names) for text in argv]
    error = refused(f"--config={ROOT / 'configs' / 'smoke.py'}", *flags)
    assert message.format(**names) in error
    assert [path.name for path in tmp_path.iterdir()] == ["file"], "no file was created"


def test_a_config_of_another_folder_may_import_its_neighbours(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(ROOT))])
    monkeypatch.delitem(sys.modules, "configs", raising=False)
    arguments = main_lib.parse([f"--config={ROOT / 'configs' / 'ua.py'}"])
    assert arguments.config.name == "ua" and str(ROOT) not in sys.path


def test_an_installation_without_its_source_names_the_source(tmp_path, monkeypatch, refused):
    monkeypatch.setattr(main_lib, "__file__", str(tmp_path / "site" / "uhman_jax" / "main.py"))
    monkeypatch.chdir(tmp_path)
    message = "configs of the project are in its source, which is not installed"
    assert message in refused("--config=configs/natural.py")


# A run


def test_a_run_is_made_once_and_reused(config_file, tmp_path, capsys):
    flags = [f"--config={config_file}", f"--workdir={tmp_path}"]
    assert main_lib.main(flags) == 0
    output, errors = capsys.readouterr()
    for word in ("P@1", "P@50", "R@10", "F1@10", "NDCG@10", "MRR", "MAP", "kP/R", "popularity"):
        assert word in output
    assert "UHMAN" in output and f"Report: {tmp_path / 'report.html'}" in output
    assert "step/s" in errors or "it/s" in errors
    assert {path.name for path in tmp_path.iterdir()} == {
        *(".lock", "config.json", "view.npz", "metrics.jsonl", "metrics.json", "checkpoints"),
        *("predictions.parquet", "calibration.json", "examples.npz", "report.html"),
    }
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["name"] == "tiny" and config["run"]["versions"]["jax"]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("[!.]*")}
    table = output.split("\n\n")[1]

    started = time.monotonic()
    assert main_lib.main(flags) == 0
    again = capsys.readouterr().out
    assert "reused" in again and again.split("\n\n")[1] == table
    assert time.monotonic() - started < 20
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("[!.]*")} == before

    (tmp_path / "report.html").unlink()
    assert main_lib.main([*flags, "--mode=evaluate"]) == 0
    assert capsys.readouterr().out.split("\n\n")[1] == table
    assert (tmp_path / "report.html").exists()


@pytest.mark.slow
def test_a_finished_run_imports_neither_jax_nor_tensorflow(config_file, tmp_path):
    flags = [f"--config={config_file}", f"--workdir={tmp_path}", "--config.train.num_epochs=1"]
    assert main_lib.main(flags) == 0
    code = (
        "import sys; from uhman_jax import main; status = main.main(sys.argv[1:]); "
        "assert not {'jax', 'tensorflow', 'keras'} & set(sys.modules); sys.exit(status)"
    )
    subprocess.run([sys.executable, "-c", code, *flags], cwd=ROOT, check=True)


@pytest.mark.parametrize(
    "damage", ["{", "[]", '{"nme": 1}', '{"loss": 3}', '{"train": {"decay_at": 1}}']
)
def test_a_damaged_config_of_a_run_is_a_sentence(config_file, tmp_path, damage, refused):
    (tmp_path / "config.json").write_text(damage)
    error = refused(f"--config={config_file}", f"--workdir={tmp_path}")
    assert str(tmp_path / "config.json") in error and "damaged" in error


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.num_epochs=1000000000000", "a run must have at most 2147483647 steps, got "),
        ("train.batch_size=1000000000000", "the settings must fit the memory, got "),
        ("model.hidden_size=2000000", "the settings must fit the memory, got "),
        ("data.root=/nowhere", "/nowhere"),
    ],
)
def test_a_wrong_setting_is_a_sentence(config_file, tmp_path, setting, message, refused):
    error = refused(f"--config={config_file}", f"--workdir={tmp_path}", f"--config.{setting}")
    assert message in error


def test_changed_data_are_noticed(config_file, tmp_path, refused, monkeypatch):
    monkeypatch.setattr(run, "_train_and_evaluate", lambda *arguments: None)  # as if stopped
    videos = tiny_world.write_dataset(tmp_path / "data") / "videos.csv"
    flags = [f"--config={config_file}", f"--workdir={tmp_path / 'run'}"]
    flags += [f"--config.data.root={tmp_path / 'data'}"]
    assert main_lib.main(flags) == main_lib.main(flags) == signals.STOPPED
    lines = videos.read_text().splitlines(keepends=True)
    videos.write_text("".join(lines[:-20]))
    assert "the data must stay as they were when the run began" in refused(*flags)
