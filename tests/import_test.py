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
from uhman_jax.errors import UserError

ROOT = pathlib.Path(__file__).parents[1]
STRANGERS = pathlib.Path(__file__).parents[2] / "shared" / "strangers"
needs_samples = pytest.mark.skipif(
    not STRANGERS.is_dir(), reason="the samples of ../shared/strangers are not here"
)


@pytest.mark.parametrize("module", [ytdlp_info, ytdlp_users, import_yfcc100m])
def test_the_examples_hold(module):
    failed, attempted = doctest.testmod(module)
    assert attempted and not failed


def dropped_of(root):
    with open(root / "dropped.csv", newline="", encoding="utf-8") as file:
        return {row["name"]: row["reason"] for row in csv.DictReader(file)}


# yt-dlp


def download(folder, name, clip=".mp4", **info):
    """Writes a clip and what yt-dlp says of it."""
    folder.mkdir(parents=True, exist_ok=True)
    usual = {
        "id": name,
        "title": "A title",
        "description": "#Sea and #sun",
        "tags": ["beach life"],
        "uploader": "Ana Maria",
        "uploader_id": "@ana",
        "channel_id": "UC1",
        "timestamp": 1_700_000_000,
        "upload_date": "20231114",
        "ext": "mp4",
        "age_limit": 18,
    }
    (folder / f"{name}.info.json").write_text(json.dumps(usual | info), "utf-8")
    if clip:
        (folder / f"{name}{clip}").write_bytes(b"a clip")


def imported(folder, users=None, source="description"):
    import_ytdlp.import_folder(folder, users, source)
    raw = read_raw_dataset(folder, strict=True)
    return {video.video_id: video for video in raw.videos}, raw.users


def hashtags_in(folder, **info):
    """The hashtags of a clip, by what it says."""
    source = info.pop("source", "description")
    download(folder, "kept", description="#kept", tags=["kept"])
    download(folder, "a", **info)
    video = imported(folder, source=source)[0].get("a")
    return video.hashtags if video else ()


def test_a_download_becomes_a_row(tmp_path):
    download(tmp_path, "a")
    videos, users = imported(tmp_path)
    assert videos["a"].path == "a.mp4" and videos["a"].timestamp == 1_700_000_000
    assert videos["a"].hashtags == ("sea", "sun") and videos["a"].user_id == "UC1"
    assert videos["a"].written == ("Sea", "sun"), "as their user wrote them"
    user = users["UC1"]
    assert (user.gender, user.age, user.country) == ("", None, ""), "age_limit is no user's age"


@pytest.mark.parametrize(
    ("source", "hashtags"),
    [
        ("description", ("sea", "sun")),
        ("tags", ("beachlife",)),
        ("both", ("sea", "sun", "beachlife")),
    ],
)
def test_the_source_of_the_hashtags_can_be_chosen(tmp_path, source, hashtags):
    download(tmp_path, "a")
    assert imported(tmp_path, source=source)[0]["a"].hashtags == hashtags


@pytest.mark.parametrize("description", [None, "", "\n", "Subscribe! https://x.y", 3, ["#no"]])
def test_title_and_description_are_taken_together(tmp_path, description):
    title = "My cat #Shorts #cat"
    assert hashtags_in(tmp_path, title=title, description=description) == ("shorts", "cat")


def test_each_hashtag_of_both_texts_counts_once(tmp_path):
    got = hashtags_in(tmp_path, title="a #Sun b #cat", description="#sea #SUN")
    assert got == ("sun", "cat", "sea")


DESCRIPTION = "A long day with all of us at the wonderful beach of the old town #seaside #sun"


@pytest.mark.parametrize(
    ("title", "description", "hashtags"),
    [
        (DESCRIPTION[:69] + "...", DESCRIPTION, ("seaside", "sun")),  # as of TikTok
        (DESCRIPTION[:72], DESCRIPTION, ("seaside", "sun")),
        ("Ana - " + DESCRIPTION[:63] + "...", DESCRIPTION, ("seaside", "sun")),  # as of Twitter
        (DESCRIPTION[:71] + "…", DESCRIPTION.replace(" ", "  "), ("seaside", "sun")),
        (DESCRIPTION[:69] + "...", None, ()),
        ("dots #one #tw...", None, ("one",)),
        ("glued #one#tw...", None, ("one",)),
        ("x" * 55 + " #whole #part   ", None, ("whole", "part")),
        ("x" * 55 + " #whole #partly 3", None, ("whole", "partly")),
        ("x" * 80 + " #shorts", "", ("shorts",)),
        ("a day #sun", "a day #sunny", ("sun", "sunny")),
    ],
)
def test_a_cut_title_adds_no_cut_hashtag(tmp_path, title, description, hashtags):
    assert hashtags_in(tmp_path, title=title, description=description) == hashtags


