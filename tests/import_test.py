"""Importers on files in the formats that they read, with the traps of each."""

import bz2
import csv
import doctest
import gzip
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import urllib.parse

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tools import import_yfcc100m, import_ytdlp, ytdlp_info, ytdlp_users
from tools.import_report import Dropped
from uhman_jax.dataset.raw import User, Video, fault_of, read_raw_dataset, write_raw_dataset
from uhman_jax.runtime.errors import UserError

ROOT = pathlib.Path(__file__).parents[1]
SAMPLES = pathlib.Path(__file__).parents[2] / "shared" / "strangers"


@pytest.mark.parametrize("module", [ytdlp_info, ytdlp_users, import_yfcc100m])
def test_the_examples_hold(module):
    failed, attempted = doctest.testmod(module)
    assert attempted and not failed


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def dropped_of(root):
    return {row["name"]: row["reason"] for row in rows_of(root / "dropped.csv")}


# yt-dlp


def download(folder, name, clip=".mp4", **info):
    """Writes a clip and what yt-dlp says of it."""
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


def hashtags_in(folder, source="description", **info):
    """The hashtags of a clip with this info; () if it is dropped."""
    download(folder, "kept", description="#kept", tags=["kept"])
    download(folder, "a", **info)
    videos = imported(folder, source=source)[0].values()
    found = next((video.hashtags for video in videos if video.path == "a.mp4"), ())
    assert bool(found) == (dropped_of(folder).get("a.info.json") != "no hashtags")
    return found


def test_a_download_becomes_a_row(tmp_path):
    download(tmp_path, "a")
    videos, users = imported(tmp_path)
    assert videos["a"].path == "a.mp4" and videos["a"].timestamp == 1_700_000_000
    assert videos["a"].hashtags == ("sea", "sun") and videos["a"].user_id == "UC1"
    assert videos["a"].written == ("Sea", "sun"), "as their user wrote them"
    assert users["UC1"] == User("UC1"), "age_limit is no user's age"
    assert hashtags_in(tmp_path, "tags") == ("beachlife",)
    assert hashtags_in(tmp_path, "both") == ("sea", "sun", "beachlife")


LONG = "A long day with all of us at the wonderful beach of the old town #seaside #sun"
AS_BLUESKY = {"id": "a", "display_id": "3l4q", "extractor": "Bluesky", "uploader": "Ana"}
TITLES = [  # title, description, hashtags and other info
    *(("My cat #Shorts #cat", odd, ("shorts", "cat"), {})
      for odd in (None, "", "\n", "Subscribe! https://x.y", 3, ["#no"])),
    ("a #Sun b #cat", "#sea #SUN", ("sun", "cat", "sea"), {}),
    # cut titles
    (LONG[:69] + "...", LONG, ("seaside", "sun"), {}),  # as of TikTok
    (LONG[:72], LONG, ("seaside", "sun"), {}),
    ("Ana - " + LONG[:63] + "...", LONG, ("seaside", "sun"), {}),  # as of Twitter
    (LONG[:71] + "…", LONG.replace(" ", "  "), ("seaside", "sun"), {}),
    (LONG[:69] + "...", None, (), {}),
    ("dots #one #tw...", None, ("one",), {}),
    ("glued #one#tw...", None, ("one",), {}),
    ("x" * 55 + " #whole #part   ", None, ("whole", "part"), {}),
    ("x" * 55 + " #whole #partly 3", None, ("whole", "partly"), {}),
    ("x" * 80 + " #shorts", "", ("shorts",), {}),
    ("a day #sun", "a day #sunny", ("sun", "sunny"), {}),
    # titles that yt-dlp made up
    ("Bluesky video #3l4qhp7", "", (), {"id": "3l4qhp7", "extractor": "Bluesky"}),
    ("youtube-tab video #UCx-y", "", (), {"id": "UCx-y", "extractor": "youtube:tab"}),
    ("Parler video #df79fdba-07cc", "", (), {"id": "df79fdba-07cc"}),
    ("NestClip video #f34c", "", (), {"id": "changed", "extractor_key": "NestClip"}),
    ("An entry of #dQw4", "", (), {"id": 7, "display_id": "dQw4"}),
    ("Video by #TeamAna", "", (), {"uploader": "#TeamAna"}),
    ("Post by #TeamAna", "", (), {"channel": "#TeamAna"}),
    (None, "", (), {}),
    (["#no"], "", (), {}),
    # titles that only look made up
    ("Bluesky video #3l4q #sea", "", ("3l4q", "sea"), AS_BLUESKY),
    ("My #3l4q5", "", ("3l4q5",), AS_BLUESKY),
    ("Video by #TeamBo", "", ("teambo",), AS_BLUESKY),
    ("A new video #sea", "", ("sea",), AS_BLUESKY),
]  # fmt: skip


