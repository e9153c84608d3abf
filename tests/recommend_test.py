"""Suggestions for clips: as the evaluation ranks, for any clip, and for readers that go away."""

import concurrent.futures
import contextlib
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

import clips
import jax
import numpy as np
import pytest
import small_run
from absl import flags
from absl.testing import flagsaver

from uhman_jax.input_pipeline import eval_batches
from uhman_jax.preprocess import feature_client
from uhman_jax.recommend import Profile, Recommender
from uhman_jax.recommend import __main__ as command_line
from uhman_jax.recommend.explain import explain
from uhman_jax.recommend.start import start_extractor
from uhman_jax.runtime import streams
from uhman_jax.runtime.errors import UserError
from uhman_jax.trained_run import open_run


@pytest.fixture(scope="module")
def recommender(trained):
    with small_run.recommender(trained) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def paths(trained):
    """Returns six clips."""
    return [str(trained / f"c{v:02}.mp4") for v in range(6)]


@pytest.fixture
def bad(tmp_path):
    """Returns a file that is no clip."""
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    return tmp_path / "bad.mp4"


@pytest.fixture
def extractor(trained, monkeypatch):
    """Returns a function that starts an extractor of the run."""

    def start(first=(), command=small_run.COMMAND):
        monkeypatch.setattr(feature_client, "COMMAND", command)
        return start_extractor(trained / "run", first=first)

    return start


@pytest.fixture
def command(trained, monkeypatch, capsys):
    """Returns a function that runs a command line in this process: status, output and errors."""
    monkeypatch.setattr(feature_client, "COMMAND", small_run.COMMAND)

    def call(*arguments):
        rest, status = ["recommend"], 0
        with flagsaver.flagsaver():
            flags.FLAGS.mark_as_parsed()
            for argument in map(os.fsdecode, (f"--run={trained / 'run'}", *arguments)):
                name, _, value = argument.removeprefix("--").partition("=")
                if argument.startswith("--"):
                    flags.FLAGS[name].parse(value if "=" in argument else "true")
                else:
                    rest.append(argument)
            sys.stdout.reconfigure(errors="backslashreplace")  # as `streams.prepare` does
            try:
                command_line.main(rest)
            except SystemExit as end:
                status = end.code
        return status, *capsys.readouterr()

    return call


def script(trained, *arguments):
    """Returns a command line for a process of its own, with the process of the small network."""
    code = small_run.code("uhman_jax.recommend")
    return [sys.executable, "-c", code, f"--run={trained / 'run'}", *map(os.fspath, arguments)]


def test_suggestions_are_those_of_the_evaluation(trained, recommender):
    opened = open_run(trained / "run")
    view, store = opened.view, opened.features()
    rows = np.flatnonzero(view.split_V == 2)[:5]
    (batch,) = eval_batches(view, store, rows=rows, batch_size=len(rows))
    model, variables = opened.model(0)
    scores_BT = np.asarray(jax.jit(model.apply)(variables, batch.video, batch.user))
    for b, row in enumerate(rows):
        user = Profile(
            view.genders[view.gender_V[row]],
            int(view.user_ids[row][1:]) + 20,
            history=tuple(view.hashtags[t] for t in view.history.row(row)),
        )
        found = recommender.recommend(trained / f"{view.video_ids[row]}.mp4", user, top_k=2)
        order = np.argsort(-scores_BT[b])[:2]
        assert [s.hashtag for s in found] == [view.hashtags[t] for t in order]
        scores = scores_BT[b][order]
        np.testing.assert_allclose([s.score for s in found], scores, rtol=1e-5, atol=1e-5)


def test_the_profile_and_the_clip_decide(trained, recommender):
    view, clip = recommender.view, {}
    for row in reversed(range(small_run.NUM_CLIPS)):
        for t in view.positives.row(row):
            clip[view.hashtags[t]] = trained / f"{view.video_ids[row]}.mp4"

    def best(word, gender):
        return [s.hashtag for s in recommender.recommend(clip[word], Profile(gender), 3)]

    assert best("dark", "m") == ["dark", "bright", "w"]
    assert best("bright", "m") == ["bright", "dark", "w"]
    assert best("bright", "f") == ["w", "bright", "dark"]


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
    (left,) = recommender.suggest(record, [Profile()], top_k=2, exclude=names[:1])
    assert [s.hashtag for s in left] == names[1:], "the next best replaces the excluded one"
    (answer,) = recommender.recommend_many([trained / "c00.mp4"], exclude=f"#{names[0]}")
    assert names[0] not in [s.hashtag for s in answer.suggestions]
    with pytest.raises(UserError, match="exclude must list hashtags of letters.*, got 'C\\+\\+';"):
        recommender.suggest(record, [Profile()], exclude=["#sea C++"])