@pytest.mark.parametrize(
    "info",
    [
        {"title": "Bluesky video #3l4qhp7bcs52c", "id": "3l4qhp7bcs52c", "extractor": "Bluesky"},
        {"title": "youtube-tab video #UCx-y", "id": "UCx-y", "extractor": "youtube:tab"},
        {"title": "Parler video #df79fdba-07cc", "id": "df79fdba-07cc"},
        {"title": "NestClip video #f34c", "id": "changed", "extractor_key": "NestClip"},
        {"title": "An entry of #dQw4", "id": 7, "display_id": "dQw4"},
        {"title": "Video by #TeamAna", "uploader": "#TeamAna"},
        {"title": "Post by #TeamAna", "channel": "#TeamAna"},
        {"title": None},
        {"title": ["#no"]},
    ],
)
def test_a_title_that_is_made_up_is_no_text_of_the_poster(tmp_path, info):
    given = {"description": "", "uploader_id": "poster"} | info
    download(tmp_path, "a", **given)
    download(tmp_path, "kept")
    assert list(imported(tmp_path)[0]) == ["kept"]
    assert dropped_of(tmp_path) == {"a.info.json": "no hashtags"}


@pytest.mark.parametrize(
    ("title", "hashtags"),
    [
        ("Bluesky video #3l4q #sea", ("3l4q", "sea")),
        ("My #3l4q5", ("3l4q5",)),
        ("Video by #TeamBo", ("teambo",)),
        ("A new video #sea", ("sea",)),
    ],
)
def test_a_title_that_is_like_a_made_up_one_stays(tmp_path, title, hashtags):
    about = {"description": "", "extractor": "Bluesky", "uploader": "Ana"}
    assert hashtags_in(tmp_path, title=title, id="a", display_id="3l4q", **about) == hashtags


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
    with open(tmp_path / "dropped.csv", newline="", encoding="utf-8") as file:
        reasons = [row["reason"] for row in csv.DictReader(file)]
    told = [r for r in reasons if r.startswith("a tag that is no hashtag: ")]
    if isinstance(odd, int):
        assert len(told) == odd
    else:
        assert told == [f"a tag that is no hashtag: {value}" for value in odd]
    assert ("no hashtags" in reasons) == (not hashtags)


def test_time_has_several_names_and_an_odd_one_costs_only_itself(tmp_path):
    times = {
        "seconds": (1_700_000_000.9, None, 1_700_000_000),
        "text": ("1700000000", "20231114", 1_700_000_000),
        "day": (None, "20231114", 1_699_920_000),  # its start in UTC
        "zero": (0, None, 0),
        "milliseconds": (1_700_000_000_123, None, 1_700_000_000),
        "iso": ("NA", "2023-11-14", 1_699_920_000),
        "none": (None, None, None),
        "na": ("NA", "NA", None),
        "late": (10**30, "20231114", 1_699_920_000),
        "before": (-5, None, None),
        "word": (None, "yesterday", None),
        "true": (True, None, None),
        "list": ([1], [2], None),
        "nan": (float("nan"), None, None),
        "infinite": (float("inf"), None, None),
    }
    for name, (timestamp, date, _) in times.items():
        download(tmp_path, name, timestamp=timestamp, upload_date=date)
    videos, _ = imported(tmp_path)
    assert {n: v.timestamp for n, v in videos.items()} == {n: t[2] for n, t in times.items()}
    odd = ["before", "infinite", "late", "list", "true", "word"]
    told = dropped_of(tmp_path)
    assert sorted(told) == [f"{name}.info.json" for name in odd]
    assert told["word.info.json"] == "a time that cannot be read: 'yesterday'"


# Who posted