@pytest.mark.parametrize(("title", "description", "hashtags", "info"), TITLES)
def test_title_and_description_give_the_hashtags(tmp_path, title, description, hashtags, info):
    assert hashtags_in(tmp_path, title=title, description=description, **info) == hashtags


@pytest.mark.parametrize(
    ("tags", "hashtags", "odd"),
    [
        (["C# tutorial", "New York"], ("newyork",), ["'C# tutorial'"]),
        (["sea", None, "", 1, 2.5, True, ["sun"], {"a": "b"}], ("sea",), 7),
        ("dance", ("dance",), []),
        ("dance, Fun times,", ("dance", "funtimes"), []),
        ({"sea": "sun"}, (), ["a dict"]),
        (7, (), ["7"]),
        (None, (), []),
        ([], (), []),
        (["#Sea", "sea"], ("sea",), []),
    ],
)
def test_tags_are_a_list_of_texts_and_one_odd_tag_loses_no_clip(tmp_path, tags, hashtags, odd):
    assert hashtags_in(tmp_path, tags=tags, source="tags") == hashtags
    reasons = [row["reason"] for row in rows_of(tmp_path / "dropped.csv")]
    found = [r for r in reasons if r.startswith("a tag that is no hashtag: ")]
    if isinstance(odd, int):
        assert len(found) == odd
    else:
        assert found == [f"a tag that is no hashtag: {value}" for value in odd]


def test_time_has_several_names_and_an_odd_one_costs_only_itself(tmp_path):
    times = {
        "seconds": (1_700_000_000.9, None, 1_700_000_000),
        "text": ("1700000000", "20231114", 1_700_000_000),
        "day": (None, "20231114", 1_699_920_000),  # its start in UTC
        "milliseconds": (1_700_000_000_123, None, 1_700_000_000),
        "iso": ("NA", "2023-11-14", 1_699_920_000),
        "late": (10**30, "20231114", 1_699_920_000),
        "zero": (0, None, 0), "none": (None, None, None), "na": ("NA", "NA", None),
        "before": (-5, None, None), "word": (None, "yesterday", None), "true": (True, None, None),
        "list": ([1], [2], None), "nan": (float("nan"), None, None),
        "infinite": (float("inf"), None, None),
    }  # fmt: skip
    for name, (timestamp, date, _) in times.items():
        download(tmp_path, name, timestamp=timestamp, upload_date=date)
    videos, _ = imported(tmp_path)
    assert {n: v.timestamp for n, v in videos.items()} == {n: t[2] for n, t in times.items()}
    dropped = dropped_of(tmp_path)
    odd = ["before", "infinite", "late", "list", "true", "word"]
    assert sorted(dropped) == [f"{name}.info.json" for name in odd]
    assert dropped["word.info.json"] == "a time that cannot be read: 'yesterday'"


