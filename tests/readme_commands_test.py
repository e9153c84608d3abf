"""Runs every command of the README and of the guides, as written, on less data.

EXTRA has the arguments that are appended to each command; a new command needs an entry.
`readme_test.py` checks the flags of all pages, also of the experiments, whose commands take hours.
"""

import bz2
import json
import pathlib
import re
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap

import clips
import pytest
import readme_test

from uhman_jax.config import Config, flatten

ROOT = pathlib.Path(__file__).parents[1]
SMOKE = runpy.run_path(str(ROOT / "configs" / "smoke.py"))["get_config"]()
SMALL = [
    f"--config.{path}={value}"
    for path, value in flatten(SMOKE).items()
    if value != flatten(Config())[path] and path != "name"
] + ["--config.train.num_seeds=1", "--config.preprocess.calibration_frames=4"]
OWN = (
    "--config.view.min_count=1 --config.train.num_epochs=1 --config.preprocess.max_frames=1 "
    "--config.preprocess.calibration_frames=4 --config.preprocess.weights=random"
).split()
FEATURES = ["--max_frames=1", "--calibration_frames=4"]
BEAM = ["--output=on_beam", "--direct_num_workers=1"]
# Arguments that reduce a command, by its module and one of its arguments.
EXTRA = {
    ("uhman_jax.main", "--config=configs/natural.py"): SMALL,
    ("uhman_jax.main", "--workdir=runs/mine"): OWN,
    ("uhman_jax.recommend", "--video=clip.mp4"): [],
    ("uhman_jax.recommend", "--explain=why.html"): [],
    ("uhman_jax.recommend", "--video=new.mp4"): [],
    ("uhman_jax.demo", "--run=runs/natural"): ["--port=0"],
    ("uhman_jax.demo", "--run=runs/mine"): ["--port=0"],
    ("uhman_jax.preprocess", "--output=features"): FEATURES,
    ("uhman_jax.preprocess", "--runner=DirectRunner"): FEATURES + BEAM,
    ("tools.import_ytdlp", "--folder=clips"): [],
    ("tools.import_yfcc100m", "--root=yfcc"): [],
    ("tools.inspect_run", "--run=runs/natural"): [],
    ("tools.export", "--run=runs/natural"): [],
    ("tools.launch.slurm", "encode"): [],
    ("tools.launch.slurm", "train"): [],
    ("tools.launch.tpu", "queue"): [],
    ("tools.launch.tpu", "resume"): [],
    ("experiments.paper", "--quick"): "--worlds=additive --parts=tables --num_epochs=1 "
    "--num_seeds=1 --recipes=paper".split(),  # which is not tuned
}


def commands():
    """Returns module and arguments of every command of the guides, each once, in order."""
    pages = [words for page, words in readme_test.COMMANDS if not page.startswith("experiments/")]
    return [(words[0], list(words[1:])) for words in dict.fromkeys(map(tuple, pages))]