def users_in(folder, *posters):
    """Users of clips 0, 1, ... by the ids of each: (channel_id, uploader_id, uploader)."""
    for index, ids in enumerate(posters):
        keys = ("channel_id", "uploader_id", "uploader")
        download(folder, str(index), **dict(zip(keys, ids, strict=True)))
    videos, _ = imported(folder)
    return [videos[name].user_id for name in sorted(videos, key=int)]


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
    assert users_in(tmp_path, *posters) == users


def test_people_of_two_sites_share_no_handle(tmp_path):
    download(tmp_path, "a", extractor="youtube")
    download(tmp_path, "b", extractor="twitter", channel_id=None)
    download(tmp_path, "c", extractor="youtube:tab", channel_id=None)
    videos, _ = imported(tmp_path)
    assert [videos[name].user_id for name in "abc"] == ["UC1", "@ana", "UC1"]


USERS = "user_id,gender,age,country,history\n"


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
    download(root, "b", channel_id="UC2", uploader_id="@bo", uploader="Bo")
    for path, table in ((root / "users.csv", own), (tmp_path / "people.csv", people)):
        if table:
            path.write_text(USERS + table)
            given = path
    told = import_ytdlp.import_folder(root, given, "description")
    users = read_raw_dataset(root, strict=True).users
    assert {name: user.age for name, user in users.items()} == ages
    if people is None:
        (name,) = (name for name in ages if name != "UC2" and own.startswith(name))
        said = f"1 user found in the table under another id: {name} for UC1."
        assert "2 users, 1 with attributes." in told and (said in told) == (name != "UC1")


def test_the_folders_own_table_of_users_only_gets_more_rows(tmp_path):
    table = "name, history,user_id,age,gender,country\r\nAna,,UC1,old?,F,Portugal\r\nx,,other,,,"
    own = tmp_path / "clips" / "users.csv"
    for path in (own, own.parent / ".." / "clips" / "users.csv"):  # whatever it is called
        download(own.parent, "a")
        download(own.parent, "b", channel_id="UC2", uploader_id="@bo", uploader="Bo")
        own.write_text(table, newline="")
        for _ in range(2):  # the second adds nothing
            import_ytdlp.import_folder(own.parent, path, "description")
            assert own.read_bytes() == table.encode() + b"\n,,UC2,,,\n"
    assert dropped_of(own.parent) == {
        "users.csv:2": "an attribute that cannot be read: bad age 'old?'"
    }
    users = read_raw_dataset(own.parent, strict=False).users
    assert users["UC1"] == User("UC1", "female", None, "PT", ()) and "other" in users


def test_a_row_of_the_folders_table_is_not_changed_for_another_of_the_same_user(tmp_path):
    download(tmp_path, "a")
    own = tmp_path / "users.csv"
    own.write_text(USERS + "UC1,,,,\n@ana,f,21,PT,\n")
    told = import_ytdlp.import_folder(tmp_path, own, "description")
    assert own.read_text() == USERS + "UC1,,,,\n@ana,f,21,PT,\n"
    assert told[-2] == "1 user, 0 with attributes."
    assert told[-1].startswith("1 user without attributes, which another row of theirs has: @ana")


@pytest.mark.parametrize(
    ("table", "lost"),
    [
        (USERS.replace("age", "age,note") + "UC1,f,21,a note,PT,\n", "the column 'note'"),
        (USERS + "UC1,f,old?,PT,\n", r"line 2 \(bad age\)"),
        (USERS + "UC1,f\n", r"line 2 \(wrong field count\)"),
    ],
)
def test_a_table_of_the_folder_that_would_lose_something_is_not_written_again(
    tmp_path, table, lost
):
    (tmp_path / "people.csv").write_text(USERS + "UC1,f,21,PT,\n")
    download(tmp_path / "clips", "a")
    own = tmp_path / "clips" / "users.csv"
    own.write_text(table)
    with pytest.raises(UserError, match=f"got {lost}; move it elsewhere"):
        import_ytdlp.import_folder(own.parent, tmp_path / "people.csv", "description")
    assert own.read_text() == table


BAD_ROWS = ["UC1,f\n", ",f,21,PT,\n", "UC3,f,21,PT,\0\n", "UC2,m,,,\n"]
BAD_ROWS += ['"UC3,f,21,PT,\n', "UC\xe9,,,,\n"]


