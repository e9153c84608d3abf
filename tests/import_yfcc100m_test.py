"""The importer of YFCC100M on lines of its metadata, with the traps of the format."""

import bz2
import csv
import gzip
import sys
import urllib.parse

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tools import import_yfcc100m
from tools.import_report import Dropped
from uhman_jax.dataset.raw import Video, read_raw_dataset
from uhman_jax.runtime.errors import UserError


def dropped_of(root):
    """Returns the reason by name in dropped.csv."""
    with open(root / "dropped.csv", newline="") as file:
        return {row["name"]: row["reason"] for row in csv.DictReader(file)}


def line(name, *, user="9@N0", tags="sun,new+york", uploaded="1200000000", where="", marker="1"):
    """Returns a line of 23 columns; where: "longitude latitude"."""
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
    """Returns the videos by id, the users and the report of an import with these clips."""
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


def test_an_odd_field_costs_only_itself_and_an_unusable_line_its_video(tmp_path):
    lines = [
        line("1", tags="c%23minor,Sun,%00,New+York"), line("2", uploaded="9" * 30),
        line("3", uploaded="9" * 5000), line("4", uploaded="soon"), line("5", where="inf nan"),
        line("9", uploaded="null"), line("9"), line("6", user="a%00b"), line("7", tags="c%23,%2C"),
        line("12", tags=""), line("14", user=""), line("x"), "1\t2", "",
    ]  # fmt: skip
    videos, *_ = dataset(tmp_path, [f"{number}.video" for number in range(1, 10)], lines)
    assert list(videos) == ["1", "2", "3", "4", "5", "9"]
    assert videos["1"].hashtags == ("sun", "newyork") and videos["1"].written == ("Sun", "NewYork")
    times = [videos[name].timestamp for name in "23459"]
    assert times == [None, None, None, 1_200_000_000, None]
    report = dropped_of(tmp_path)
    assert report.pop("2") == f"a time that cannot be read: {'9' * 30}"
    assert report.pop("3").startswith("a time that cannot be read: 999")
    assert report.pop("4") == "a time that cannot be read: soon"
    assert report.pop("1").startswith("a tag that is no hashtag: ")
    assert report == {
        "6": "NUL byte", "7": "no user tags", "9": "an id that another video has",
        "12": "no user tags", "14": "no user", "x": "no id",
        "dataset.tsv:13": "a line of 2 columns", "dataset.tsv:14": "a line of 1 columns",
    }  # fmt: skip


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
good_tags = st.lists(st.sampled_from(["Sea", "sun", "été", "日本"]), min_size=1, unique=True)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(good_tags, min_size=1, max_size=3),
    st.dictionaries(st.integers(1, 22), odd_fields, min_size=1, max_size=3),
    st.booleans(),
)
def test_a_poisoned_line_costs_only_itself(tmp_path_factory, clips, poison, numbered):
    good = {
        f"1{n}": line(f"1{n}", user=f"{n}@N0", tags=",".join(map(urllib.parse.quote, tags)))
        for n, tags in enumerate(clips)
    }
    fields = line("99", user="9@N0").split("\t")
    bad = "\t".join(poison.get(index, field) for index, field in enumerate(fields))
    lines = [bad, *good.values()]
    if numbered:
        lines = [f"{n}\t{one[:2]}\thash\t{one[3:]}" for n, one in enumerate(lines)]
    lines = [one.encode(errors="replace").decode() for one in lines]
    root = tmp_path_factory.mktemp("root")
    videos, *_ = dataset(root, [f"{name}.video" for name in ("99", *good)], lines)
    found = [(v.video_id, v.user_id, v.written) for n, v in videos.items() if n != "99"]
    assert found == [(f"1{n}", f"{n}@N0", tuple(tags)) for n, tags in enumerate(clips)]
    with open(root / "licences.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == len(videos)
    photo = poison.get(22, "1") != "1"
    assert len(videos) > len(found) or photo or dropped_of(root)


@pytest.mark.parametrize("name", ["dataset.tsv", "dataset.bz2", "dataset.gz"])
def test_both_editions_are_read_plain_or_compressed(tmp_path, name):
    newer = line("12").split("\t")
    newer = "\t".join(["4711", newer[0], "a1b2c3", *newer[1:]])
    videos, *_ = dataset(tmp_path, ["11.mp4", "12.mp4"], [line("11"), newer], name=name)
    assert list(videos) == ["11", "12"]


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
    kept, long, odd, _ = dropped.report(tmp_path, 3, "thing", "")
    assert kept == "3 of 9 things kept." and odd == "       1 no letter: \\ud800"
    assert long == "       5 too long: name0, name1, name2, ..."
    assert Dropped().report(tmp_path, 1, "thing", "") == ["1 of 1 thing kept."]
    with pytest.raises(UserError, match="nothing\n0 of 0 things kept."):
        Dropped().report(tmp_path, 0, "thing", "nothing")
