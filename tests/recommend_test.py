import concurrent.futures
import csv
import io
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import small_run
import tiny_world

from uhman_jax.config import Config
from uhman_jax.input_pipeline import eval_batches
from uhman_jax.preprocess import feature_client
from uhman_jax.preprocess.find_videos import clips_of
from uhman_jax.recommend import Profile, Recommender
from uhman_jax.recommend.start import start_extractor
from uhman_jax.runtime import streams
from uhman_jax.runtime.errors import UserError
from uhman_jax.trained_run import open_run

CODE = small_run.code("uhman_jax.recommend")
ENVIRONMENT = os.environ | {"PYTHONPATH": str(pathlib.Path(__file__).parents[1])}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("clips")
    small_run.make(root)
    return root


@pytest.fixture(scope="module")
def recommender(trained):
    with small_run.recommender(trained) as loaded:
        yield loaded


def extractor(trained, monkeypatch, first=(), command=small_run.COMMAND):
    monkeypatch.setattr(feature_client, "COMMAND", command)
    return start_extractor(trained / "run", first=first)


def command(trained, *arguments, **environment):
    """Runs the command line with the process of the small network."""
    script = [sys.executable, "-c", CODE, f"--run={trained / 'run'}", *map(os.fspath, arguments)]
    environment = ENVIRONMENT | environment
    return subprocess.run(script, capture_output=True, text=True, env=environment)


def test_suggestions_are_those_of_the_evaluation(trained, recommender):
    opened = open_run(trained / "run")
    view, store = opened.view, opened.features()
    rows = np.flatnonzero(view.split_V == 2)[:5]
    (batch,) = eval_batches(view, store, rows=rows, batch_size=len(rows))
    model, variables = opened.model(0)
    query_BD = model.apply(variables, batch.video, batch.user, method="query")
    scores_BT = np.asarray(query_BD @ model.apply(variables, method="hashtags").T)
    for b, row in enumerate(rows):
        user = Profile(
            view.genders[view.gender_V[row]],
            int(view.user_ids[row][1:]) + 20,
            history=tuple(view.hashtags[t] for t in view.history.row(row)),
        )
        found = recommender.recommend(trained / f"{view.video_ids[row]}.mp4", user, top_k=2)
        order = np.argsort(-scores_BT[b])[:2]
        assert [suggestion.hashtag for suggestion in found] == [view.hashtags[t] for t in order]
        scores = [suggestion.score for suggestion in found]
        np.testing.assert_allclose(scores, scores_BT[b][order], rtol=1e-5, atol=1e-5)


def test_the_profile_and_the_clip_decide(trained, recommender):
    dark, bright = (_clip_with(trained, recommender.view, word) for word in ("dark", "bright"))
    assert recommender.recommend(dark, Profile("m"), 1)[0].hashtag == "dark"
    assert recommender.recommend(bright, Profile("m"), 1)[0].hashtag == "bright"
    women, men = (
        [s.hashtag for s in recommender.recommend(bright, Profile(gender), 3)] for gender in "fm"
    )
    assert women == ["w", "bright", "dark"] and men == ["bright", "dark", "w"]


def _clip_with(trained, view, word):
    """Returns the first clip with a hashtag."""
    t = view.hashtags.index(word)
    row = next(v for v in range(small_run.NUM_CLIPS) if t in view.positives.row(v))
    return trained / f"{view.video_ids[row]}.mp4"


