"""The importer of yt-dlp on info files in the forms that it meets, with their traps."""

import csv
import json
import os
import pathlib
import subprocess
import sys
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from shared_files import shared

from tools import import_ytdlp
from tools.clip_files import ClipFiles
from uhman_jax.dataset.raw import User, Video, read_raw_dataset
from uhman_jax.runtime.errors import UserError

ROOT = pathlib.Path(__file__).parents[1]


def dropped_rows(root):
    with open(root / "dropped.csv", newline="", encoding="utf-8") as file:
        return list(csv.reader(file))[1:]


def dropped_of(root):
    """Returns the reason by name in dropped.csv."""
    return dict(dropped_rows(root))


def download(folder, name, clip=".mp4", **info):
    """Writes a clip and its info file."""
    folder.mkdir(parents=True, exist_ok=True)
    usual = {"id": name, "title": "A title", "description": "#Sea and #sun", "ext": "mp4"}
    usual |= {"uploader": "Ana Maria", "uploader_id": "@ana", "channel_id": "UC1", "age_limit": 18}
    usual |= {"timestamp": 1_700_000_000, "upload_date": "20231114", "tags": ["beach life"]}
    (folder / f"{name}.info.json").write_text(json.dumps(usual | info), "utf-8")
    if clip:
        (folder / f"{name}{clip}").write_bytes(b"a clip")


def imported(folder, users=None, source="description"):
    import_ytdlp.import_folder(folder, users, source)
    raw = read_raw_dataset(folder, strict=True)
    return {video.video_id: video for video in raw.videos}, raw.users


def test_a_download_becomes_a_row(tmp_path):
    download(tmp_path, "a")
    download(tmp_path, "b", description="none", tags=None, timestamp=None, uploader_id=None)
    videos, users = imported(tmp_path)
    video = Video("a", "a.mp4", "UC1", ("sea", "sun"), 1_700_000_000, ("Sea", "sun"))
    assert list(videos.values()) == [video] and dropped_of(tmp_path) == {
        "b.info.json": "no hashtags"
    }
    assert users["UC1"] == User("UC1"), "age_limit is no user's age"
    assert imported(tmp_path, source="tags")[0]["a"].hashtags == ("beachlife",)
    assert imported(tmp_path, source="both")[0]["a"].hashtags == ("sea", "sun", "beachlife")


def test_an_odd_tag_or_time_costs_only_itself(tmp_path):
    odd = {"tags": ["C# tutorial", "sea", ["sun"]], "timestamp": -5, "upload_date": None}
    download(tmp_path, "a", **odd)
    video = imported(tmp_path, source="tags")[0]["a"]
    assert video.hashtags == ("sea",) and video.timestamp is None
    reasons = ["'C# tutorial'", "a list"]
    expected = [f"a tag that is no hashtag: {value}" for value in reasons]
    expected.append("a time that cannot be read: -5")
    assert dropped_rows(tmp_path) == [["a.info.json", reason] for reason in expected]


USERS = "user_id,gender,age,country,history\n"
BO = {"channel_id": "UC2", "uploader_id": "@bo", "uploader": "Bo"}


@pytest.mark.parametrize(
    ("own", "people", "uploader", "ages"),
    [
        # only rows of posters are taken from --users
        (None, "UC1,f,21,PT,\n@other,m,30,BR,\n", "Ana", {"UC1": 21, "UC2": None}),
        # an id of several users gives none of them attributes
        (None, "bo,f,21,PT,\n@bo,m,22,BR,\n", "Bo", {"UC1": None, "UC2": 22}),
        # no row of the folder's own table is lost
        ("UC1,m,22,,\nUC2,m,23,,\n@gone,f,24,,\n", "UC1,f,21,PT,\nUC2,,,,\nx,m,30,BR,\n", "Ana",
         {"UC1": 21, "UC2": 23, "@gone": 24}),
        # a table may name a user by any of their ids
        *((f"{name},f,21,PT,\n", None, "Ana", {"UC1": 21, "UC2": None, name: 21})
          for name in ("UC1", "@ana", "ANA", "Ana")),
    ],
)  # fmt: skip
def test_tables_of_users_are_joined(tmp_path, own, people, uploader, ages):
    root = tmp_path / "clips"
    download(root, "a", uploader=uploader, uploader_id="@ana" if uploader == "Ana" else "@x")
    download(root, "b", **BO)
    for path, table in ((root / "users.csv", own), (tmp_path / "people.csv", people)):
        if table:
            path.write_text(USERS + table)
            given = path
    report = import_ytdlp.import_folder(root, given, "description")
    users = read_raw_dataset(root, strict=True).users
    assert {name: user.age for name, user in users.items()} == ages
    if people is None:
        name = own.partition(",")[0]
        line = f"1 user found in the table under another id: {name} for UC1."
        assert "2 users, 1 with attributes." in report and (line in report) == (name != "UC1")