def test_a_broken_clip_affects_no_other(trained, recommender, bad, tmp_path):
    paths = [trained / "c00.mp4", bad, trained / "c01.mp4", tmp_path / "absent.mp4"]
    answers = sorted(recommender.recommend_many(paths, top_k=1))
    assert [answer.index for answer in answers] == [0, 1, 2, 3]
    assert [answer.readable for answer in answers] == [True, False, True, False]
    assert answers[1].problem.startswith(("corrupt", "unsupported")) and not answers[1].suggestions
    assert answers[2].suggestions == recommender.recommend(paths[2], top_k=1)
    with pytest.raises(UserError, match="a clip must have a frame that can be read, got .*bad.mp4"):
        recommender.recommend(bad)


def test_a_killed_extractor_is_one_sentence_and_starts_again(trained, recommender):
    before = recommender.recommend(trained / "c00.mp4", top_k=1)
    recommender._clips._process.kill()
    with pytest.raises(UserError, match="ended with status -9"):
        recommender.recommend(trained / "c00.mp4", top_k=1)
    assert recommender.recommend(trained / "c00.mp4", top_k=1) == before


def test_the_process_starts_with_the_first_clips(paths, recommender, extractor):
    clips = paths[:3]
    expected = {clip: recommender.features(clip).codes_FMC for clip in clips}
    for first, asked in ((clips[:2], clips[:2]), (clips[:2], clips[2:3]), (clips[2:3], [])):
        with extractor(first) as started:
            for _ in range(2):
                found = list(started.encode(asked))
                assert [clip.index for clip in found] == list(range(len(asked)))
                for path, clip in zip(asked, found, strict=True):
                    np.testing.assert_array_equal(clip.record.codes_FMC, expected[path])


def test_closing_does_not_wait_for_the_process(extractor, tmp_path):
    done = tmp_path / "done"
    busy = f"import sys, time; sys.stdin.read(); time.sleep(1); open({str(done)!r}, 'w')"
    started = extractor(command=(sys.executable, "-c", busy))
    began = time.monotonic()
    started.close()
    assert time.monotonic() - began < 0.9 and not done.exists()
    while not done.exists():  # it saves its cache for the next process
        assert time.monotonic() - began < 60
        time.sleep(0.05)


def test_closing_ends_work_without_a_reader(paths, extractor, capfd):
    started = extractor(first=paths)
    answers, process = started.encode(paths), started._process
    promptly(started.close)
    answers.close()  # it was never started
    assert process.returncode == -signal.SIGKILL and not capfd.readouterr().err


def test_an_extractor_ends_silently_if_its_reader_has_gone(paths, recommender):
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(recommender._clips._arguments, **pipes) as process:
        process.stdout.close()
        process.stdin.write((json.dumps({"paths": paths}) + "\n").encode())
        process.stdin.flush()
        assert process.wait(60) == 1 and not process.stderr.read()


NAMES = [b"caf\xe9.mp4", b"two\nlines.mp4", b"\x1b[31mred.mp4", b"\xff.mp4", "日本.mp4".encode()]


def test_clips_of_any_name_are_answered_or_named(trained, command, tmp_path):
    """With --json the name is exact."""
    for name in NAMES:
        clips.write_named(tmp_path, name, (trained / "c00.mp4").read_bytes())
    status, output, errors = command(f"--video={tmp_path}", "--top_k=1", "--json")
    assert status == 0, errors
    answers = [json.loads(line) for line in output.splitlines()]
    by_name = {os.path.basename(os.fsencode(answer["video"])): answer for answer in answers}
    assert set(by_name) == set(NAMES)
    assert all(answer["suggestions"] or answer["problem"] for answer in answers)
    for name in (b"two\nlines.mp4", "日本.mp4".encode()):
        assert by_name[name]["suggestions"]
    assert command(f"--video={tmp_path}", "--top_k=1", "--csv")[0] == 0
    _, output, errors = command(f"--video={tmp_path}", "--top_k=1")
    assert "\x1b" not in output + errors and "\nlines" not in output
    assert r"two\nlines.mp4 (nothing known)" in output


