"""Progress bars on terminals and in logs."""

import io
import sys

from uhman_jax.runtime.progress import progress_bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


def lines_of(monkeypatch, stream, seconds=0.0, **options):
    """Returns the number of lines of a bar over 100 clips, of so many seconds each."""
    now = [1000.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    monkeypatch.setattr(sys, "stderr", stream)
    for _ in progress_bar(range(100), desc="clips", unit="clip", **options):
        now[0] += seconds
    assert "clips: 100%" in stream.getvalue() and "100/100" in stream.getvalue()
    return stream.getvalue().count("clips:")


def test_a_terminal_gets_a_line_per_second_and_a_log_the_first_and_the_last(monkeypatch):
    assert lines_of(monkeypatch, Terminal(), seconds=1.0) > 90
    assert lines_of(monkeypatch, io.StringIO(), seconds=1.0) < 15
    assert lines_of(monkeypatch, io.StringIO()) == 2


def test_an_option_of_the_caller_wins(monkeypatch):
    assert lines_of(monkeypatch, io.StringIO(), mininterval=0, miniters=1) > 90