@pytest.mark.parametrize("bad", BAD_ROWS)
@pytest.mark.parametrize("last", [True, False])
def test_a_bad_row_of_users_costs_only_itself_and_stays_where_it_is(tmp_path, bad, last):
    download(tmp_path, "a")
    download(tmp_path, "b", channel_id="UC2", uploader_id="@bo", uploader="Bo")
    rows = ["UC2,f,21,PT,\n", bad][:: 1 if last else -1]
    if "UC2" in bad:  # the later one of two is bad
        rows = ["UC2,f,21,PT,\n", bad]
    table = (USERS + "".join(rows)).encode("latin-1")
    own = tmp_path / "users.csv"
    own.write_bytes(table)
    import_ytdlp.import_folder(tmp_path, own, "description")
    assert own.read_bytes().startswith(table)
    raw = read_raw_dataset(tmp_path, strict=False)
    assert len(raw.videos) == 2
    assert raw.users["UC2"] == User("UC2", raw.users["UC2"].gender, 21, "PT", ())
    assert raw.users["UC1"] == User("UC1", "", None, "", ())
    (name,) = dropped_of(tmp_path)
    assert name == f"users.csv:{2 + rows.index(bad)}"


# Which file is the clip


def test_clips_are_found_by_name_whatever_they_end_with(tmp_path):
    download(tmp_path / "sub folder", "a b", clip=".webm")
    download(tmp_path, "part", clip=".mp4.part")
    download(tmp_path, "pictures", clip=".jpg")
    download(tmp_path, "again", id="a b")
    (tmp_path / "list.info.json").write_text('{"_type": "playlist", "id": "PL"}')
    (tmp_path / "broken.info.json").write_text("{")
    (tmp_path / "array.info.json").write_text("[]")
    videos, _ = imported(tmp_path)
    assert [video.path for video in videos.values()] == ["again.mp4"]
    assert dropped_of(tmp_path) == {
        "part.info.json": "no clip beside it",
        "pictures.info.json": "no clip beside it",
        "sub folder/a b.info.json": "an id that another clip has",
        "list.info.json": "a playlist or channel",
        "broken.info.json": "info that cannot be read",
        "array.info.json": "info that cannot be read",
    }


@pytest.mark.parametrize(
    ("ext", "beside", "clip"),
    [
        ("mp4", [".mp4", ".mkv"], ".mp4"),
        ("webm", [".mp4", ".webm"], ".webm"),
        ("mp4", [".MP4"], ".MP4"),
        ("MP4", [".webm", ".mp4"], ".mp4"),
        ("webm", [".m4a", ".mkv"], ".mkv"),
        ("m4a", [".m4a", ".mp4"], ".mp4"),
        ("webm", [".desktop", ".mp4", ".url", ".webloc"], ".mp4"),
        (None, [".mkv", ".mp4"], ".mp4"),
        ("gif", [".gif"], ".gif"),
        ("unknown_video", [".unknown_video"], ".unknown_video"),
        ("mp4", [""], ""),
        ("NA", [".mov"], ".mov"),
        # by-products and parts of a download
        ("mp4", [".srt", ".nfo", ".en.vtt", ".description", ".txt", ".html", ".db"], None),
        ("mp4", [".jpg", ".webp", ".image", ".gif", ".avif", ".mhtml"], None),
        ("mp4", [".m4a", ".mp3", ".opus", ".ogg", ".wav", ".weba"], None),
        ("mp4", [".mp4.part", ".part", ".mp4.ytdl", ".f137.mp4", ".temp.mp4", ".mp4.aria2"], None),
        ("url", [".url"], None),
        # no suffix at all
        ("mp4/video", [".mp4"], None),
        ("..", [".mp4"], None),
        ("/etc/passwd", [".mp4"], None),
        ("x" * 300, [".mp4"], None),
        ("mp4\0", [".mp4"], None),
        ("mp4\n", [".mp4"], None),
        (["mp4"], [".mp4"], None),
        (4, [".mp4"], None),
        (True, [".mp4"], None),
    ],
)
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
    assert [v.path for v in videos.values()] == sorted(
        [*([] if clip is None else [f"{name}{clip}"]), "kept.mp4"]
    )
    assert list(dropped_of(tmp_path)) == ([f"{name}.info.json"] if clip is None else [])