@pytest.mark.parametrize(
    ("posters", "users"),
    [
        # channel_id, then uploader_id, then uploader
        ([("UC1", "@ana", "Ana"), ("UC1", None, "Ana"), ("UC1", "UC1", None)], ["UC1"] * 3),
        ([(None, "@ana", "Ana"), (None, 68, "Bo"), (None, None, " Jo \n Doe")],
         ["@ana", "68", "Jo Doe"]),
        # a clip without the first shares the others with one that has it
        ([(None, "@ana", "Ana"), ("UC1", "@Ana", "Ana"), (None, "UC1", None)], ["UC1"] * 3),
        ([(None, None, "@ana"), ("UC1", "@ana", "x")], ["UC1"] * 2),
        ([(None, None, "ana"), (None, "77", "Ana")], ["77"] * 2),
        # handles differ neither by case nor by '@'
        ([(None, None, "ana"), (None, None, "@Ana"), (None, None, "ANA")], ["ana"] * 3),
        ([(None, "@ana", "x"), (None, "Ana", "y")], ["@ana"] * 2),
        # what several have says nothing
        ([("UC1", "@x", "Ana"), ("UC2", "@y", "Ana"), (None, None, "Ana")], ["UC1", "UC2", "Ana"]),
        ([("UC1", "@ana", "x"), ("UC2", "@ana", "y"), (None, "@ana", "x")], ["UC1", "UC2", "@ana"]),
        ([("UC1", "@1", "Ana"), (None, "@2", "Ana")], ["UC1", "@2"]),
        ([("UCa", None, None), ("UCA", None, None)], ["UCa", "UCA"]),
        # unknown is no id
        ([("NA", "n/a", "Ana"), ("null", "None", "Bo"), ("", " ", "unknown"), (True, 1.5, ["x"])],
         ["Ana", "Bo"]),
    ],
)  # fmt: skip
def test_one_person_is_one_user(tmp_path, posters, users):
    for index, ids in enumerate(posters):
        keys = ("channel_id", "uploader_id", "uploader")
        download(tmp_path, str(index), **dict(zip(keys, ids, strict=True)))
    videos, _ = imported(tmp_path)
    assert [videos[name].user_id for name in sorted(videos, key=int)] == users


def test_people_of_two_sites_share_no_handle(tmp_path):
    download(tmp_path, "a", extractor="youtube")
    download(tmp_path, "b", extractor="twitter", channel_id=None)
    download(tmp_path, "c", extractor="youtube:tab", channel_id=None)
    videos, _ = imported(tmp_path)
    assert [videos[name].user_id for name in "abc"] == ["UC1", "@ana", "UC1"]


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
    assert unused.startswith("1 user without attributes, which another row of theirs has: @ana")


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


GOOD_ROW = "UC2,f,21,PT,\n"
BAD_ROWS = ["UC1,f\n", ",f,21,PT,\n", "UC3,f,21,PT,\0\n", '"UC3,f,21,PT,\n', "UC\xe9,,,,\n"]
BAD_TABLES = [[GOOD_ROW, bad] for bad in (*BAD_ROWS, "UC2,m,,,\n")]  # of two rows the later is bad
BAD_TABLES += [[bad, GOOD_ROW] for bad in BAD_ROWS]


@pytest.mark.parametrize("rows", BAD_TABLES)
def test_a_bad_row_of_users_costs_only_itself_and_stays_where_it_is(tmp_path, rows):
    download(tmp_path, "a")
    download(tmp_path, "b", **BO)
    own, table = tmp_path / "users.csv", (USERS + "".join(rows)).encode("latin-1")
    own.write_bytes(table)
    import_ytdlp.import_folder(tmp_path, own, "description")
    assert own.read_bytes().startswith(table)
    raw = read_raw_dataset(tmp_path, strict=False)
    assert len(raw.videos) == 2 and raw.users["UC1"] == User("UC1")
    assert raw.users["UC2"] == User("UC2", raw.users["UC2"].gender, 21, "PT", ())
    assert list(dropped_of(tmp_path)) == [f"users.csv:{3 - rows.index(GOOD_ROW)}"]