def extra_of(module, rest):
    """Returns the arguments to append to a command, from the last matching entry."""
    fitting = [extra for (name, word), extra in EXTRA.items() if name == module and word in rest]
    assert fitting, f"{module} {' '.join(rest)}: add an entry to EXTRA"
    return fitting[-1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The working folder of a reader, with their own clips."""
    root = tmp_path_factory.mktemp("readme")
    shutil.copytree(ROOT / "configs", root / "configs")
    (root / "clips").mkdir()
    for number in range(8):
        images = [clips.gray(30 * number + 5 * t) for t in range(5)]
        clips.write_clip(root / "clips" / f"v{number}.mp4", images, [200 * t for t in range(5)])
        facts = {"id": f"v{number}", "uploader_id": f"user{number % 3}", "timestamp": number + 1}
        facts["description"] = "made up #test " + ("#light" if number > 3 else "#dark")
        (root / "clips" / f"v{number}.info.json").write_text(json.dumps(facts))
    users = ["user0,female,21,US,#light", "user1,male,,PT,", "user2,,30,,"]
    rows = "\n".join(["user_id,gender,age,country,history", *users])
    (root / "clips" / "users.csv").write_text(rows)
    shutil.copy(root / "clips" / "v1.mp4", root / "new.mp4")
    shutil.copy(root / "clips" / "v2.mp4", root / "clip.mp4")
    columns = ["1", "9@N0", "Al", "2008-01-10 10:00:00.0", "1200000000", "Canon", "title", "words"]
    columns += ["sun,sea", "", "", "", "16", "http://photos/1", "http://videos/1"]
    columns += ["Attribution License", "http://licences/by", "8", "7", "5ec", "0r1", "jpg", "1"]
    (root / "yfcc100m_dataset-0.bz2").write_bytes(bz2.compress("\t".join(columns).encode() + b"\n"))
    return root


@pytest.mark.slow
def test_every_command_runs(folder):
    outputs = {}
    for module, rest in commands():
        extra = extra_of(module, rest)
        if "--" in rest:  # what follows belongs to another command
            extra = []
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        command = [sys.executable, "-m", module, *rest, *extra]
        process = subprocess.Popen(command, cwd=folder, **pipes)
        if module == "uhman_jax.demo":
            outputs[module, *rest] = use_the_page(process, folder)
            continue
        output, errors = process.communicate()
        assert process.returncode == 0, (module, rest, output, errors)
        outputs[module, *rest] = output

    texts = {" ".join(words): text for words, text in outputs.items()}
    assert len(texts) == len(EXTRA), "an entry of EXTRA has no command any more"
    for command, text in texts.items():
        if ".recommend " in command:
            assert re.search(r"^ +1  #\w+", text, re.M), command
        if "--dry_run" in command:
            assert re.search("sbatch|gcloud", text), command
    files = "runs/natural/report.html runs/mine/report.html clips/dropped.csv why.html "
    files += "runs/natural/inspect.html exported/load.py yfcc/download.txt "
    files += "runs/paper-quick/study.html"
    assert not [path for path in files.split() if not (folder / path).is_file()]
    shards = {path.name: path.read_bytes() for path in (folder / "features").glob("*.tfrecord*")}
    on_beam = {path.name: path.read_bytes() for path in (folder / "on_beam").glob("*.tfrecord*")}
    assert shards and shards == on_beam
    run_the_python(folder)


def use_the_page(process, folder):
    """Waits for the address of the page, runs the curl lines of the guide, and ends the server."""
    output = ""
    try:
        while not (found := re.search(r"Open (http://\S+)", output)):
            line = process.stdout.readline()
            assert line, process.stderr.read()
            output += line
        if shutil.which("curl"):
            output += ask_with_curl(found[1].rstrip("/"), folder)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 0
    return output


def ask_with_curl(address, folder):
    """Runs the three curl lines of the guide, each with the answer to the one before."""
    page = (ROOT / "uhman_jax" / "demo" / "README.md").read_text()
    lines = re.findall(r"^    (curl .*)$", page, re.M)
    assert len(lines) == 3
    answers = []
    for line in lines:
        line = line.replace("http://127.0.0.1:7860", address)
        if answers:
            found = json.loads(answers[-1])
            line = line.replace("PATH", found[0]) if isinstance(found, list) else line
            line = line[:-2] + found["event_id"] if isinstance(found, dict) else line
        words = ["curl", "-sS", "--max-time", "60", *shlex.split(line)[1:]]
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, (line, done.stderr)
        answers.append(done.stdout)
    assert "event: complete" in answers[-1], answers
    return answers[-1]


def run_the_python(folder):
    """Runs the Python lines of the README and prints their result."""
    text = (ROOT / "README.md").read_text()
    begin = text.index("    from uhman_jax.recommend import")
    code = textwrap.dedent(text[begin : text.index("\n\nMore:", begin)])
    code = code.replace("recommender.recommend(", "print(recommender.recommend(") + ")"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count("Suggestion(") == 5, done.stderr
