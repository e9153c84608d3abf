"""Which files of a folder are clips, and how their names are spelled in shards and ledgers."""

import os
import shutil
import time

import clips
from hypothesis import given
from hypothesis import strategies as st
from small_network import encode

from uhman_jax.preprocess import clip_file, find_videos, ledger
from uhman_jax.shards.store import FrameStore

BESIDE = """s.srt s.vtt n.nfo d.mp4.part d.mp4.part-Frag3 d.mp4.ytdl d.mp4.aria2 l.url l.desktop
    l.webloc s.m4a s.mp3 s.opus s.wav t.jpg t.jpeg t.webp t.png t.avif t.heic v.lrv README noext
    c.xml c.description c.info.json c.csv notes.md""".split()


def test_inputs_without_a_table(tmp_path, capsys):
    names = ["b.mp4", "sub/a.webm", ".hidden/c.mp4", ".d.mp4", "features/x/e.mp4", *BESIDE]
    names += ["out/settings.json", "out/x.tfrecord-00000-of-00001", "out/ledger/00000.jsonl"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = find_videos.list_inputs(tmp_path)
    assert found == [("b.mp4", "b.mp4"), ("sub/a.webm", "sub/a.webm")]
    message = capsys.readouterr().err
    assert message.startswith("25 files do not have a video suffix (2 without one, 1 .")
    assert message.count("\n") == 1
    # Folders of features that were begun before the rule go on with all files but tables and texts.
    old = [name for name, _ in find_videos.list_inputs(tmp_path, rule=1)]
    expected = [name for name in BESIDE if not name.endswith((".md", ".json", ".csv"))]
    assert old == sorted(["b.mp4", "sub/a.webm", *expected])
    assert find_videos.clips_of([str(tmp_path)]) == [f"{tmp_path}/b.mp4", f"{tmp_path}/sub/a.webm"]
    assert find_videos.clips_of([f"{tmp_path}/s.srt"]) == [f"{tmp_path}/s.srt"]  # named: tried


def test_containers_of_videos(tmp_path):
    suffixes = "mp4 MP4 mov m4v mkv webm avi flv ts m2ts MTS mpg 3gp wmv gif".split()
    for suffix in suffixes:
        (tmp_path / f"a.b.{suffix}").touch()
    assert set(find_videos.files_below(tmp_path)) == {f"a.b.{suffix}" for suffix in suffixes}


def test_long_folders_are_listed_in_linear_time(tmp_path):
    seconds = []
    for folder, count in (("a", 500), ("b", 4000)):
        (tmp_path / folder).mkdir()
        for i in range(count):
            os.mknod(tmp_path / folder / f"{i}.mp4")
        begin = time.process_time()
        assert len(find_videos.files_below(tmp_path / folder)) == count
        seconds.append(time.process_time() - begin)
    assert seconds[1] < 5 and seconds[1] < 8 * 3 * seconds[0] + 0.1


# A clip may have such a name, or one that looks like its spelling.
NAMES = [b"a.mp4", b"caf\xe9.mp4", rb"caf\xe9.mp4", b"a\nb.mp4", b"\x1b[31m.mp4", b"c\xc2\x85.mp4"]
NAMES += ["caf\u00e9.mp4".encode(), "cafe\u0301.mp4".encode(), b"c\x85.mp4", b"\xff\xfe.mp4"]


def test_every_name_has_its_own_printable_spelling(tmp_path):
    clip = clips.write_clip(tmp_path / "clip", [clips.gray(90)], [0], container="mp4")
    for name in NAMES:
        shutil.copy(clip, os.path.join(os.fsencode(tmp_path), name))
    listed = find_videos.list_inputs(tmp_path)
    ids = {video_id for video_id, _ in listed}
    assert len(listed) == len(ids) and {os.fsencode(path) for _, path in listed} == set(NAMES)
    for video_id, path in listed:
        assert video_id.isprintable()
        if video_id.startswith("./"):  # undo the spelling
            name = video_id[2:].encode().decode("unicode_escape").encode("latin-1")
            assert name == os.fsencode(path)
        else:
            assert video_id == path
    summary = encode(tmp_path, tmp_path / "out", listed)
    assert summary.counts["ok"] == len(NAMES)
    assert {entry.video_id for entry in ledger.read_ledger(tmp_path / "out")} == ids
    assert all(entry.path.encode() for entry in summary.entries)
    assert set(FrameStore(tmp_path / "out").video_ids) == ids


@given(st.lists(st.binary(min_size=1, max_size=9), unique=True))
def test_spellings_are_unambiguous(names):
    names = {os.fsdecode(name) for name in names if b"/" not in name} | {"a\\n", "\\xe9", "\udce9"}
    assert len({clip_file.printable(name) for name in names}) == len(names)
    for name in map(clip_file.printable, names):
        assert all(ord(c) >= 32 and not "\ud800" <= c <= "\udfff" for c in name)