def test_only_regular_files_are_clips(tmp_path):
    for name in ("folder", "pipe", "broken", "link", "kept"):
        download(tmp_path, name, clip=".mp4" if name == "kept" else "")
    (tmp_path / "folder.mp4").mkdir()
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "broken.mp4").symlink_to("nowhere")
    (tmp_path / "link.mp4").symlink_to("kept.mp4")
    assert sorted(imported(tmp_path)[0]) == ["kept", "link"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_named(tmp_path):
    download(tmp_path, "kept")
    download(tmp_path / "locked", "a")
    download(tmp_path, "b")
    (tmp_path / "b.info.json").chmod(0)
    (tmp_path / "locked").chmod(0)
    try:
        assert list(imported(tmp_path)[0]) == ["kept"]
        assert dropped_of(tmp_path) == {
            "locked": "a folder that cannot be read",
            "b.info.json": "info that cannot be read",
        }
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


# One bad thing costs only itself


GOOD_INFO = {"id": "x", "ext": "mp4", "uploader_id": "x", "description": "#sea"}
DEEP = b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "info that cannot be read"),
        (b"{", "info that cannot be read"),
        (b"[]", "info that cannot be read"),
        (b"7", "info that cannot be read"),
        (DEEP, "info that cannot be read"),
        (b"[" * 100_000, "info that cannot be read"),
        (b'{"id": ' + b"9" * 5000 + b"}", "info that cannot be read"),
        (json.dumps(GOOD_INFO).encode().replace(b"sea", b"caf\xe9"), "info that cannot be read"),
        (b"\xef\xbb\xbf" + json.dumps(GOOD_INFO).encode(), None),
        (json.dumps(GOOD_INFO).encode("utf-16"), None),
    ],
)
def test_info_that_cannot_be_read_costs_only_itself(tmp_path, content, reason):
    download(tmp_path, "kept")
    (tmp_path / "x.info.json").write_bytes(content)
    (tmp_path / "x.mp4").touch()
    videos, _ = imported(tmp_path)
    assert list(videos) == (["kept"] if reason else ["kept", "x"])
    assert dropped_of(tmp_path) == ({"x.info.json": reason} if reason else {})


def test_an_info_file_that_is_no_file_costs_only_itself(tmp_path):
    download(tmp_path, "kept")
    download(tmp_path / "folder.info.json", "inside")
    os.mkfifo(tmp_path / "pipe.info.json")
    (tmp_path / "broken.info.json").symlink_to("nowhere")
    (tmp_path / "round.info.json").symlink_to("round.info.json")
    assert sorted(imported(tmp_path)[0]) == ["inside", "kept"]
    assert dropped_of(tmp_path) == {
        f"{name}.info.json": "info that is no file"
        for name in ("folder", "pipe", "broken", "round")
    }


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"caf\xe9", "caf\\udce9"),
        (b"a\nb", "a\\nb"),
        (b"a\rb", "a\\rb"),
        (b" a", " a"),
        (" été".encode(), " été"),
        ("e\u2028f".encode(), None),
        (b'q"uote, and comma', None),
        (b"tab\tbell\x07", None),
        (b"-=+@", None),
    ],
)
def test_an_odd_name_of_a_file_costs_only_itself(tmp_path, name, shown):
    download(tmp_path, "kept")
    for suffix, content in ((b".info.json", json.dumps(GOOD_INFO).encode()), (b".mp4", b"")):
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