@pytest.mark.parametrize("suffix", [".html", ".png"])
def test_a_clip_of_any_name_is_explained(trained, recommender, tmp_path, suffix):
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
    [("C", "é".encode(), "the locale must be UTF-8 for the name"),
     ("C.UTF-8", b"\xe9", "--run must be a name in UTF-8, got .*; rename it")],
)  # fmt: skip
def test_a_run_whose_name_libraries_cannot_read_is_no_damage(
    trained, paths, tmp_path, locale, name, message
):
    path = os.fsencode(tmp_path) + b"/" + name
    os.symlink(trained / "run", path)
    environment = os.environ | {"LC_ALL": locale, "PYTHONUTF8": "0"}
    arguments = script(trained, paths[0], b"--run=" + path)
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment)
    assert done.returncode == 2 and re.search(message, done.stderr), done.stderr
    assert "damaged" not in done.stderr and done.stderr.count("\n") == 1


def promptly(call, seconds=2.0):
    """Runs a call that must end within some seconds; a hang fails only this test."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), "it still waits"


def test_closing_does_not_wait_for_a_half_consumed_iterator(paths, extractor):
    with extractor() as clips:
        answers = clips.encode(paths)
        assert next(answers).state == "ok"
        process = clips._process
        promptly(clips.close)
        assert process.returncode == -signal.SIGKILL
        for later in (answers, clips.encode(paths)):
            with pytest.raises(UserError, match="until the extractor is closed; load the run"):
                next(later)


def test_closing_ends_a_thread_that_waits_for_an_answer(paths, extractor):
    silent = "import sys; sys.stdin.readline(); import time; time.sleep(1000)"
    clips = extractor(command=(sys.executable, "-c", silent))
    ended = threading.Event()

    def ask():
        with pytest.raises(UserError, match="until the extractor is closed"):
            list(clips.encode(paths))
        ended.set()

    threading.Thread(target=ask, daemon=True).start()
    while not clips._lock.locked():
        time.sleep(0.01)
    promptly(clips.close)
    assert ended.wait(5)


def test_answers_of_two_iterators_at_once_are_those_of_one_after_another(paths, extractor):
    with extractor(first=paths) as clips:
        expected = [clip.record.codes_FMC for clip in clips.encode(paths)]
        one, other, first, last = clips.encode(paths), clips.encode(paths[::-1]), [], []

        def take():
            for found, answers in ((first, one), (last, other), (first, one)):
                found.append(next(answers))
            last.extend(other)
            first.extend(one)

        promptly(take, 60)
    for found, order in ((first, expected), (last, expected[::-1])):
        assert sorted(clip.index for clip in found) == list(range(len(paths)))
        for clip in found:
            np.testing.assert_array_equal(clip.record.codes_FMC, order[clip.index])


def test_many_threads_ask_at_once(paths, recommender):
    process = recommender._clips._process
    with concurrent.futures.ThreadPoolExecutor(len(paths)) as pool:
        found = list(pool.map(lambda path: recommender.recommend(path, top_k=1), paths, timeout=60))
    assert recommender._clips._process is process
    assert found[:2] == [recommender.recommend(path, top_k=1) for path in paths[:2]]


def test_an_abandoned_iterator_ends_its_work(paths, extractor):
    with extractor() as clips:
        answers = clips.encode(paths)
        next(answers)
        process = clips._process
        del answers  # its finaliser runs here
        assert process.returncode == -signal.SIGKILL
        with clips._lock:  # as where a collection starts in the middle of an answer
            promptly(clips.encode(paths).close)
        assert next(clips.encode(paths)).state == "ok"


@pytest.mark.parametrize(("lines", "output"), [(0, "--json"), (1, "--csv")])
def test_the_command_ends_silently_if_its_reader_goes(trained, paths, lines, output):
    """As in `recommend | head -1` and `recommend | true`; all answers would take six seconds."""
    slow = os.environ | {"SMALL_NETWORK_SECONDS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    arguments = script(trained, "--top_k=1", output, *paths)
    with subprocess.Popen(arguments, env=slow, **pipes) as process:
        for _ in range(lines):
            assert process.stdout.readline()
        process.stdout.close()
        begun = time.monotonic()
        assert process.wait(60) == streams.READER_GONE
        assert time.monotonic() - begun < 5
        assert b"rror" not in process.stderr.read()


def test_command_line(paths, bad, command):
    status, output, errors = command(f"--video={paths[0]}", "--age=30", "--json", bad)
    assert status == 0, errors
    answers = [json.loads(line) for line in output.splitlines()]
    by_name = {pathlib.Path(answer["video"]).name: answer for answer in answers}
    assert len(by_name["c00.mp4"]["suggestions"]) == 3 and not by_name["bad.mp4"]["suggestions"]
    assert "bad.mp4: " in errors
    _, output, _ = command(f"--video={paths[0]}", "--csv", "--top_k=2")
    rows = list(csv.DictReader(io.StringIO(output)))
    best = [suggestion["hashtag"] for suggestion in by_name["c00.mp4"]["suggestions"]]
    assert [row["hashtag"] for row in rows] == best[:2]
    assert command(bad)[:2] == (2, "")


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
        (["--video={clip}", "--features=absent"], "got none in absent; name the features folder"),
        (["--video={clip}", "--versus=age=3"], "--versus needs --explain"),
        (["--video={clip}", "--explain=why.pdf"], "--explain must name a .html or .png file"),
    ],
)
def test_mistakes_are_one_sentence(paths, command, arguments, message):
    status, _, errors = command(*[argument.format(clip=paths[0]) for argument in arguments])
    assert status == 2 and message in errors and errors.count("\n") == 1


def test_another_extractor_is_refused(trained, finished, tmp_path):
    with pytest.raises(UserError, match="trained on simulated features"):
        Recommender.load(finished)
    settings = json.loads((trained / "features/small/settings.json").read_text())
    (tmp_path / "settings.json").write_text(json.dumps(settings | {"fingerprint": "0" * 64}))
    with pytest.raises(UserError, match="the extractor must have the run's fingerprint .*000000"):
        Recommender.load(trained / "run", features=tmp_path)


def test_loading_does_not_change_the_run(trained):
    unfinished = trained / "run" / "checkpoints" / ".9.npz.01234567.tmp"
    unfinished.touch()  # another process may be writing it
    Recommender.load(trained / "run").close()
    unfinished.unlink()


def test_a_known_user_needs_no_dataset_and_flags_win(trained, recommender, command, tmp_path):
    view, clip = recommender.view, str(trained / "c00.mp4")
    row = view.rows(2)[0]
    user_id, hashtags = view.user_ids[row], [view.hashtags[t] for t in view.history.row(row)]
    known = recommender.profile(user_id)
    assert known.gender == view.genders[view.gender_V[row]] and list(known.history) == hashtags
    with hidden(trained / "videos.csv"), hidden(trained / "users.csv"):
        status, output, errors = command(f"--user={user_id}", f"--video={clip}", "--csv")
    expected = recommender.recommend(clip, known)
    assert status == 0, errors
    assert [row["hashtag"] for row in csv.DictReader(io.StringIO(output))] == [
        suggestion.hashtag for suggestion in expected
    ]
    other = "female" if known.gender == "male" else "male"
    given = (f"--gender={other}", "--age=unknown", "--history=#dark")
    _, output, _ = command(f"--user={user_id}", *given, f"--video={clip}")
    assert output.startswith(f"{clip} ({other}, used #dark before)\n")
    status, _, errors = command("--user=U3", f"--video={clip}")
    assert status == 2 and errors.count("\n") == 1
    assert "got 'U3', and similar ids are 'u3'" in errors


@contextlib.contextmanager
def hidden(path):
    """Renames a file for a while."""
    away = path.rename(path.with_suffix(".away"))
    try:
        yield
    finally:
        away.rename(path)