def test_the_folders_own_table_of_users_only_gets_more_rows(tmp_path):
    table = "name, history,user_id,age,gender,country\r\nAna,,UC1,old?,F,Portugal\r\nx,,other,,,"
    own = tmp_path / "clips" / "users.csv"
    download(own.parent, "a")
    download(own.parent, "b", **BO)
    for path in (own, own.parent / ".." / "clips" / "users.csv"):  # two names of one file
        own.write_text(table, newline="")
        for _ in range(2):  # the second import adds nothing
            import_ytdlp.import_folder(own.parent, path, "description")
            assert own.read_bytes() == table.encode() + b"\n,,UC2,,,\n"
    bad_age = "an attribute that cannot be read: bad age 'old?'"
    assert dropped_of(own.parent) == {"users.csv:2": bad_age}
    users = read_raw_dataset(own.parent, strict=False).users
    assert users["UC1"] == User("UC1", "female", None, "PT", ()) and "other" in users
    (own.parent / "b.mp4").unlink()
    own.write_text(table := USERS + "UC1,,,,\n@ana,f,21,PT,\n")  # two rows of one user
    *_, known, unused = import_ytdlp.import_folder(own.parent, own, "description")
    assert own.read_text() == table and known == "1 user, 0 with attributes."
    assert unused.startswith("1 user without attributes, which another of their rows has: @ana")


@pytest.mark.parametrize(
    ("table", "lost"),
    [
        (USERS.replace("age", "age,note") + "UC1,f,21,a note,PT,\n", "the column 'note'"),
        (USERS + "UC1,f,old?,PT,\n", r"line 2 \(bad age\)"),
        (USERS + "UC1,f\n", r"line 2 \(wrong field count\)"),
    ],
)
def test_a_table_that_would_lose_something_is_not_written_again(tmp_path, table, lost):
    (tmp_path / "people.csv").write_text(USERS + "UC1,f,21,PT,\n")
    download(tmp_path / "clips", "a")
    own = tmp_path / "clips" / "users.csv"
    own.write_text(table)
    with pytest.raises(UserError, match=f"got {lost}; move it elsewhere"):
        import_ytdlp.import_folder(own.parent, tmp_path / "people.csv", "description")
    assert own.read_text() == table


def test_clips_are_read_in_the_order_of_their_paths(tmp_path):
    download(tmp_path / "sub folder", "a b", clip=".webm")
    download(tmp_path, "again", id="a b")
    (tmp_path / "list.info.json").write_text('{"_type": "playlist", "id": "PL"}')
    videos, _ = imported(tmp_path)
    assert [video.path for video in videos.values()] == ["again.mp4"]
    same_id, playlist = "an id that another clip has", "a playlist or channel"
    assert dropped_of(tmp_path) == {"sub folder/a b.info.json": same_id, "list.info.json": playlist}


BY_PRODUCTS = ".srt .nfo .en.vtt .description .txt .html .db .jpg .webp .image .gif .avif .mhtml "
BY_PRODUCTS += ".m4a .mp3 .opus .ogg .wav .weba .mp4.part .part .mp4.ytdl .f137.mp4 .temp.mp4 "
BY_PRODUCTS += ".mp4.aria2 .json"