def test_excluded_and_unlikely_hashtags_are_left_out(trained, recommender):
    record = recommender.features(trained / "c00.mp4")
    (everything,) = recommender.suggest(record, [Profile()], top_k=3)
    names, confidences = [s.hashtag for s in everything], [s.confidence for s in everything]
    assert len(names) == 3 and 1 > confidences[0] >= confidences[1] >= confidences[2] > 0
    (likely,) = recommender.suggest(record, [Profile()], top_k=3, min_confidence=confidences[1])
    assert likely == [s for s in everything if s.confidence >= confidences[1]]
    assert recommender.suggest(record, [Profile()], min_confidence=1.0) == [[]]
    (left,) = recommender.suggest(record, [Profile()], exclude=[f"#{names[0].upper()}"])
    assert [s.hashtag for s in left] == names[1:]
    for listed in ([",".join(names[:2])], str(names[:2]), (f"#{names[0]}", f"“{names[1]}”")):
        (left,) = recommender.suggest(record, [Profile()], top_k=3, exclude=listed)
        assert [s.hashtag for s in left] == names[2:]
    (answer,) = recommender.recommend_many([trained / "c00.mp4"], exclude=f"#{names[0]}")
    assert names[0] not in [s.hashtag for s in answer.suggestions]
    with pytest.raises(UserError, match="exclude must list hashtags of letters.*, got 'C\\+\\+';"):
        recommender.suggest(record, [Profile()], exclude=["#sea C++"])


def test_a_broken_clip_affects_no_other(trained, recommender, tmp_path):
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    paths = [trained / "c00.mp4", bad, trained / "c01.mp4", tmp_path / "absent.mp4"]
    answers = {answer.index: answer for answer in recommender.recommend_many(paths, top_k=1)}
    assert sorted(answers) == [0, 1, 2, 3]
    assert [answers[i].readable for i in range(4)] == [True, False, True, False]
    assert answers[1].problem.startswith(("corrupt", "unsupported")) and not answers[1].suggestions
    assert answers[2].suggestions == recommender.recommend(paths[2], top_k=1)
    with pytest.raises(UserError, match="a clip must have a frame that can be read, got .*bad.mp4"):
        recommender.recommend(bad)


def test_an_iterator_can_be_closed_early(trained, recommender):
    many = recommender.recommend_many([trained / f"c{v:02}.mp4" for v in range(6)], top_k=1)
    first = next(many)
    many.close()
    again = recommender.recommend(trained / f"c{first.index:02}.mp4", top_k=1)
    assert again == first.suggestions


def test_a_killed_extractor_is_one_sentence_and_starts_again(trained, recommender):
    before = recommender.recommend(trained / "c00.mp4", top_k=1)
    recommender._clips._process.kill()
    with pytest.raises(UserError, match="ended with status -9"):
        recommender.recommend(trained / "c00.mp4", top_k=1)
    assert recommender.recommend(trained / "c00.mp4", top_k=1) == before


def test_the_process_starts_with_the_first_clips(trained, recommender, monkeypatch):
    clips = clips_of([str(trained)])[:3]
    expected = [recommender.features(clip) for clip in clips]
    for first, asked in ((clips[:2], clips[:2]), (clips[:2], clips[2:3]), (clips[2:3], [])):
        with extractor(trained, monkeypatch, first) as started:
            for _ in range(2):
                found = list(started.encode(asked))
                assert [clip.index for clip in found] == list(range(len(asked)))
                for path, clip in zip(asked, found, strict=True):
                    np.testing.assert_array_equal(
                        clip.record.codes_FMC, expected[clips.index(path)].codes_FMC
                    )


def test_closing_does_not_wait_for_the_process(trained, tmp_path, monkeypatch):
    done = tmp_path / "done"
    busy = f"import sys, time; sys.stdin.read(); time.sleep(1); open({str(done)!r}, 'w')"
    started = extractor(trained, monkeypatch, command=(sys.executable, "-c", busy))
    began = time.monotonic()
    started.close()
    assert time.monotonic() - began < 0.9 and not done.exists()
    while not done.exists():  # it saves its cache for the next process
        assert time.monotonic() - began < 60
        time.sleep(0.05)


def test_closing_ends_work_without_a_reader(trained, monkeypatch, capfd):
    started = extractor(trained, monkeypatch, first=clips_of([str(trained)]))
    process = started._process
    started.close()
    assert process.returncode == -signal.SIGKILL and not capfd.readouterr().err


def test_an_extractor_ends_silently_if_its_reader_has_gone(trained, recommender):
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(recommender._clips._arguments, env=ENVIRONMENT, **pipes) as process:
        process.stdout.close()
        process.stdin.write((json.dumps({"paths": clips_of([str(trained)])}) + "\n").encode())
        process.stdin.flush()
        assert process.wait(60) == 1 and not process.stderr.read()


