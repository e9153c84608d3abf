import io
import sys

import pytest

from uhman_jax.progress import progress_bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("stream", "lines"), [(Terminal(), 90), (io.StringIO(), 2)])
def test_a_log_gets_the_first_and_the_last_line_a_terminal_all(monkeypatch, stream, lines):
    monkeypatch.setattr(sys, "stderr", stream)
    for _ in progress_bar(range(100), desc="clips", unit="clip", mininterval=0, miniters=1):
        pass
    everything = stream.getvalue().count("clips:")
    assert everything > 90, "an option of the caller wins"
    stream.truncate(0)
    for _ in progress_bar(range(100), desc="clips", unit="clip"):
        pass
    text = stream.getvalue()
    assert "clips: 100%" in text and "100/100" in text
    assert text.count("clips:") <= max(lines, 2)