@pytest.mark.parametrize(
    ("ext", "beside", "clip"),
    [
        ("mp4", ".mp4 .mkv", ".mp4"), ("webm", ".mp4 .webm", ".webm"), ("NA", ".mov", ".mov"),
        ("MP4", ".webm .mp4", ".mp4"), ("webm", ".m4a .mkv", ".mkv"), ("mp4", ".MP4", ".MP4"),
        ("m4a", ".m4a .mp4", ".mp4"), ("", ".mkv .mp4", ".mp4"), ("gif", ".gif", ".gif"),
        ("webm", ".desktop .mp4 .url .webloc", ".mp4"), ("", ".video", ".video"),
        ("unknown_video", ".unknown_video", ".unknown_video"), ("mp4", BY_PRODUCTS, None),
        ("url", ".url", None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["a", "a.b c.d"])
def test_which_file_is_the_clip(tmp_path, name, ext, beside, clip):
    for suffix in beside.split():
        (tmp_path / f"{name}{suffix}").touch()
    (tmp_path / f"{name}.mov.mp4").mkdir()  # no file, and another's name
    found = ClipFiles(tmp_path, os.listdir(tmp_path)).find(name, ext)
    assert found == ("" if clip is None else f"{name}{clip}")


def test_a_clip_without_a_suffix_and_an_info_with_an_odd_one(tmp_path):
    download(tmp_path, "a", clip="", ext="mp4")
    (tmp_path / "a").touch()
    download(tmp_path, "b", ext="mp4/video")
    assert imported(tmp_path)[0]["a"].path == "a"
    assert dropped_of(tmp_path) == {"b.info.json": "an ext that is no suffix"}


def test_only_regular_files_are_clips_and_infos(tmp_path):
    for name in ("folder", "pipe", "broken", "link", "kept"):
        download(tmp_path, name, clip=".mp4" if name == "kept" else "")
    (tmp_path / "folder.mp4").mkdir()
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "broken.mp4").symlink_to("nowhere")
    (tmp_path / "link.mp4").symlink_to("kept.mp4")
    download(tmp_path / "a folder.info.json", "inside")
    os.mkfifo(tmp_path / "a pipe.info.json")
    (tmp_path / "a broken.info.json").symlink_to("nowhere")
    (tmp_path / "a round.info.json").symlink_to("a round.info.json")
    assert sorted(imported(tmp_path)[0]) == ["inside", "kept", "link"]
    clips = {f"{name}.info.json": "no clip beside it" for name in ("folder", "pipe", "broken")}
    infos = [f"a {name}.info.json" for name in ("folder", "pipe", "broken", "round")]
    assert dropped_of(tmp_path) == clips | dict.fromkeys(infos, "info that is no file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_named(tmp_path):
    download(tmp_path, "kept")
    download(tmp_path / "locked", "a")
    download(tmp_path, "b")
    (tmp_path / "b.info.json").chmod(0)
    (tmp_path / "locked").chmod(0)
    try:
        assert list(imported(tmp_path)[0]) == ["kept"]
        folder, info = "a folder that cannot be read", "info that cannot be read"
        assert dropped_of(tmp_path) == {"locked": folder, "b.info.json": info}
    finally:
        (tmp_path / "locked").chmod(0o700)


def test_each_folder_is_listed_once(tmp_path, monkeypatch):
    for index in range(20):
        download(tmp_path / str(index % 2), str(index), ext="webm")
    scandir, listed = os.scandir, []
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(path) or scandir(path))
    monkeypatch.setattr(os, "listdir", None)
    assert "20 of 20 clips kept." in import_ytdlp.import_folder(tmp_path, None, "description")
    assert sorted(listed) == [str(tmp_path), str(tmp_path / "0"), str(tmp_path / "1")]


INFO = b'{"id": "x", "ext": "mp4", "uploader_id": "x", "description": "#sea"}'
DEEP = b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
CONTENTS = {
    "info that cannot be read": [b"", b"{", b"[]", b"7", DEEP, b"[" * 100_000,
                                 b'{"id": ' + b"9" * 5000 + b"}", INFO.replace(b"sea", b"caf\xe9")],
    None: [b"\xef\xbb\xbf" + INFO, INFO.decode().encode("utf-16")],
}  # fmt: skip


@pytest.mark.parametrize(("content", "reason"), [(c, r) for r in CONTENTS for c in CONTENTS[r]])
def test_info_that_cannot_be_read_costs_only_itself(tmp_path, content, reason):
    download(tmp_path, "kept")
    (tmp_path / "x.info.json").write_bytes(content)
    (tmp_path / "x.mp4").touch()
    videos, _ = imported(tmp_path)
    assert list(videos) == (["kept"] if reason else ["kept", "x"])
    assert dropped_of(tmp_path) == ({"x.info.json": reason} if reason else {})


def test_an_odd_name_of_a_file_costs_only_itself_and_the_command_reports_it(tmp_path):
    odd = {b"caf\xe9": "caf\\udce9", b"a\nb": "a\\nb", b"a\rb": "a\\rb", b" a": " a"}
    odd |= {" été".encode(): " été"}
    good = ["e\u2028f".encode(), b'q"uote, and comma', b"tab\tbell\x07", b"-=+@"]
    for name in (*odd, *good):
        download(tmp_path, os.fsdecode(name))
        info = json.dumps({"id": name.hex(), "uploader_id": "x", "description": "#sea"})
        (tmp_path / f"{os.fsdecode(name)}.info.json").write_text(info)

    def run(*more):
        command = [sys.executable, "-m", "tools.import_ytdlp", f"--folder={tmp_path}", *more]
        env = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)}
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=env)

    ended = run()
    assert ended.returncode == 0, ended.stderr
    assert "4 of 9 clips kept." in ended.stdout
    assert f"--config.data.root={tmp_path}" in ended.stdout
    paths = {video.path for video in read_raw_dataset(tmp_path, strict=True).videos}
    assert paths == {f"{os.fsdecode(name)}.mp4" for name in good}
    names = [f"{shown}.info.json" for shown in odd.values()]
    assert sorted(dropped_of(tmp_path)) == sorted(names)
    assert r"\xe9t\xe9.info.json, a\nb.info.json, ..." in ended.stdout
    wrong = run("more")
    assert wrong.returncode == 2
    assert wrong.stderr == "error: settings are given as --flag=value, got 'more'; see --help\n"