# Names that are not text

NAMES = [b"caf\xe9.mp4", b"two\nlines.mp4", b"\x1b[31mred.mp4", b"\xff.mp4", "日本.mp4".encode()]


@pytest.fixture(scope="module")
def named(trained, tmp_path_factory):
    """A folder of clips whose names are not UTF-8, or have a line break or an escape sequence."""
    folder = tmp_path_factory.mktemp("named")
    for name in NAMES:
        try:
            os.link(trained / "c00.mp4", os.fsencode(folder) + b"/" + name)
        except OSError:
            pytest.skip("this file system takes no such names")
    return folder


def test_clips_of_any_name_are_answered_or_named(trained, named):
    """With --json the name is exact."""
    outputs = {}
    for form in ("--json", "--nojson", "--csv"):
        done = command(trained, f"--video={named}", "--top_k=1", form)
        assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
        outputs[form] = done
    answers = [json.loads(line) for line in outputs["--json"].stdout.splitlines()]
    found = {os.path.basename(os.fsencode(answer["video"])) for answer in answers}
    assert found == set(NAMES)
    assert all(answer["suggestions"] or answer["problem"] for answer in answers)
    for name in (b"two\nlines.mp4", "日本.mp4".encode()):
        (answer,) = [a for a in answers if os.fsencode(a["video"]).endswith(name)]
        assert answer["suggestions"]

    done = outputs["--nojson"]
    assert "\x1b" not in done.stdout + done.stderr and "\nlines" not in done.stdout
    assert r"two\nlines.mp4 (nothing known)" in done.stdout


@pytest.mark.parametrize("suffix", [".html", ".png"])
def test_a_clip_of_any_name_is_explained(trained, recommender, tmp_path, suffix):
    from uhman_jax.recommend.explain import explain

    clip = os.fsdecode(os.fsencode(tmp_path) + b"/two\n$lines\xe9.mp4")
    os.link(trained / "c00.mp4", clip)
    output = tmp_path / f"why{suffix}"
    profile = Profile.parse(gender="\udce9", history="#sea")
    (side,) = explain(recommender, clip, [profile], output, top_k=1)
    assert side.suggestions and output.stat().st_size
    if suffix == ".html":
        assert r"two\n$lines\udce9.mp4" in output.read_text("utf-8")


@pytest.mark.parametrize(
    ("locale", "name", "message"),
    [
        ({"LC_ALL": "C", "PYTHONUTF8": "0"}, "é".encode(), "the locale must be UTF-8 for the name"),
        ({"LC_ALL": "C.UTF-8"}, b"\xe9", "--run must be a name in UTF-8, got .*; rename it"),
    ],
)
def test_a_run_whose_name_libraries_cannot_read_is_not_called_damaged(
    trained, tmp_path, locale, name, message
):
    path = os.fsencode(tmp_path) + b"/" + name
    os.symlink(trained / "run", path)
    done = command(trained, f"--video={trained / 'c00.mp4'}", b"--run=" + path, **locale)
    assert done.returncode == 2 and re.search(message, done.stderr), done.stderr
    assert "damaged" not in done.stderr and done.stderr.count("\n") == 1


# Consumers that stop reading