odd_values = st.recursive(
    st.none()
    | st.booleans()
    | st.floats()
    | st.integers()
    | st.integers(10**300, 10**301)
    | st.text(max_size=8)
    | st.text(st.characters(categories=["Cc", "Cs", "Cf", "Zl", "Po", "So"]), max_size=4)
    | st.sampled_from(
        ["../up", "/etc/passwd", "NA", "#", "#a#", "=1+1", '"', "a\nb", "\0", "x" * 300]
    )
    | st.sampled_from(["#" + "a" * 140_000, "mp4/video", "..", "\ud800", " a ", "\ufeff"]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=1)
    ),
    max_leaves=3,
)
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
        told = import_ytdlp.import_folder(folder, None, source)
        raw = read_raw_dataset(folder, strict=True)
        good = [video for video in raw.videos if video.path.startswith("good")]
        assert [(v.video_id, v.user_id, v.written) for v in good] == [
            (f"good{index}", f"UC{index}", tuple(tags)) for index, tags in enumerate(clips)
        ]
        kept = len(raw.videos) > len(good)
        assert kept or "poison.info.json" in dropped_of(folder)
        assert told[0].startswith(f"{len(raw.videos)} of {len(clips) + 1} clips kept.")
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


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.builds(
            Video,
            st.text(max_size=4),
            st.text(max_size=4) | st.just("a.mp4"),
            st.text(max_size=4),
            st.lists(st.text(max_size=3) | st.just("sea"), max_size=2).map(tuple),
            st.none() | st.integers(-1, 2**80),
        ),
        max_size=4,
        unique_by=lambda video: video.video_id,
    ),
    st.lists(
        st.builds(
            User,
            st.text(max_size=4),
            st.text(max_size=3),
            st.none() | st.integers(-1, 200),
            st.text(max_size=3),
            st.lists(st.text(max_size=3) | st.just("sea"), max_size=2).map(tuple),
        ),
        max_size=4,
        unique_by=lambda user: user.user_id,
    ),
)
def test_rows_without_a_fault_make_tables(videos, users):
    videos = [Video("v", "v.mp4", "u", ("sea",), None), *videos]
    good = [row for row in videos if not fault_of(row)]
    good_users = [row for row in users if not fault_of(row)]
    with tempfile.TemporaryDirectory() as name:
        write_raw_dataset(name, good, good_users)
        raw = read_raw_dataset(name, strict=False, check_files=False)
    assert list(raw.videos) == good and list(raw.users.values()) == good_users


@needs_samples
def test_sample_of_many_remuxed_clips(tmp_path):
    subprocess.run([sys.executable, STRANGERS / "21-many-remuxed.py"], cwd=tmp_path, check=True)
    begin = time.process_time()
    videos, users = imported(tmp_path / "many")
    assert time.process_time() - begin < 10
    assert len(videos) == 4000 and len(users) == 50


# The command


def test_what_cannot_be_imported_is_said_in_a_sentence(tmp_path):
    def refused(said, folder=tmp_path, users=None):
        with pytest.raises(UserError, match=said):
            import_ytdlp.import_folder(folder, users, "description")

    refused("--folder must be one", tmp_path / "nowhere")
    refused("got none in .*; download with yt-dlp --write-info-json")
    download(tmp_path, "a", clip="")
    refused(r"no clip is left(.|\n)*1 no clip beside it: a\.info\.json")
    (tmp_path / "users.csv").write_bytes(USERS.encode("utf-16"))
    refused("must be UTF-8, got UTF-16", users=tmp_path / "users.csv")


def test_the_command_tells_what_it_did(tmp_path):
    def run(*flags):
        command = [sys.executable, "-m", "tools.import_ytdlp", *flags]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    download(tmp_path, "a")
    download(tmp_path, "b", clip="")
    ended = run(f"--folder={tmp_path}")
    assert ended.returncode == 0, ended.stderr
    assert "1 of 2 clips kept." in ended.stdout and "no clip beside it: b.info.json" in ended.stdout
    assert f"--config.data.root={tmp_path}" in ended.stdout
    wrong = run("--folder=/nowhere")
    assert wrong.returncode == 2 and "Traceback" not in wrong.stderr
    wrong = run(f"--folder={tmp_path}", "more")
    assert wrong.returncode == 2
    assert "settings are given as --flag=value, got 'more'" in wrong.stderr


# YFCC100M


def line(
    video_id, *, user="9@N0", tags="sun,new+york", uploaded="1200000000", where=None, marker="1"
):
    """A line of 23 columns; where: latitude, longitude."""
    latitude, longitude = where or ("", "")
    return "\t".join(
        [
            video_id, user, "Al+B%C3%B4", "2008-01-10 10:00:00.0", uploaded, "Canon", "A+title",
            "words%0Aand+more", tags, "machine:tag=1", str(longitude), str(latitude), "16",
            f"http://photos/{video_id}", f"http://videos/{video_id}", "Attribution License",
            "http://licences/by", "8", "7", "5ec", "0r1", "jpg", marker,
        ]
    )  # fmt: skip