ODD_TEXTS = ["../up", "/etc/passwd", "NA", "#", "#a#", "=1+1", '"', "a\nb", "\0", "x" * 300, " a "]
ODD_TEXTS += ["#" + "a" * 140_000, "mp4/video", "..", "\ud800", "\ufeff"]
odd_values = st.recursive(
    st.one_of(
        st.sampled_from([None, True, False, *ODD_TEXTS]), st.text(max_size=8),
        st.floats(), st.integers(), st.integers(10**300, 10**301),
        st.text(st.characters(categories=["Cc", "Cs", "Cf", "Zl", "Po", "So"]), max_size=4),
    ),
    lambda x: st.lists(x, max_size=2) | st.dictionaries(st.text(max_size=2), x, max_size=1),
    max_leaves=3,
)  # fmt: skip
INFO_KEYS = ("id", "ext", "title", "description", "tags", "uploader", "uploader_id", "channel_id",
             "timestamp", "upload_date", "_type", "extractor", "display_id", "channel")  # fmt: skip
good_tags = st.lists(st.sampled_from(["Sea", "sun", "été", "日本"]), min_size=1, unique=True)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(good_tags, min_size=1, max_size=3),
    st.dictionaries(st.sampled_from(INFO_KEYS), odd_values, min_size=1, max_size=4),
    st.sampled_from(["description", "tags", "both"]),
)
def test_a_poisoned_info_file_costs_only_itself(tmp_path_factory, clips, poison, source):
    folder = tmp_path_factory.mktemp("clips")
    for index, tags in enumerate(clips):
        ids = {"channel_id": f"UC{index}", "uploader_id": f"@good{index}"}
        text = " ".join(f"#{tag}" for tag in tags)
        download(folder, f"good{index}", description=text, tags=tags, **ids)
    ids = {"channel_id": None, "uploader_id": "poison", "uploader": None}
    download(folder, "poison", **ids | poison)
    report = import_ytdlp.import_folder(folder, None, source)
    raw = read_raw_dataset(folder, strict=True)
    good = [video for video in raw.videos if video.path.startswith("good")]
    rows = [(f"good{index}", f"UC{index}", tuple(tags)) for index, tags in enumerate(clips)]
    assert [(video.video_id, video.user_id, video.written) for video in good] == rows
    assert len(raw.videos) > len(good) or "poison.info.json" in dropped_of(folder)
    assert report[0].startswith(f"{len(raw.videos)} of {len(clips) + 1} clips kept.")
    assert {video.user_id for video in raw.videos} == raw.users.keys()