def promptly(call, seconds=2.0):
    """Runs a call that must end within some seconds; a hang fails only this test."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), "it still waits"


def paths_of(trained, count=6):
    return [str(trained / f"c{v:02}.mp4") for v in range(count)]


def test_closing_does_not_wait_for_a_half_consumed_iterator(trained, monkeypatch):
    with extractor(trained, monkeypatch) as clips:
        answers = clips.encode(paths_of(trained))
        first = next(answers)
        assert first.state == "ok"
        process = clips._process
        promptly(clips.close)
        assert process.returncode == -signal.SIGKILL
        with pytest.raises(UserError, match="until the extractor is closed; load the run again"):
            next(answers)
        with pytest.raises(UserError, match="until the extractor is closed"):
            list(clips.encode(paths_of(trained)))


def test_an_iterator_that_was_never_started_does_not_block(trained, monkeypatch):
    clips = extractor(trained, monkeypatch)
    answers = clips.encode(paths_of(trained))
    promptly(clips.close)
    answers.close()


def test_closing_ends_a_thread_that_waits_for_an_answer(trained, monkeypatch):
    silent = "import sys; sys.stdin.readline(); import time; time.sleep(1000)"
    clips, errors = extractor(trained, monkeypatch, command=(sys.executable, "-c", silent)), []

    def ask():
        try:
            list(clips.encode(paths_of(trained)))
        except UserError as error:
            errors.append(str(error))

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    while not clips._lock.locked():
        time.sleep(0.01)
    promptly(clips.close)
    asking.join(5)
    assert errors and "until the extractor is closed" in errors[0]


def test_answers_of_two_iterators_at_once_are_those_of_one_after_another(trained, monkeypatch):
    paths = paths_of(trained)
    with extractor(trained, monkeypatch, first=paths) as clips:
        expected = [clip.record.codes_FMC for clip in clips.encode(paths)]
        one, other = clips.encode(paths), clips.encode(paths[::-1])
        found = {"one": {}, "other": {}}

        def take():
            for name, answers in (("one", one), ("other", other), ("one", one)):
                clip = next(answers)
                found[name][clip.index] = clip.record.codes_FMC
            found["other"] |= {clip.index: clip.record.codes_FMC for clip in other}
            found["one"] |= {clip.index: clip.record.codes_FMC for clip in one}

        promptly(take, 60)
    assert sorted(found["one"]) == sorted(found["other"]) == list(range(len(paths)))
    for index, codes_FMC in enumerate(expected):
        np.testing.assert_array_equal(found["one"][index], codes_FMC)
        np.testing.assert_array_equal(found["other"][len(paths) - 1 - index], codes_FMC)


def test_many_threads_ask_at_once(trained, recommender):
    paths, process = paths_of(trained), recommender._clips._process
    with concurrent.futures.ThreadPoolExecutor(len(paths)) as pool:
        found = list(pool.map(lambda path: recommender.recommend(path, top_k=1), paths, timeout=60))
    assert recommender._clips._process is process
    assert found[:2] == [recommender.recommend(path, top_k=1) for path in paths[:2]]


def test_an_abandoned_iterator_ends_its_work(trained, monkeypatch):
    with extractor(trained, monkeypatch) as clips:
        answers = clips.encode(paths_of(trained))
        next(answers)
        process = clips._process
        del answers  # its finaliser runs here
        assert process.returncode == -signal.SIGKILL
        with clips._lock:  # as where a collection starts in the middle of an answer
            answers = clips.encode(paths_of(trained))
            promptly(answers.close)


def piped(trained, *arguments, **options):
    """Starts the command line on a folder of three clips, with pipes for its output."""
    folder = trained / "three"
    folder.mkdir(exist_ok=True)
    for path in paths_of(trained, 3):
        if not (link := folder / pathlib.Path(path).name).exists():
            os.link(path, link)
    script = [sys.executable, "-c", CODE, f"--run={trained / 'run'}", f"--video={folder}"]
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": ENVIRONMENT}
    return subprocess.Popen([*script, *arguments], **(given | options))


@pytest.mark.parametrize(("lines", "output"), [(0, ("--json",)), (1, ()), (1, ("--csv",))])
def test_the_command_ends_silently_if_its_reader_goes(trained, lines, output):
    """As in `recommend | head -1` and `recommend | true`; an answer takes a second."""
    slow = ENVIRONMENT | {"SMALL_NETWORK_SECONDS": "1"}
    with piped(trained, "--top_k=1", *output, env=slow) as process:
        for _ in range(lines):
            assert process.stdout.readline()
        process.stdout.close()
        begun = time.monotonic()
        assert process.wait(60) == streams.READER_GONE
        assert time.monotonic() - begun < 2
        errors = process.stderr.read().decode()
    assert "Traceback" not in errors and "rror" not in errors


def test_a_full_device_is_one_sentence(trained):
    with open("/dev/full", "wb") as full, piped(trained, stdout=full) as process:
        assert process.wait(60) == streams.WRONG
        lines = process.stderr.read().decode().splitlines()
    (message,) = [line for line in lines if "error" in line]
    assert message.endswith("the output must be writable, got 'No space left on device'; "
                         "write it elsewhere")  # fmt: skip


def test_closed_streams_do_not_matter(trained):
    script = 'exec "$@" 0<&- 2>&-'
    folder = piped(trained, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    folder.kill()
    folder.wait()
    done = subprocess.run(
        ["sh", "-c", script, "sh", *folder.args, "--top_k=1"], stdout=subprocess.PIPE, text=True
    )
    assert done.returncode == 0 and done.stdout.count("three/c0") == 3


def test_folders_and_files(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("in/b.mp4", "in/a.mp4", "in/users.csv", "c.mp4"):
        (tmp_path / name).write_bytes(b"")
    found = clips_of([str(tmp_path / "c.mp4"), str(tmp_path / "in")])
    assert [pathlib.Path(name).name for name in found] == ["c.mp4", "a.mp4", "b.mp4"]


def test_command_line(trained, tmp_path):
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    done = command(trained, f"--video={trained / 'c00.mp4'}", "--age=30", "--json", bad)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    by_name = {pathlib.Path(answer["video"]).name: answer for answer in answers}
    assert len(by_name["c00.mp4"]["suggestions"]) == 3 and not by_name["bad.mp4"]["suggestions"]
    assert "bad.mp4: " in done.stderr and "Traceback" not in done.stderr

    done = command(trained, f"--video={trained / 'c00.mp4'}", "--csv", "--top_k=2")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    best = [suggestion["hashtag"] for suggestion in by_name["c00.mp4"]["suggestions"]]
    assert [row["hashtag"] for row in rows] == best[:2]
    done = command(trained, bad)
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--video=absent.mp4"], "--video must name a file or a folder, got 'absent.mp4'"),
        ([], "suggestions need a clip, got none"),
        (["--video=.", "--json", "--csv"], "output must be one of --json, --csv and --explain"),
        (["--video="], "--video must name a file or a folder, got an empty name"),
        (["--video={clip}", "--top_k=0"], "top_k must be at least 1, got 0"),
        (["--video={clip}", "--seed=7"], "--seed must be one of the run's, 0 to 1, got 7"),
        (["--video={clip}", "--run=absent"], "a trained and evaluated run must have config.json"),
        (["--video={clip}", "--features=absent"], "got none in absent; name their folder"),
        (["--video={clip}", "--versus=age=3"], "--versus needs --explain"),
        (["--video={clip}", "--explain=why.pdf"], "--explain must name a .html or .png file"),
        (
            ["--video={clip}", "--explain=x.html", "--json"],
            "output must be one of --json, --csv and",
        ),
    ],
)
def test_mistakes_are_one_sentence(trained, arguments, message):
    clip = str(trained / "c00.mp4")
    done = command(trained, *[argument.format(clip=clip) for argument in arguments])
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr


def test_simulated_features_have_no_extractor(tmp_path):
    _, workdir = tiny_world.finished_run(tmp_path, num_epochs=1)
    with pytest.raises(UserError, match="trained on simulated features"):
        Recommender.load(workdir)


def test_another_extractor_is_refused(trained, tmp_path):
    folder = tmp_path / "other"
    folder.mkdir()
    settings = json.loads((trained / "features/small/settings.json").read_text())
    (folder / "settings.json").write_text(json.dumps(settings | {"fingerprint": "0" * 64}))
    with pytest.raises(UserError, match="the extractor must be the run's, of fingerprint .*000000"):
        Recommender.load(trained / "run", features=folder)


def test_loading_does_not_change_the_run(trained, recommender):
    unfinished = trained / "run" / "checkpoints" / ".9.npz.01234567.tmp"
    unfinished.touch()  # another process may be writing it
    Recommender.load(trained / "run").close()
    unfinished.unlink()
    assert isinstance(recommender.config, Config) and recommender.config.preprocess.max_frames == 3
