"""Importers on files in the formats that they read, with the traps of each."""

import bz2
import csv
import doctest
import gzip
import json
import pathlib
import subprocess
import sys

import pytest

from tools import import_yfcc100m, import_ytdlp
from tools.import_report import Dropped
from uhman_jax.dataset.raw import read_raw_dataset
from uhman_jax.errors import UserError

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.parametrize("module", [import_ytdlp, import_yfcc100m])
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
        "title": "A title #no",
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


def test_a_download_becomes_a_row(tmp_path):
    download(tmp_path, "a")
    videos, users = imported(tmp_path)
    assert videos["a"].path == "a.mp4" and videos["a"].timestamp == 1_700_000_000
    assert videos["a"].hashtags == ("sea", "sun") and videos["a"].user_id == "@ana"
    user = users["@ana"]
    assert (user.gender, user.age, user.country) == ("", None, ""), "age_limit is no user's age"


@pytest.mark.parametrize(
    ("source", "hashtags"),
    [
        ("description", ("sea", "sun")),
        ("tags", ("beachlife",)),
        ("both", ("sea", "sun", "beachlife")),
    ],
)
def test_what_holds_the_hashtags_can_be_chosen(tmp_path, source, hashtags):
    download(tmp_path, "a")
    assert imported(tmp_path, source=source)[0]["a"].hashtags == hashtags


def test_a_title_stands_in_for_a_description_but_for_a_word_that_may_be_cut(tmp_path):
    long = "x" * 55 + " #whole #par"
    download(tmp_path, "short", description=None, title="short #one #two")
    download(tmp_path, "dots", description=None, title="dots #one #tw...")
    download(tmp_path, "long", description=None, title=long + "t" * (72 - len(long)))
    download(tmp_path, "empty", description="", title="#none: there is a description")
    videos, _ = imported(tmp_path)
    got = {name: video.hashtags for name, video in videos.items()}
    assert got == {"short": ("one", "two"), "dots": ("one",), "long": ("whole",)}
    assert dropped_of(tmp_path) == {"empty.info.json": "no hashtags"}


def test_who_posts_and_when_have_several_names(tmp_path):
    nobody = dict.fromkeys(("uploader", "uploader_id", "channel_id"))
    download(tmp_path, "channel", **nobody | {"channel_id": "UC9"})
    download(tmp_path, "name", **nobody | {"uploader": " Jo \n Doe "}, timestamp=None)
    download(tmp_path, "number", uploader_id=6_812_345, timestamp=None, upload_date=None)
    download(tmp_path, "nobody", **nobody)
    download(tmp_path, "date", upload_date="yesterday", timestamp=None)
    download(tmp_path, "old", upload_date="19650101", timestamp=None)
    download(tmp_path, " space", id="space")
    videos, _ = imported(tmp_path)
    assert {name: (v.user_id, v.timestamp) for name, v in videos.items()} == {
        "channel": ("UC9", 1_700_000_000),
        "name": ("Jo Doe", 1_699_920_000),  # the begin of 2023-11-14 in UTC
        "number": ("6812345", None),
    }
    assert dropped_of(tmp_path) == {
        "nobody.info.json": "no uploader",
        "date.info.json": "a time that cannot be read",
        "old.info.json": "bad timestamp",
        " space.info.json": "a name that a table cannot hold",
    }


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


def test_a_table_of_users_is_joined(tmp_path):
    table = "user_id,gender,age,country,history\n@ana,f,21,PT,#dance\n@other,m,30,BR,\n"
    (tmp_path / "people.csv").write_text(table)
    root = tmp_path / "clips"
    download(root, "a")
    download(root, "b", uploader_id="@bo")
    _, users = imported(root, tmp_path / "people.csv")
    assert users.keys() == {"@ana", "@bo"}
    assert (users["@ana"].age, users["@ana"].history) == (21, ("dance",))
    (root / "users.csv").write_text(table)
    _, users = imported(root, root / "users.csv")
    assert users.keys() == {"@ana", "@bo", "@other"}, "the folder's own table loses nobody"
    _, users = imported(root, root / ".." / "clips" / "users.csv")
    assert users.keys() == {"@ana", "@bo", "@other"}, "whatever it is called"
    more = "user_id,gender,age,country,history,name\n@ana,f,21,PT,,Ana\n"
    (root / "users.csv").write_text(more)
    with pytest.raises(UserError, match="got also 'name'; move it elsewhere"):
        imported(root, root / "users.csv")
    assert (root / "users.csv").read_text() == more


def test_what_cannot_be_imported_is_said_in_a_sentence(tmp_path):
    with pytest.raises(UserError, match="--folder must be one"):
        import_ytdlp.import_folder(tmp_path / "nowhere", None, "description")
    with pytest.raises(UserError, match="got none in .*; download with yt-dlp --write-info-json"):
        import_ytdlp.import_folder(tmp_path, None, "description")
    download(tmp_path, "a", clip="")
    with pytest.raises(
        UserError, match=r"no clip is left(.|\n)*1 no clip beside it: a\.info\.json"
    ):
        import_ytdlp.import_folder(tmp_path, None, "description")
    (tmp_path / "users.csv").write_text("user_id,gender,age,country,history\nx,f,old,PT,\n")
    with pytest.raises(UserError, match="age must be whole years"):
        import_ytdlp.import_folder(tmp_path, tmp_path / "users.csv", "description")