def import_lines(root, lines, find_countries=False, name="dataset.tsv"):
    data = ("\n".join(lines) + "\n").encode()
    path = root.parent / name
    path.write_bytes({".bz2": bz2.compress, ".gz": gzip.compress}.get(path.suffix, bytes)(data))
    return import_yfcc100m.import_metadata(root, [path], find_countries)


def put_clips(root, *names):
    (root / "clips").mkdir(parents=True, exist_ok=True)
    for name in names:
        (root / "clips" / name).write_bytes(b"a clip")


def dataset(root, clips, lines, **options):
    """The videos by id and users after an import with these clips there, and the report."""
    put_clips(root, *clips)
    told = import_lines(root, lines, **options)
    raw = read_raw_dataset(root, strict=True)
    return {video.video_id: video for video in raw.videos}, raw.users, told


@pytest.fixture
def root(tmp_path):
    return tmp_path / "yfcc"


def licences_in(root):
    with open(root / "licences.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_first_call_lists_what_to_download_and_the_second_makes_the_dataset(root):
    lines = [line("11"), line("12"), line("13", marker="0")]
    told = import_lines(root, lines)
    assert "0 of them are in" in told[-1] and not (root / "videos.csv").exists()
    asked = (root / "download.txt").read_text()
    assert asked == "http://videos/11\n  out=11.video\nhttp://videos/12\n  out=12.video\n"
    videos, _, told = dataset(root, ["11.video", "12.video", "12.video.aria2"], lines)
    clip = Video("11", "clips/11.video", "9@N0", ("sun", "newyork"), 1_200_000_000)
    assert list(videos.values()) == [clip]
    assert "11" not in (root / "download.txt").read_text(), "it is here"
    assert licences_in(root)[0] == {
        "video_id": "11",
        "licence": "Attribution License",
        "licence_url": "http://licences/by",
        "author": "Al Bô",
        "page_url": "http://photos/11",
    }


def test_counts_of_one_are_singular(root):
    _, _, told = dataset(root, ["11.video"], [line("11")])
    assert told[0] == "1 of 1 video kept." and told[-1] == "1 user, 0 with a country."
    assert "1 of them is in" in told[1] and "are" not in told[1].split(" in ")[0]


def test_by_products_beside_clips_are_not_clips(root):
    names = ["11.jpg", "11.video.part", "12.txt", "12.MP4", "13.video", "13.json", "14"]
    videos, *_ = dataset(root, names, [line(name) for name in ("11", "12", "13", "14")])
    paths = [video.path for video in videos.values()]
    assert paths == ["clips/12.MP4", "clips/13.video", "clips/14"]


def test_an_odd_field_costs_only_itself(root):
    lines = [
        line("1", tags="c%23minor,Sun,%00,New+York"),
        line("2", uploaded="9" * 30),
        line("3", uploaded="9" * 5000),
        line("4", uploaded="soon"),
        line("5", where=("nan", "inf")),
        line("6", user="a%00b"),
        line("7", tags="c%23minor,%2C"),
    ]
    videos, *_ = dataset(root, [f"{number}.video" for number in range(1, 8)], lines)
    assert list(videos) == ["1", "2", "3", "4", "5"]
    assert videos["1"].hashtags == ("sun", "newyork") and videos["1"].written == ("Sun", "NewYork")
    assert [videos[name].timestamp for name in "2345"] == [None, None, None, 1_200_000_000]
    told = dropped_of(root)
    assert told["2"].startswith("a time that cannot be read: 999")
    assert told["4"] == "a time that cannot be read: soon"
    assert (told["6"], told["7"]) == ("NUL byte", "no user tags")


def test_an_odd_address_gives_aria2c_no_options(root):
    addresses = ["http%3A%2F%2Fv%0A++dir%3D%2Fetc", "http://v/2", "null", "v%00"]
    lines = [
        line(str(number)).replace(f"http://videos/{number}", address)
        for number, address in enumerate(addresses, start=1)
    ]
    told = import_lines(root, lines)
    assert (root / "download.txt").read_text() == "http://v/2\n  out=2.video\n"
    assert dropped_of(root) == {
        "1": "no address to download from: http://v\\n  dir=/etc",
        "3": "no address to download from",
        "4": "no address to download from: v\\x00",
    }
    assert "4 of 4 videos kept." in told


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
        root = pathlib.Path(name) / "yfcc"
        names = ["99.video", *(f"1{index}.video" for index in range(len(clips)))]
        videos, *_ = dataset(root, names, lines)
        good = [video for name, video in videos.items() if name != "99"]
        assert [(v.video_id, v.user_id, v.written) for v in good] == [
            (f"1{index}", f"{index}@N0", tuple(tags)) for index, tags in enumerate(clips)
        ]
        assert len(licences_in(root)) == len(videos)
        photo = poison.get(22, "1") != "1"
        assert len(videos) > len(good) or photo or dropped_of(root)


@pytest.mark.parametrize("name", ["dataset.tsv", "dataset.bz2", "dataset.gz"])
def test_both_editions_are_read_plain_or_compressed(root, name):
    newer = line("12").split("\t")
    newer = "\t".join(["4711", newer[0], "a1b2c3", *newer[1:]])
    videos, *_ = dataset(root, ["11.mp4", "12.mp4"], [line("11"), newer], name=name)
    assert list(videos) == ["11", "12"]


def test_what_cannot_be_used_is_dropped_with_a_reason(root):
    lines = [line("11", uploaded="null"), line("11"), line("12", tags=""), line("13", tags="%23,+")]
    lines += [line("14", user=""), line("x"), "1\t2", ""]
    videos, *_ = dataset(root, ["11.mp4"], lines)
    assert videos["11"].timestamp is None
    assert dropped_of(root) == {
        "11": "an id that another video has",
        "12": "no user tags",
        "13": "no user tags",
        "14": "no user",
        "x": "no id",
        "dataset.tsv:7": "a line of 2 columns",
        "dataset.tsv:8": "a line of 1 columns",
    }


def test_a_users_country_is_the_one_of_most_of_their_videos(root):
    lisbon, paris, namibia = (38.72, -9.14), (48.86, 2.35), (-22.56, 17.08)
    lines = [line("1", where=lisbon), line("2", where=paris), line("3", where=lisbon)]
    lines += [line("4", user="nowhere", where=("95", "2")), line("5", user="5", where=namibia)]
    names = ["1.mp4", "2.mp4", "4.mp4", "5.mp4"]
    _, users, told = dataset(root, names, lines, find_countries=True)
    assert [users[name].country for name in ("9@N0", "nowhere")] == ["PT", ""]
    assert users["5"].country == "NAM", '"NA" is unknown'
    assert told[-1] == "3 users, 2 with a country."


def test_damage_and_absence_are_said_in_a_sentence(tmp_path, root, monkeypatch):
    with pytest.raises(UserError, match="--metadata must name files that can be read"):
        import_yfcc100m.import_metadata(root, [tmp_path / "nowhere.bz2"], False)
    data = (line("1") + "\n").encode() * 9000
    (tmp_path / "cut.bz2").write_bytes(bz2.compress(data)[:-40])
    (tmp_path / "cut.gz").write_bytes(gzip.compress(data)[:10] + b"\xff" * 60)
    for path in (tmp_path / "cut.bz2", tmp_path / "cut.gz"):
        with pytest.raises(UserError, match="a metadata file must be whole"):
            import_yfcc100m.import_metadata(root, [path], False)
    with pytest.raises(UserError, match="the metadata must have a video that can be used"):
        import_lines(root, [line("1", marker="0")])
    monkeypatch.setitem(sys.modules, "reverse_geocode", None)
    with pytest.raises(UserError, match="pip install reverse-geocode, or --nocountries"):
        import_yfcc100m.countries([])


def test_a_report_counts_and_gives_examples(tmp_path):
    dropped = Dropped()
    for index in range(5):
        dropped.add(f"name{index}", "too long")
    dropped.add("\ud800", "no letter")
    dropped.write(tmp_path)
    assert dropped.lines(3, "thing", tmp_path)[:3] == [
        "3 of 9 things kept.",
        "       5 too long: name0, name1, name2, ...",
        "       1 no letter: \\ud800",
    ]
