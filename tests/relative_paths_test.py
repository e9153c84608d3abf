"""A run finds its features from any folder that a command is started in."""

import json
import pathlib
import shutil

import pytest
import tiny_world

from tools.export.folder import export_run
from uhman_jax import main as main_lib
from uhman_jax.relative_paths import located
from uhman_jax.run import read_config
from uhman_jax.runtime.errors import UserError
from uhman_jax.trained_run import open_run

ROOT = pathlib.Path(__file__).parents[1]
CONFIG = """
import sys
sys.path.insert(0, {tests!r})
import tiny_world
def get_config():
    return tiny_world.make_config("data", num_epochs=1)
"""


def begin(folder):
    """Flags of a run whose paths are relative to a folder, with its dataset there."""
    tiny_world.write_dataset(folder / "data")
    (folder / "tiny.py").write_text(CONFIG.format(tests=str(ROOT / "tests" / "fixtures")))
    return [f"--config={folder / 'tiny.py'}", f"--workdir={folder / 'runs' / 'x'}"]


@pytest.fixture(scope="module")
def began(tmp_path_factory):
    """A folder with a finished run in runs/x."""
    folder = tmp_path_factory.mktemp("began")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main_lib.main(begin(folder)) == 0
    return folder


def test_features_are_found_from_another_folder(began, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = open_run(began / "runs" / "x")
    assert run.config.data.root == "data", "as it was written"
    assert run.facts["folder"] == str(began)
    assert run.features().directory == began / "data" / "features" / "simulated"
    monkeypatch.chdir(began / "runs")
    assert len(open_run(pathlib.Path("x")).features())


def test_the_same_command_goes_on_from_another_folder(began, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = [f"--config={began / 'tiny.py'}", f"--workdir={began / 'runs' / 'x'}"]
    assert main_lib.main(flags) == 0 and "finished earlier" in capsys.readouterr().out
    (began / "runs" / "x" / "report.html").unlink()
    assert main_lib.main([*flags, "--mode=evaluate"]) == 0
    assert (began / "runs" / "x" / "report.html").exists()
    absolute = f"--config.data.root={began / 'data'}"
    assert main_lib.main([*flags, absolute]) == 0, "the same folder in other words"
    capsys.readouterr()
    assert main_lib.main([*flags, f"--config.data.root={tmp_path}"]) == 2
    assert "these differ: data.root: data before, " in capsys.readouterr().err
    assert not list(tmp_path.iterdir()), "nothing was made in the working folder"


@pytest.mark.slow  # trains a second run
def test_the_settings_do_not_depend_on_the_folder(began, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main_lib.main(begin(tmp_path)) == 0
    one, other = (folder / "runs" / "x" for folder in (began, tmp_path))
    assert read_config(one)[0] == read_config(other)[0]
    assert json.loads((one / "metrics.json").read_text()) == json.loads(
        (other / "metrics.json").read_text()
    )


def copy_run(began, target, folder):
    """Copies a folder with a run that began in `folder`; returns the copied run."""
    path = shutil.copytree(began, target) / "runs" / "x" / "config.json"
    values = json.loads(path.read_text())
    values["run"]["folder"] = folder
    path.write_text(json.dumps(values))
    return path.parent


def test_runs_without_the_folder_where_they_began(began, tmp_path, monkeypatch):
    """Checks an early version's run: the working folder comes first, then the run's parents."""
    copy = copy_run(began, tmp_path / "copy", "")
    monkeypatch.chdir(tmp_path)
    run = open_run(copy)
    assert run.features().directory == tmp_path / "copy/data/features/simulated"
    monkeypatch.chdir(began)
    assert run.features().directory == began / "data/features/simulated"


def test_a_project_that_was_moved_with_its_run(began, tmp_path, monkeypatch):
    run = copy_run(began, tmp_path / "moved", str(tmp_path / "no longer there"))
    assert open_run(run).features().directory.is_relative_to(tmp_path / "moved")
    shutil.rmtree(tmp_path / "moved" / "data")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="must be where they were, in .*no longer there/data"):
        open_run(run).features()


def test_a_new_run_takes_no_dataset_from_around_its_directory(began, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = tiny_world.make_config("data")
    assert located(config, {}, began / "runs" / "new").data.root == str(tmp_path / "data")


def test_a_tool_finds_them_too(began, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    export_run(began / "runs" / "x", tmp_path / "exported", queries="test")
    assert list((tmp_path / "exported").glob("queries*"))