def test_the_command_tells_what_it_did(tmp_path):
    download(tmp_path, "a")
    download(tmp_path, "b", clip="")
    command = [sys.executable, "-m", "tools.import_ytdlp", f"--folder={tmp_path}"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "1 of 2 clips kept." in ended.stdout and "no clip beside it: b.info.json" in ended.stdout
    assert f"--config.data.root={tmp_path}" in ended.stdout
    wrong = subprocess.run(
        [*command[:3], "--folder=/nowhere"], cwd=ROOT, capture_output=True, text=True
    )
    assert wrong.returncode == 2 and "Traceback" not in wrong.stderr
    wrong = subprocess.run([*command, "more"], cwd=ROOT, capture_output=True, text=True)
    assert (
        wrong.returncode == 2 and "settings are given as --flag=value, got 'more'" in wrong.stderr
    )


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


def test_the_first_call_lists_what_to_download_and_the_second_makes_the_dataset(tmp_path):
    root, lines = tmp_path / "yfcc", [line("11"), line("12"), line("13", marker="0")]
    told = import_lines(root, lines)
    assert "0 of them are in" in told[-1] and not (root / "videos.csv").exists()
    asked = (root / "download.txt").read_text()
    assert asked == "http://videos/11\n  out=11.video\nhttp://videos/12\n  out=12.video\n"
    put_clips(root, "11.video", "12.video", "12.video.aria2")
    import_lines(root, lines)
    (video,) = read_raw_dataset(root, strict=True).videos
    assert (video.video_id, video.path, video.user_id) == ("11", "clips/11.video", "9@N0")
    assert (video.hashtags, video.timestamp) == (("sun", "newyork"), 1_200_000_000)
    assert "11" not in (root / "download.txt").read_text(), "it is here"
    with open(root / "licences.csv", newline="", encoding="utf-8") as file:
        licences = list(csv.DictReader(file))
    assert licences[0] == {
        "video_id": "11",
        "licence": "Attribution License",
        "licence_url": "http://licences/by",
        "author": "Al Bô",
        "page_url": "http://photos/11",
    }


@pytest.mark.parametrize("name", ["dataset.tsv", "dataset.bz2", "dataset.gz"])
def test_both_editions_are_read_plain_or_compressed(tmp_path, name):
    root = tmp_path / "yfcc"
    put_clips(root, "11.mp4", "12.mp4")
    newer = line("12").split("\t")
    newer = "\t".join(["4711", newer[0], "a1b2c3", *newer[1:]])
    import_lines(root, [line("11"), newer], name=name)
    assert [video.video_id for video in read_raw_dataset(root, strict=True).videos] == ["11", "12"]


def test_what_cannot_be_used_is_dropped_with_a_reason(tmp_path):
    root = tmp_path / "yfcc"
    put_clips(root, "11.mp4")
    lines = [line("11", uploaded="null"), line("11"), line("12", tags=""), line("13", tags="%23,+")]
    lines += [line("14", user=""), line("x"), "1\t2", ""]
    import_lines(root, lines)
    assert dropped_of(root) == {
        "11": "an id that another video has",
        "12": "no user tags",
        "13": "no user tags",
        "14": "no user",
        "x": "no id",
        "dataset.tsv:7": "a line of 2 columns",
        "dataset.tsv:8": "a line of 1 columns",
    }
    assert read_raw_dataset(root, strict=True).videos[0].timestamp is None


def test_a_users_country_is_the_one_of_most_of_their_videos(tmp_path):
    root, lisbon, paris = tmp_path / "yfcc", (38.72, -9.14), (48.86, 2.35)
    put_clips(root, "1.mp4", "2.mp4", "4.mp4")
    lines = [line("1", where=lisbon), line("2", where=paris), line("3", where=lisbon)]
    lines += [line("4", user="nowhere", where=("95", "2"))]
    told = import_lines(root, lines, find_countries=True)
    users = read_raw_dataset(root, strict=True).users
    assert users["9@N0"].country == "PT" and users["nowhere"].country == ""
    assert told[-1] == "2 users, 1 with a country."


def test_damage_and_absence_are_said_in_a_sentence(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="--metadata must name files that can be read"):
        import_yfcc100m.import_metadata(tmp_path / "r", [tmp_path / "nowhere.bz2"], False)
    path = tmp_path / "cut.bz2"
    path.write_bytes(bz2.compress((line("1") + "\n").encode() * 9000)[:-40])
    with pytest.raises(UserError, match="a metadata file must be whole"):
        import_yfcc100m.import_metadata(tmp_path / "r", [path], False)
    with pytest.raises(UserError, match="the metadata must have a video that can be used"):
        import_lines(tmp_path / "r", [line("1", marker="0")])
    monkeypatch.setitem(sys.modules, "reverse_geocode", None)
    with pytest.raises(UserError, match="pip install reverse-geocode, or --nocountries"):
        import_yfcc100m.countries([])


def test_a_report_counts_and_gives_examples(tmp_path):
    dropped = Dropped()
    for index in range(5):
        dropped.add(f"name{index}", "too long")
    dropped.add("\ud800", "no letter")
    dropped.write(tmp_path)
    assert dropped.lines(3, "things", tmp_path)[:3] == [
        "3 of 9 things kept.",
        "       5 too long: name0, name1, name2, ...",
        "       1 no letter: \ud800",
    ]