def test_clips_are_read_in_the_order_of_their_paths(tmp_path):
    download(tmp_path / "sub folder", "a b", clip=".webm")
    download(tmp_path, "again", id="a b")
    (tmp_path / "list.info.json").write_text('{"_type": "playlist", "id": "PL"}')
    videos, _ = imported(tmp_path)
    assert [video.path for video in videos.values()] == ["again.mp4"]
    same_id, playlist = "an id that another clip has", "a playlist or channel"
    assert dropped_of(tmp_path) == {"sub folder/a b.info.json": same_id, "list.info.json": playlist}


@pytest.mark.parametrize(
    ("ext", "beside", "clip"),
    [
        ("mp4", [".mp4", ".mkv"], ".mp4"), ("webm", [".mp4", ".webm"], ".webm"),
        ("MP4", [".webm", ".mp4"], ".mp4"), ("webm", [".m4a", ".mkv"], ".mkv"),
        ("m4a", [".m4a", ".mp4"], ".mp4"), (None, [".mkv", ".mp4"], ".mp4"),
        ("webm", [".desktop", ".mp4", ".url", ".webloc"], ".mp4"), ("mp4", [".MP4"], ".MP4"),
        ("unknown_video", [".unknown_video"], ".unknown_video"), ("gif", [".gif"], ".gif"),
        ("mp4", [""], ""), ("NA", [".mov"], ".mov"),
        # by-products and parts of a download
        ("mp4", (".srt .nfo .en.vtt .description .txt .html .db .jpg .webp .image .gif .avif "
                 ".mhtml .m4a .mp3 .opus .ogg .wav .weba .mp4.part .part .mp4.ytdl .f137.mp4 "
                 ".temp.mp4 .mp4.aria2").split(), None),
        ("url", [".url"], None),
        # no suffix at all
        *((ext, [".mp4"], None) for ext in ("mp4/video", "..", "/etc/passwd", "x" * 300, "mp4\0",
                                            "mp4\n", ["mp4"], 4, True)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["a", "a.b c.d"])
def test_which_file_is_the_clip(tmp_path, name, ext, beside, clip):
    download(tmp_path, "kept")
    download(tmp_path, name, clip="", ext=ext)
    for suffix in beside:
        (tmp_path / f"{name}{suffix}").write_bytes(b"a file")
    (tmp_path / f"{name}.mov.mp4").mkdir()  # no file, and another's name
    if clip == "" and "." in name:
        clip = None  # its last part is its suffix
    videos, _ = imported(tmp_path)
    found = [] if clip is None else [f"{name}{clip}"]
    assert [video.path for video in videos.values()] == sorted([*found, "kept.mp4"])
    assert list(dropped_of(tmp_path)) == ([f"{name}.info.json"] if clip is None else [])


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


ODD_NAMES = {b"caf\xe9": "caf\\udce9", b"a\nb": "a\\nb", b"a\rb": "a\\rb", b" a": " a"}
ODD_NAMES |= {" été".encode(): " été"}
GOOD_NAMES = ["e\u2028f".encode(), b'q"uote, and comma', b"tab\tbell\x07", b"-=+@"]


@pytest.mark.parametrize(
    ("name", "shown"), [*ODD_NAMES.items(), *((name, None) for name in GOOD_NAMES)]
)
def test_an_odd_name_of_a_file_costs_only_itself(tmp_path, name, shown):
    download(tmp_path, "kept")
    for suffix, content in ((b".info.json", INFO), (b".mp4", b"")):
        with open(os.fsencode(tmp_path) + b"/" + name + suffix, "wb") as file:
            file.write(content)
    command = [sys.executable, "-m", "tools.import_ytdlp", f"--folder={tmp_path}"]
    locale = {"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, env=os.environ | locale)
    assert ended.returncode == 0, ended.stderr
    raw = read_raw_dataset(tmp_path, strict=True)
    if shown:
        assert [video.video_id for video in raw.videos] == ["kept"]
        assert list(dropped_of(tmp_path)) == [f"{shown}.info.json"]
        assert f"{shown}.info.json".encode("ascii", "backslashreplace") in ended.stdout
    else:
        assert {video.path for video in raw.videos} == {"kept.mp4", os.fsdecode(name) + ".mp4"}
        assert not dropped_of(tmp_path)


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


@settings(max_examples=60, deadline=None)
@given(
    st.lists(good_tags, min_size=1, max_size=3),
    st.dictionaries(st.sampled_from(INFO_KEYS), odd_values, min_size=1, max_size=4),
    st.sampled_from(["description", "tags", "both"]),
)
def test_a_poisoned_info_file_costs_only_itself(clips, poison, source):
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for index, tags in enumerate(clips):
            text = " ".join(f"#{tag}" for tag in tags)
            ids = {"channel_id": f"UC{index}", "uploader_id": f"@good{index}"}
            download(folder, f"good{index}", description=text, tags=tags, **ids)
        ids = {"channel_id": None, "uploader_id": "poison", "uploader": None}
        download(folder, "poison", **ids | poison)
        report = import_ytdlp.import_folder(folder, None, source)
        raw = read_raw_dataset(folder, strict=True)
        good = [video for video in raw.videos if video.path.startswith("good")]
        rows = [(f"good{index}", f"UC{index}", tuple(tags)) for index, tags in enumerate(clips)]
        assert [(video.video_id, video.user_id, video.written) for video in good] == rows
        kept = len(raw.videos) > len(good)
        assert kept or "poison.info.json" in dropped_of(folder)
        assert report[0].startswith(f"{len(raw.videos)} of {len(clips) + 1} clips kept.")
        assert {video.user_id for video in raw.videos} == raw.users.keys()


rows_of_users = st.text(st.sampled_from('aUC1,"\n\r\0 é#'), max_size=12) | st.sampled_from(
    [",,,,", "UC0,,,,", "UC1,f,21", '"', 'x,"', '"x,f,21,PT,\n', "UC1,f,2000,PT,"]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(rows_of_users, max_size=3), st.booleans(), st.sampled_from(["", "\n", "\r\n"]))
def test_a_table_of_users_loses_no_byte_and_gives_what_is_good(rows, first, end):
    good = "UC0,,22,PT,#sea"
    table = USERS + "\n".join([good, *rows] if first else [*rows, good]) + end
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for index in range(3):
            download(folder, str(index), channel_id=f"UC{index}", uploader_id=f"@u{index}")
        own = folder / "users.csv"
        own.write_bytes(table.encode())
        before = import_ytdlp.read_users(own)[0]
        try:
            import_ytdlp.import_folder(folder, own, "description")
        except UserError as error:
            assert "close the quote that its last rows leave open" in str(error)
            assert own.read_bytes() == table.encode()
            return
        assert own.read_bytes().startswith(table.encode())
        raw = read_raw_dataset(folder, strict=False)
        assert len(raw.videos) == 3 and before.items() <= raw.users.items()
        assert {video.user_id for video in raw.videos} <= raw.users.keys()


def texts(max_size, usual):
    return st.text(max_size=max_size) | st.just(usual)


tags = st.lists(texts(3, "sea"), max_size=2).map(tuple)
ages = st.none() | st.integers(-1, 200)
times = st.none() | st.integers(-1, 2**80)
rows_of_videos = st.builds(Video, texts(4, "v1"), texts(4, "a.mp4"), texts(4, "u"), tags, times)
good_and_bad_users = st.builds(User, texts(4, "u"), texts(3, "f"), ages, texts(3, "PT"), tags)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(rows_of_videos, max_size=4, unique_by=lambda video: video.video_id),
    st.lists(good_and_bad_users, max_size=4, unique_by=lambda user: user.user_id),
)
def test_rows_without_a_fault_make_tables(videos, users):
    videos = [Video("v", "v.mp4", "u", ("sea",), None), *videos]
    good = [row for row in videos if not fault_of(row)]
    good_users = [row for row in users if not fault_of(row)]
    with tempfile.TemporaryDirectory() as name:
        write_raw_dataset(name, good, good_users)
        raw = read_raw_dataset(name, strict=False, check_files=False)
    assert list(raw.videos) == good and list(raw.users.values()) == good_users


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="../shared/strangers is not here")
def test_sample_of_many_remuxed_clips(tmp_path):
    subprocess.run([sys.executable, SAMPLES / "21-many-remuxed.py"], cwd=tmp_path, check=True)
    begin = time.process_time()
    videos, users = imported(tmp_path / "many")
    assert time.process_time() - begin < 10 and len(videos) == 4000 and len(users) == 50


def test_an_unusable_folder_is_a_users_mistake(tmp_path):
    def refused(message, folder=tmp_path, users=None):
        with pytest.raises(UserError, match=message):
            import_ytdlp.import_folder(folder, users, "description")

    refused("--folder must be one", tmp_path / "nowhere")
    refused("got none in .*; download with yt-dlp --write-info-json")
    download(tmp_path, "a", clip="")
    refused(r"no clip is left(.|\n)*1 no clip beside it: a\.info\.json")
    (tmp_path / "users.csv").write_bytes(USERS.encode("utf-16"))
    refused("must be UTF-8, got UTF-16", users=tmp_path / "users.csv")


def test_the_command_prints_a_report(tmp_path):
    def run(*flags):
        command = [sys.executable, "-m", "tools.import_ytdlp", *flags]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    download(tmp_path, "a")
    download(tmp_path, "b", clip="")
    ended = run(f"--folder={tmp_path}")
    assert ended.returncode == 0, ended.stderr
    assert "1 of 2 clips kept." in ended.stdout and "no clip beside it: b.info.json" in ended.stdout
    assert f"--config.data.root={tmp_path}" in ended.stdout
    wrong = run(f"--folder={tmp_path}", "more")
    assert wrong.returncode == 2 and "Traceback" not in wrong.stderr
    assert "settings are given as --flag=value, got 'more'" in wrong.stderr


# YFCC100M


def line(name, *, user="9@N0", tags="sun,new+york", uploaded="1200000000", where="", marker="1"):
    """A line of 23 columns; where: "longitude latitude"."""
    longitude, _, latitude = where.partition(" ")
    return "\t".join(
        [
            name, user, "Al+B%C3%B4", "2008-01-10 10:00:00.0", uploaded, "Canon", "A+title",
            "words%0Aand+more", tags, "machine:tag=1", longitude, latitude, "16",
            f"http://photos/{name}", f"http://videos/{name}", "Attribution License",
            "http://licences/by", "8", "7", "5ec", "0r1", "jpg", marker,
        ]
    )  # fmt: skip


def import_lines(root, lines, find_countries=False, name="dataset.tsv"):
    data, path = ("\n".join(lines) + "\n").encode(), root / name
    path.write_bytes({".bz2": bz2.compress, ".gz": gzip.compress}.get(path.suffix, bytes)(data))
    return import_yfcc100m.import_metadata(root, [path], find_countries)


def dataset(root, clips, lines, **options):
    """The videos by id, the users and the report of an import with these clips."""
    (root / "clips").mkdir(exist_ok=True)
    for name in clips:
        (root / "clips" / name).write_bytes(b"a clip")
    report = import_lines(root, lines, **options)
    raw = read_raw_dataset(root, strict=True)
    return {video.video_id: video for video in raw.videos}, raw.users, report


def test_the_first_call_lists_what_to_download_and_the_second_makes_the_dataset(tmp_path):
    lines = [line("11"), line("12"), line("13", marker="0")]
    report = import_lines(tmp_path, lines)
    assert "0 of them are in" in report[-1] and not (tmp_path / "videos.csv").exists()
    asked = (tmp_path / "download.txt").read_text()
    assert asked == "http://videos/11\n  out=11.video\nhttp://videos/12\n  out=12.video\n"
    videos, _, report = dataset(tmp_path, ["11.video", "12.video", "12.video.aria2"], lines)
    clip = Video("11", "clips/11.video", "9@N0", ("sun", "newyork"), 1_200_000_000)
    assert list(videos.values()) == [clip]
    assert report[0] == "2 of 2 videos kept." and report[1].startswith("1 of them is in")
    assert "11" not in (tmp_path / "download.txt").read_text(), "it is here"
    head, first, _ = (tmp_path / "licences.csv").read_text().splitlines()
    assert head == "video_id,licence,licence_url,author,page_url"
    assert first == "11,Attribution License,http://licences/by,Al Bô,http://photos/11"


def test_by_products_beside_clips_are_not_clips(tmp_path):
    names = ["11.jpg", "11.video.part", "12.txt", "12.MP4", "13.video", "13.json", "14"]
    videos, *_ = dataset(tmp_path, names, [line(name) for name in ("11", "12", "13", "14")])
    paths = [video.path for video in videos.values()]
    assert paths == ["clips/12.MP4", "clips/13.video", "clips/14"]


def test_an_odd_field_costs_only_itself(tmp_path):
    lines = [
        line("1", tags="c%23minor,Sun,%00,New+York"),
        line("2", uploaded="9" * 30),
        line("3", uploaded="9" * 5000),
        line("4", uploaded="soon"),
        line("5", where="inf nan"),
        line("6", user="a%00b"),
        line("7", tags="c%23minor,%2C"),
    ]
    videos, *_ = dataset(tmp_path, [f"{number}.video" for number in range(1, 8)], lines)
    assert list(videos) == ["1", "2", "3", "4", "5"]
    assert videos["1"].hashtags == ("sun", "newyork") and videos["1"].written == ("Sun", "NewYork")
    assert [videos[name].timestamp for name in "2345"] == [None, None, None, 1_200_000_000]
    report = dropped_of(tmp_path)
    assert report["2"].startswith("a time that cannot be read: 999")
    assert report["4"] == "a time that cannot be read: soon"
    assert (report["6"], report["7"]) == ("NUL byte", "no user tags")


def test_an_odd_address_gives_aria2c_no_options(tmp_path):
    addresses = ["http%3A%2F%2Fv%0A++dir%3D%2Fetc", "http://v/1", "null", "v%00"]
    lines = [line(str(n)).replace(f"http://videos/{n}", x) for n, x in enumerate(addresses)]
    report = import_lines(tmp_path, lines)
    assert (tmp_path / "download.txt").read_text() == "http://v/1\n  out=1.video\n"
    reason = "no address to download from"
    odd = {"0": f"{reason}: http://v\\n  dir=/etc", "2": reason, "3": f"{reason}: v\\x00"}
    assert dropped_of(tmp_path) == odd
    assert "4 of 4 videos kept." in report


odd_fields = (
    st.text(max_size=10)
    | st.text(max_size=6).map(lambda text: urllib.parse.quote_plus(text, errors="replace"))
    | st.binary(max_size=6).map(urllib.parse.quote_from_bytes)
    | st.sampled_from(["null", "", "%", "%23", "%00", "9" * 5000, "-1", "1e9", "a%09b", "x,%0A,y"])
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(good_tags, min_size=1, max_size=3),
    st.dictionaries(st.integers(1, 22), odd_fields, min_size=1, max_size=3),
    st.booleans(),
)
def test_a_poisoned_line_costs_only_itself(clips, poison, numbered):
    lines = [
        line(f"1{index}", user=f"{index}@N0", tags=",".join(map(urllib.parse.quote, tags)))
        for index, tags in enumerate(clips)
    ]
    fields = line("99", user="9@N0").split("\t")
    lines.insert(0, "\t".join(poison.get(index, field) for index, field in enumerate(fields)))
    if numbered:
        lines = [f"{n}\t{one[:2]}\thash\t{one[3:]}" for n, one in enumerate(lines)]
    lines = [one.encode(errors="replace").decode() for one in lines]
    with tempfile.TemporaryDirectory() as name:
        root = pathlib.Path(name)
        names = ["99.video", *(f"1{index}.video" for index in range(len(clips)))]
        videos, *_ = dataset(root, names, lines)
        good = [video for name, video in videos.items() if name != "99"]
        rows = [(f"1{index}", f"{index}@N0", tuple(tags)) for index, tags in enumerate(clips)]
        assert [(video.video_id, video.user_id, video.written) for video in good] == rows
        assert len(rows_of(root / "licences.csv")) == len(videos)
        photo = poison.get(22, "1") != "1"
        assert len(videos) > len(good) or photo or dropped_of(root)


@pytest.mark.parametrize("name", ["dataset.tsv", "dataset.bz2", "dataset.gz"])
def test_both_editions_are_read_plain_or_compressed(tmp_path, name):
    newer = line("12").split("\t")
    newer = "\t".join(["4711", newer[0], "a1b2c3", *newer[1:]])
    videos, *_ = dataset(tmp_path, ["11.mp4", "12.mp4"], [line("11"), newer], name=name)
    assert list(videos) == ["11", "12"]


def test_what_cannot_be_used_is_dropped_with_a_reason(tmp_path):
    lines = [line("11", uploaded="null"), line("11"), line("12", tags=""), line("13", tags="%23,+")]
    lines += [line("14", user=""), line("x"), "1\t2", ""]
    videos, *_ = dataset(tmp_path, ["11.mp4"], lines)
    assert videos["11"].timestamp is None
    columns = {"dataset.tsv:7": "a line of 2 columns", "dataset.tsv:8": "a line of 1 columns"}
    tags = {"12": "no user tags", "13": "no user tags"}
    ids = {"11": "an id that another video has", "14": "no user", "x": "no id"}
    assert dropped_of(tmp_path) == columns | tags | ids


def test_a_users_country_is_the_one_of_most_of_their_videos(tmp_path):
    lisbon, paris, namibia = "-9.14 38.72", "2.35 48.86", "17.08 -22.56"
    lines = [line("1", where=lisbon), line("2", where=paris), line("3", where=lisbon)]
    lines += [line("4", user="nowhere", where="2 95"), line("5", user="5", where=namibia)]
    names = ["1.mp4", "2.mp4", "4.mp4", "5.mp4"]
    _, users, report = dataset(tmp_path, names, lines, find_countries=True)
    assert [users[name].country for name in ("9@N0", "nowhere")] == ["PT", ""]
    assert users["5"].country == "NAM", '"NA" is unknown'
    assert report[-1] == "3 users, 2 with a country."


def test_damage_and_absence_are_said_in_a_sentence(tmp_path, monkeypatch):
    data, whole = (line("1") + "\n").encode() * 9000, "a metadata file must be whole"
    (tmp_path / "cut.bz2").write_bytes(bz2.compress(data)[:-40])
    (tmp_path / "cut.gz").write_bytes(gzip.compress(data)[:10] + b"\xff" * 60)
    absent = "--metadata must name files that can be read"
    for name, message in (("absent.bz2", absent), ("cut.bz2", whole), ("cut.gz", whole)):
        with pytest.raises(UserError, match=message):
            import_yfcc100m.import_metadata(tmp_path, [tmp_path / name], False)
    with pytest.raises(UserError, match="the metadata must have a video that can be used"):
        import_lines(tmp_path, [line("1", marker="0")])
    monkeypatch.setitem(sys.modules, "reverse_geocode", None)
    with pytest.raises(UserError, match="pip install reverse-geocode, or --nocountries"):
        import_yfcc100m.countries([])


def test_a_report_counts_and_gives_examples(tmp_path):
    dropped = Dropped()
    for index in range(5):
        dropped.add(f"name{index}", "too long")
    dropped.add("\ud800", "no letter")
    dropped.write(tmp_path)
    assert Dropped().lines(1, "thing", tmp_path) == ["1 of 1 thing kept."]
    kept, long, odd, _ = dropped.lines(3, "thing", tmp_path)
    assert kept == "3 of 9 things kept." and odd == "       1 no letter: \\ud800"
    assert long == "       5 too long: name0, name1, name2, ..."
