"""Machines that share a folder make features in parts, with the bytes of one machine."""

import threading

import clips
import pytest
from clips import contents
from small_network import encode as run

from uhman_jax.preprocess.pipeline import Part
from uhman_jax.runtime import lock
from uhman_jax.runtime.errors import UserError
from uhman_jax.shards.store import INFO_FILE


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Nine clips: five shards of two."""
    root = tmp_path_factory.mktemp("clips")
    clips.write_noise(root, (1, 2, 1, 1, 2, 1, 1, 2, 1))
    return root


def test_parts_at_once_make_the_bytes_of_one(folder, tmp_path):
    run(folder, tmp_path / "whole")
    output = tmp_path / "parts"
    assert run(folder, output, part=Part(0, 3)).entries == ()
    summaries = {}

    def make(number):
        summaries[number] = run(folder, output, part=Part(number, 3))

    threads = [threading.Thread(target=make, args=(number,)) for number in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    made = {number: len(summary.entries) for number, summary in summaries.items()}
    assert made == {1: 4, 2: 3, 3: 2}  # shards 0 and 3, 1 and 4, 2; the last has one clip
    assert not (output / INFO_FILE).exists(), "not finished before all parts are together"
    assert run(folder, output, part=Part(2, 3)).reused == 3
    last = run(folder, output)
    assert last.reused == 9 and last.frames == 0
    assert contents(output) == contents(tmp_path / "whole")


def test_a_part_that_is_missing_is_made_by_the_last_call(folder, tmp_path):
    run(folder, tmp_path / "whole")
    for number in (0, 2):
        run(folder, tmp_path / "parts", part=Part(number, 2))
    assert run(folder, tmp_path / "parts").reused == 4
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_a_part_without_weights_says_what_comes_first(folder, tmp_path):
    with pytest.raises(UserError, match="--part=1/2 needs the weights that --part=0/2 keeps"):
        run(folder, tmp_path, part=Part(1, 2))


def test_two_machines_do_not_make_the_same_part(folder, tmp_path):
    run(folder, tmp_path, part=Part(0, 2))
    with (
        lock.hold(tmp_path, "", ".lock.1-of-2"),
        pytest.raises(UserError, match="one process at a time"),
    ):
        run(folder, tmp_path, part=Part(1, 2))


@pytest.mark.parametrize("text", ["", "2", "3/2", "-1/2", "1/0", "1/2/3", "a/b"])
def test_other_texts_than_parts_are_refused(text):
    with pytest.raises(UserError, match="--part must be NUMBER/COUNT"):
        Part.parse(text)
    assert str(Part.parse("2/16")) == "2/16"