BAD_ROWS = ["UC1,f", ",f,21,PT,", "UC3,f,21,PT,\0", '"UC3,f,21,PT,', "UC\udce9,,,,", "UC0,m,,,"]
rows_of_users = (
    st.text(st.sampled_from('aUC1,"\n\r\0 é#'), max_size=12)
    | st.sampled_from([",,,,", '"', 'x,"', '"x,f,21,PT,\n', "UC1,f,2000,PT,"])
    | st.sampled_from(BAD_ROWS)
)


@settings(max_examples=60, deadline=None)
@given(st.lists(rows_of_users, max_size=3), st.booleans(), st.sampled_from(["", "\n", "\r\n"]))
@example(BAD_ROWS[:3], True, "\n")
@example(BAD_ROWS[3:], True, "\n")
def test_a_table_of_users_loses_no_byte_and_gives_what_is_good(tmp_path_factory, rows, first, end):
    good = "UC0,,22,PT,#sea"
    table = USERS + "\n".join([good, *rows] if first else [*rows, good]) + end
    table = table.encode("utf-8", "surrogateescape")
    folder = tmp_path_factory.mktemp("clips")
    for index in range(3):
        download(folder, str(index), channel_id=f"UC{index}", uploader_id=f"@u{index}")
    own = folder / "users.csv"
    own.write_bytes(table)
    before, problems = import_ytdlp.read_users(own)
    try:
        import_ytdlp.import_folder(folder, own, "description")
    except UserError as error:
        assert "close the quote that its last rows leave open" in str(error)
        assert own.read_bytes() == table
        return
    assert own.read_bytes().startswith(table)
    assert dropped_of(folder).keys() == {f"users.csv:{problem.line}" for problem in problems}
    raw = read_raw_dataset(folder, strict=False)
    assert len(raw.videos) == 3 and before.items() <= raw.users.items()
    assert {video.user_id for video in raw.videos} <= raw.users.keys()


def test_sample_of_many_remuxed_clips(tmp_path):
    subprocess.run(
        [sys.executable, shared("strangers/21-many-remuxed.py")], cwd=tmp_path, check=True
    )
    begin = time.process_time()
    videos, users = imported(tmp_path / "many")
    assert time.process_time() - begin < 10 and len(videos) == 4000 and len(users) == 50


def test_an_unusable_folder_is_a_users_mistake(tmp_path):
    def refused(message, folder=tmp_path, users=None):
        with pytest.raises(UserError, match=message):
            import_ytdlp.import_folder(folder, users, "description")

    refused("--folder must be a folder", tmp_path / "nowhere")
    refused("got none in .*; download with yt-dlp --write-info-json")
    download(tmp_path, "a", clip="")
    refused(r"no clip is left(.|\n)*1 no clip beside it: a\.info\.json")
    (tmp_path / "users.csv").write_bytes(USERS.encode("utf-16"))
    refused("must be UTF-8, got UTF-16", users=tmp_path / "users.csv")
