"""Command lines with standard streams that are closed, full, without a reader or ASCII.

Each command prints its help, which stands for all its output.
"""

import os
import pathlib
import subprocess
import sys

import pytest

from uhman_jax.runtime import streams

ROOT = pathlib.Path(__file__).parents[1]
COMMANDS = [
    *(f"uhman_jax.{name}" for name in ("main", "preprocess", "recommend", "demo")),
    *(f"tools.{name}" for name in ("import_ytdlp", "import_yfcc100m", "inspect_run", "export")),
    *(f"tools.launch.{name}" for name in ("slurm", "tpu")),
]
FULL = "error: the output must be writable, got 'No space left on device'; write it elsewhere\n"


def run(arguments, *, before=(sys.executable,), stdout=subprocess.PIPE, env=(), **given):
    options = {"stderr": subprocess.PIPE, "text": True, "timeout": 60} | given
    return subprocess.run(
        [*before, *arguments], stdout=stdout, env=os.environ | dict(env), **options
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_ends_as_a_pipeline_expects(command):
    """Checks `... | head -1` and `... > /dev/full` of each command."""
    reading, writing = os.pipe()
    os.close(reading)
    done = run(["-m", command, "--help"], stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (streams.READER_GONE, "")
    with open("/dev/full", "wb") as full:
        done = run(["-m", command, "--help"], stdout=full)
    assert (done.returncode, done.stderr) == (streams.WRONG, FULL)


def test_all_commands_guard_their_streams():
    for folder in ("uhman_jax", "tools", "experiments"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text("utf-8")
            if 'if __name__ == "__main__":' not in text or path.name.endswith("_worker.py"):
                continue
            assert "run_app(" in text or "streams.guarded()" in text, path


def code(*lines):
    body = "\n    ".join(lines)
    start = "import os, sys; from uhman_jax.runtime import errors, streams"
    return ["-c", f"{start}\nwith streams.guarded():\n    {body}"]


def test_a_lost_reader_ends_the_process_at_the_next_line():
    script = code("import time", "while True: print('line'); time.sleep(0.1)")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, *script], **pipes) as process:
        assert process.stdout.readline() == b"line\n"
        process.stdout.close()
        assert process.wait(5) == streams.READER_GONE and not process.stderr.read()


def test_a_mistake_has_its_status_without_output():
    arguments = code("with errors.exit_on_user_error(): raise errors.UserError('fix this')")
    assert run(arguments).stderr == "fix this\n"
    with open("/dev/full", "wb") as full:
        assert run(arguments, stdout=full, stderr=full).returncode == streams.WRONG


def test_failures_of_other_files_are_not_reported_as_output(tmp_path):
    lines = ("with errors.exit_on_user_error():", "    open('/dev/full', 'w', 1).write('x\\n')")
    done = run(code(*lines))
    assert done.returncode == 2 and done.stderr.startswith("a file can't be written")
    lines = ("reading, writing = os.pipe()", "os.close(reading)", "os.write(writing, b'x')")
    done = run(code(*lines))
    assert done.returncode == 1 and "BrokenPipeError" in done.stderr, "a defect keeps its traceback"


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_closed_streams_become_the_null_device(closed, tmp_path):
    """Otherwise the next file would get their number and the output."""
    file = tmp_path / "file"
    lines = (
        f"with open({str(file)!r}, 'w') as opened:",
        "    assert opened.fileno() > 2",
        "    print('text'); print('text', file=sys.stderr); sys.stdin.read(); print('kept', end='',"
        " file=opened)",
    )
    before = ("sh", "-c", f'exec "$@" {closed}', "sh", sys.executable)
    done = run(code(*lines), before=before, stdin=subprocess.DEVNULL)
    assert done.returncode == 0 and file.read_text() == "kept"


@pytest.mark.parametrize(
    ("encoding", "written"),
    [("ascii", rb"\u65e5 \xe9 \udce9"), ("latin-1", b"\\u65e5 \xe9 \\udce9"),
     ("utf-8", "\u65e5 \xe9 \\udce9".encode())],
)  # fmt: skip
def test_characters_that_an_encoding_lacks_are_escaped(encoding, written):
    done = run(code(r"print('\u65e5 \xe9 \udce9')"), env={"PYTHONIOENCODING": encoding}, text=False)
    assert done.returncode == 0 and done.stdout == written + b"\n"


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0"}


def test_a_locale_that_cannot_read_the_command_line_is_named(tmp_path):
    done = run([*code("print(1)"), "--history=#\u65e5"], env=ASCII)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and not done.stdout
    assert done.stderr.startswith("error: the locale must be UTF-8 to read ")
    assert "LC_ALL=C.UTF-8" in done.stderr
    clip = tmp_path / "\u65e5.mp4"
    clip.write_bytes(b"")
    done = run([*code("print(1)"), f"--video={clip}"], env=ASCII)
    assert (done.returncode, done.stdout) == (0, "1\n"), "a file is found by its bytes"


@pytest.mark.parametrize("module", ["tools.bench.warp", "experiments.scale", "tools.launch.slurm"])
def test_a_command_refuses_what_it_does_not_take(module):
    command = [sys.executable, "-m", module, "surplus"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1 and "surplus" in ended.stderr
