"""Reading, checking and writing the raw dataset."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uhman_jax.dataset.attributes import fold_country, fold_gender
from uhman_jax.dataset.field_checks import parse_age, parse_time
from uhman_jax.dataset.raw import (
    User,
    Video,
    fault_of,
    read_raw_dataset,
    summarise_problems,
    write_raw_dataset,
)
from uhman_jax.runtime.errors import UserError

VIDEOS = "video_id,path,user_id,hashtags,timestamp\n"
USERS = "user_id,gender,age,country,history\n"
GOOD = "good,clips/a.mp4,u1,#Fun cat,1700000000\n"
GOOD_USERS = USERS + "u1,f,17,de,dog\n"


def write(root, videos, users=GOOD_USERS):
    """Writes tables and the clips of good rows."""
    (root / "clips").mkdir(exist_ok=True)
    for name in ("a", "b"):
        (root / "clips" / f"{name}.mp4").write_bytes(b"not looked into")
    for file, text in (("videos.csv", videos), ("users.csv", users)):
        if text is not None:
            (root / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


def read(root, videos, users=GOOD_USERS, **options):
    return read_raw_dataset(write(root, videos, users), **{"strict": False} | options)


def message(call, *args, **options):
    with pytest.raises(UserError) as caught:
        call(*args, **options)
    return str(caught.value)


def test_good_rows(tmp_path):
    raw = read(tmp_path, VIDEOS + GOOD + "v2,clips/b.mp4,u2,b,\n", GOOD_USERS + "u2,,,,\n")
    assert raw.videos == (
        Video("good", "clips/a.mp4", "u1", ("fun", "cat"), 1_700_000_000, ("Fun", "cat")),
        Video("v2", "clips/b.mp4", "u2", ("b",), None),
    )
    assert [video.written for video in raw.videos] == [("Fun", "cat"), ("b",)]
    assert raw.users == {
        "u1": User("u1", "female", 17, "DE", ("dog",)),
        "u2": User("u2", "", None, "", ()),
    }
    assert raw.problems == () and raw.root == tmp_path
    assert summarise_problems(raw) == ""


# Each bad row is on line 2, before a good one: kind, row, and text of the message.
BAD_VIDEOS = {
    "missing file": ("x,clips/no.mp4,u1,t,", "path must name an existing file, got 'clips/no.mp4'"),
    "not a regular file": ("x,clips,u1,t,", "path must name a regular file"),
    "unreadable file": (f"x,{'n' * 300},u1,t,", "path must name a readable file"),
    "path outside": ("x,../a.mp4,u1,t,", "path must stay inside the dataset's folder, got '../a"),
    "no path": ("x,,u1,t,", "path must name the video file, got ''; fill it in"),
    "no hashtags": ("x,clips/b.mp4,u1, # ,", "hashtags must name at least one hashtag, got '#'"),
    "empty video_id": (" ,clips/b.mp4,u1,t,", "video_id must not be empty, got ''"),
    "empty user_id": ("x,clips/b.mp4,,t,", "user_id must not be empty, got ''"),
    "wrong field count": ("x,clips/b.mp4,u1,t", "as many fields as the header (5), got 4 in"),
    "open quote": ('x,clips/b.mp4,u1,"t,', "well-formed CSV (unexpected end of data)"),
    "field too long": (f"x,clips/b.mp4,u1,{'t' * 140_000},", "at most 131072 characters"),
    "NUL byte": ("x,clips/b.mp4,u1,t\0,", "a row must not hold NUL bytes"),
    "bad encoding": (b"x,clips/b.mp4,u1,caf\xe9,", "a row must be UTF-8, got b'x,clips/b.mp4"),
}


BAD_USERS = {
    "empty user_id": (",f,20,de,", "user_id must not be empty, got ''"),
    "wrong field count": ("x,f,20,de", "as many fields as the header (5), got 4 in"),
    "bad encoding": (b"x,f,20,\xff,", "a row must be UTF-8"),
}
BAD_ROWS = [("videos.csv", kind, *found) for kind, found in BAD_VIDEOS.items()]
BAD_ROWS += [("users.csv", kind, *found) for kind, found in BAD_USERS.items()]


@pytest.mark.parametrize(("file", "kind", "row", "rule"), BAD_ROWS)
def test_bad_row_is_named_and_its_neighbour_kept(tmp_path, file, kind, row, rule):
    row = row if isinstance(row, bytes) else row.encode()
    if file == "videos.csv":
        raw = read(tmp_path, VIDEOS.encode() + row + b"\n" + GOOD.encode())
    else:
        raw = read(tmp_path, VIDEOS + GOOD, USERS.encode() + row + b"\nu1,f,17,de,dog\n")
    assert [video.video_id for video in raw.videos] == ["good"] and list(raw.users) == ["u1"]
    (problem,) = raw.problems
    assert (problem.file, problem.line, problem.kind) == (file, 2, kind)
    line = str(problem)
    assert line.startswith(f"{file}:2: ") and rule in line and "\n" not in line and "; " in line
    assert len(line) < 320, "a long value is cut"
    assert line in message(read_raw_dataset, tmp_path, strict=True)
    assert summarise_problems(raw) == f"dropped 1 of 2 rows of {file}: 1 {kind}"


def test_duplicates_name_the_line_of_the_first(tmp_path):
    missing, twice = "good,clips/no.mp4,u1,t,\n", "good,clips/b.mp4,u1,t,\n"
    raw = read(tmp_path, VIDEOS + missing + GOOD + twice, GOOD_USERS + "u1,m,,,\n")
    assert [video.path for video in raw.videos] == ["clips/a.mp4"] and raw.users["u1"].age == 17
    assert raw.problems[0].kind == "missing file", "a bad row does not claim its id"
    assert [str(problem).split(";")[0] for problem in raw.problems[1:]] == [
        "videos.csv:4: video_id must be unique, got 'good', which line 3 has too",
        "users.csv:3: user_id must be unique, got 'u1', which line 2 has too",
    ]


def test_unknown_user_keeps_the_video_unless_strict(tmp_path):
    raw = read(tmp_path, VIDEOS + GOOD + "v2,clips/b.mp4,u9,t,\n")
    assert [video.user_id for video in raw.videos] == ["u1", "u9"]
    (problem,) = raw.problems
    assert not problem.dropped
    assert str(problem) == (
        "videos.csv:3: user_id must be in users.csv, got 'u9'; "
        "add the user; until then all attributes are unknown"
    )
    assert summarise_problems(raw) == "kept 1 of 2 rows of videos.csv: 1 unknown user"
    assert str(problem) in message(read_raw_dataset, tmp_path, strict=True)


@pytest.mark.parametrize("rules", [1, 2])  # the row is dropped, or kept without the age
def test_user_of_a_bad_row_is_reported_once(tmp_path, rules):
    raw = read(tmp_path, VIDEOS + GOOD, USERS + "u1,f,-3,de,\nu2,,,,\n", rules=rules)
    assert [problem.kind for problem in raw.problems] == ["bad age"]
    assert len(raw.videos) == 1


@pytest.mark.parametrize("users", [None, USERS])
def test_no_users_at_all_is_no_problem(tmp_path, users):
    raw = read(tmp_path, VIDEOS + GOOD, users, strict=True)
    assert len(raw.videos) == 1 and raw.users == {}


def test_all_problems_come_at_once_and_in_order(tmp_path):
    rows = "".join(
        f"x{i},clips/{'a' if i % 3 else 'no'}.mp4,u1,{'t' if i % 2 else ''},\n" for i in range(12)
    )
    raw = read(tmp_path, VIDEOS + rows, USERS + "u1,,999,,\nu2,,,,\n")
    lines = message(read_raw_dataset, tmp_path, strict=True).splitlines()
    assert lines[1:] == [f"  {problem}" for problem in raw.problems]
    assert "got 11 in" in lines[0]  # 4 files missing, 6 rows without hashtags, 1 age
    places = [(problem.file, problem.line) for problem in raw.problems]
    assert places[:10] == sorted(places[:10]) and places[10] == ("users.csv", 2)
    assert places.count(("videos.csv", 2)) == 2, "a row may have several problems"
    assert summarise_problems(raw) == (
        "dropped 8 of 12 rows of videos.csv: 4 missing file, 4 no hashtags\n"
        "kept 1 of 2 rows of users.csv: 1 bad age"
    )


@pytest.mark.parametrize(
    "table, text",
    [
        ("", "got none; add video_id, path, user_id, hashtags, timestamp"),
        ("v1,a.mp4,u1,t,\n", "must name its columns video_id,path,user_id,hashtags,timestamp"),
        ("video_id,path,user_id,tags,timestamp\n", "'tags', 'timestamp'; add hashtags"),
        (VIDEOS.replace(",", ";") + GOOD, "separated by commas"),
        ("video_id,path,user_id,hashtags,timestamp,path\n", "name each column once"),
        ("\ufeff".encode("utf-16-le") + VIDEOS.encode("utf-16-le"), "must be UTF-8, got UTF-16"),
    ],
)
def test_an_unusable_table_is_an_error_without_strict(tmp_path, table, text):
    found = message(read, tmp_path, table)
    assert "videos.csv" in found and text in found
    found = message(read, tmp_path, VIDEOS + GOOD, "user_id,gender,age,country\nu1,,,\n")
    assert "users.csv must name its columns" in found and "add history" in found


def test_missing_tables(tmp_path):
    assert "must be a folder" in message(read_raw_dataset, tmp_path / "no", strict=False)
    text = message(read_raw_dataset, tmp_path, strict=False)
    assert "must hold videos.csv" in text and str(tmp_path) in text
    (tmp_path / "videos.csv").mkdir()
    assert "must be a readable file" in message(read_raw_dataset, tmp_path, strict=False)


def test_no_good_row_at_all_lists_why(tmp_path):
    text = message(read, tmp_path, VIDEOS + "x,clips/no.mp4,u1,t,\n")
    assert "at least one good row" in text and "videos.csv:2: path must name an existing" in text
    assert "at least one good row, got none; add" in message(read, tmp_path, VIDEOS)


def test_bad_time_or_age_is_named_and_its_row_kept(tmp_path):
    videos = VIDEOS + GOOD + "x,clips/b.mp4,u1,t,soon\n"
    raw = read(tmp_path, videos, USERS + "u0,,,,\nu1,f,121,de,dog\n")
    assert raw.videos[1] == Video("x", "clips/b.mp4", "u1", ("t",), None)
    assert raw.users["u1"] == User("u1", "female", None, "DE", ("dog",))
    time, age = raw.problems
    assert (time.line, time.kind, time.dropped) == (3, "bad timestamp", False)
    assert (age.line, age.kind, age.dropped) == (3, "bad age", False)
    assert "got 'soon'; convert it" in str(time) and "from 1 to 120, got '121'" in str(age)
    summary = "kept 1 of 2 rows of videos.csv: 1 bad timestamp\n"
    assert summarise_problems(raw) == summary + "kept 1 of 2 rows of users.csv: 1 bad age"


BAD_TIMES = "-5 ٣ 1e999 253402300800 2020-13-01 20201131 31/01/2020 yesterday".split() + ["9" * 30]
BAD_AGES = "0 121 -1 18-24 old 1e400".split()
TIMES = {
    None: ["", "NaN"],
    0: ["0", "1970-01-01 01:00:00.5+01:00", "1970-01-01 01:00:00 +0100"],
    7: ["1970-01-01t00:00:07z", "1970-01-01 00:00:07 UTC"],
    17: ["１７"],
    60: ["1970-01-01T00:01"],
    86_400: ["1970-01-02", "19700102"],
    86_401: ["19700102T000001Z"],
    1_970_010: ["1970010"],
    19_691_231: ["19691231"],
    20_231_114: ["20231114.0"],
    1_700_000_000: ["1700000000", "1700000000.9", "1.7E+09"]
    + ["1700000000999", "1700000000999999", "1700000000999999999"],  # ms, µs, ns (of pandas)
}
AGES = {1: ["1"], 120: ["120"], None: ["", "?", "N/A"]}
AGES[25] = ["25.0", "25.9", " 25 ", "25 years", "25 Y/O", "２５", "٢٥"]


def test_times_and_ages():
    for parse, good, bad in ((parse_time, TIMES, BAD_TIMES), (parse_age, AGES, BAD_AGES)):
        for value, texts in good.items():
            assert {parse(text) for text in texts} == {value}
        for text in bad:
            with pytest.raises(ValueError):
                parse(text)


def test_by_rules_1_a_bad_value_costs_its_row(tmp_path):
    rows = GOOD + "x,clips/b.mp4,u1,t,2020-01-01\n" + 'y,clips/b.mp4,u2,"#A,b c++",\n'
    raw = read(tmp_path, VIDEOS + rows, GOOD_USERS + "u2,F,0,USA,\nu3,F,,USA,c#\n", rules=1)
    assert raw.rules == 1 and [(p.line, p.kind, p.dropped) for p in raw.problems] == [
        (3, "bad timestamp", True),
        (3, "bad age", True),
    ]
    assert raw.videos == (
        Video("good", "clips/a.mp4", "u1", ("fun", "cat"), 1_700_000_000),
        Video("y", "clips/b.mp4", "u2", ("a,b", "c++"), None),  # a bad row's user is not unknown
    )
    assert raw.users["u3"] == User("u3", "F", None, "USA", ("c",))


def test_parts_that_are_not_hashtags_are_named(tmp_path):
    rows = 'x,clips/b.mp4,u1,"sea, C++ a/b",\ny,clips/b.mp4,u1,c#,\n'
    raw = read(tmp_path, VIDEOS + GOOD + rows, GOOD_USERS + "u2,,,,rock&roll sun\n")
    assert [(p.file, p.line, p.kind, p.dropped) for p in raw.problems] == [
        ("videos.csv", 3, "not a hashtag", False),
        ("videos.csv", 4, "no hashtags", True),
        ("users.csv", 3, "not a hashtag", False),
    ]
    assert "got 'C++', 'a/b'; spell it otherwise" in str(raw.problems[0])
    assert raw.videos[1].hashtags == ("sea",) and raw.users["u2"].history == ("sun",)


@pytest.mark.parametrize("check_files", [True, False])
def test_paths_that_leave_the_root_and_a_pipe(tmp_path, check_files):
    os.mkfifo(tmp_path / "pipe.mp4")  # opening it would wait for ever
    paths = ["/etc/passwd", "clips/../../x.mp4", "..", "../root/clips/a.mp4", "pipe.mp4"]
    rows = "".join(f"x{i},{path},u1,t,\n" for i, path in enumerate(paths))
    raw = read(tmp_path, VIDEOS + GOOD + rows, check_files=check_files)
    kinds = ["path outside"] * 4 + ["not a regular file"] * check_files
    assert [problem.kind for problem in raw.problems] == kinds


def test_paths_that_stay_in_the_root(tmp_path):
    (tmp_path / "..name").mkdir()
    (tmp_path / "..name" / "a.mp4").touch()
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "link.mp4").symlink_to(tmp_path / "..name" / "a.mp4")
    rows = "v1,clips/../clips/a.mp4,u1,t,\nv2,..name/a.mp4,u1,t,\nv3,clips/link.mp4,u1,t,\n"
    assert len(read(tmp_path, VIDEOS + rows, strict=True).videos) == 3


def test_file_without_permission(tmp_path, monkeypatch):
    write(tmp_path, VIDEOS + GOOD + "x,clips/b.mp4,u1,t,\n")
    refused = tmp_path / "clips" / "b.mp4"
    monkeypatch.setattr(os, "access", lambda path, mode: path != refused)  # root reads everything
    (problem,) = read_raw_dataset(tmp_path, strict=False).problems
    assert problem.kind == "unreadable file" and "permissions" in str(problem)


def test_features_need_no_files(tmp_path):
    raw = read(tmp_path, VIDEOS + "v1,,u1,t,\nv2,gone.mp4,u1,t,\n", strict=True, check_files=False)
    assert [video.path for video in raw.videos] == ["", "gone.mp4"]


def test_fingerprint_sees_every_field_and_no_order(tmp_path):
    rows = [GOOD, "v2,clips/b.mp4,u2,t,\n", "v3,clips/b.mp4,u2,t u,5\n"]
    users = ["u1,f,17,de,dog\n", "u2,m,,,\n"]
    reference = read(tmp_path, VIDEOS + "".join(rows), USERS + "".join(users)).fingerprint
    assert len(reference) == 64
    shuffled = VIDEOS + "".join(rows[::-1]), USERS + "".join(users[::-1])
    assert read(tmp_path, *shuffled).fingerprint == reference
    before = VIDEOS + "".join(rows) + USERS + "".join(users)
    for old, new in [
        ("v2", "v4"), ("a.mp4", "b.mp4"), ("u2,t,", "u1,t,"), ("cat", "cow"), ("t u", "u t"),
        (",5", ",6"), ("f,17", "m,17"), (",17,", ",18,"), (",de,", ",at,"), ("dog", "cow"),
    ]:  # fmt: skip
        videos, users_text = before.replace(old, new, 1).split(USERS)
        changed = read(tmp_path, videos, USERS + users_text)
        assert changed.fingerprint != reference, (old, new)


VIDEO = Video("v1", "a.mp4", "u1", ("t",), 5)


def texts(max_size, usual):
    return st.text(max_size=max_size) | st.just(usual)


hashtags = st.lists(st.sampled_from(["a", "none", "2024", "日本", "é", "x_y", "❤"]), unique=True)
written = hashtags.filter(bool).map(tuple)
ids = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=8).map(str.strip)
ids = ids.filter(bool)


def make_video(video_id, path, user_id, hashtags, time, upper):
    spellings = tuple(map(str.upper, hashtags)) if upper else ()
    return Video(video_id, path, user_id, hashtags, time, spellings)


paths = st.sampled_from(["", "a.mp4", 'clips/x, "y".mp4', "é/日本.mov"])
times = st.none() | st.integers(0, 4_000_000_000) | st.integers(20231100, 20231200)
genders = ids.map(fold_gender) | st.sampled_from(["", "female", "x"])
ages = st.none() | st.integers(1, 120)
countries = ids.map(fold_country) | st.sampled_from(["", "US", "NAM"])
good_videos = st.builds(make_video, ids, paths, ids, written, times, st.booleans())
good_users = st.builds(User, ids, genders, ages, countries, hashtags.map(tuple))
tags, numbers = st.lists(texts(3, "sea"), max_size=2).map(tuple), st.none() | st.integers(-1, 2**80)
odd_videos = st.builds(Video, texts(4, "v"), texts(4, "a"), texts(4, "u"), tags, numbers)
odd_users = st.builds(User, texts(4, "u"), texts(3, "f"), numbers, texts(3, "PT"), tags)


@settings(max_examples=60, deadline=None)  # every table is flushed to the disk, which may be busy
@given(
    st.lists(good_videos, max_size=5), st.lists(odd_videos, max_size=3),
    st.lists(good_users, max_size=4), st.lists(odd_users, max_size=3),
)  # fmt: skip
def test_what_is_written_is_read(tmp_path_factory, videos, odd_videos, users, odd_users):
    """Checks that good rows have no fault, and rows without a fault are read as written."""
    assert not any(map(fault_of, (*videos, *users)))
    videos = [VIDEO, *videos, *(row for row in odd_videos if not fault_of(row))]
    users = [*users, *(row for row in odd_users if not fault_of(row))]
    videos = list({video.video_id: video for video in videos}.values())
    users = list({user.user_id: user for user in users}.values())
    root = tmp_path_factory.mktemp("root")
    write_raw_dataset(root, videos, users)
    raw = read_raw_dataset(root, strict=False, check_files=False)
    assert list(raw.videos) == videos and list(raw.users.values()) == users
    assert sorted(os.listdir(root)) == ["users.csv", "videos.csv"]
    before = (root / "videos.csv").read_bytes(), (root / "users.csv").read_bytes()
    write_raw_dataset(root, raw.videos, raw.users)
    assert before == ((root / "videos.csv").read_bytes(), (root / "users.csv").read_bytes())


@pytest.mark.parametrize(
    "videos, users, text",
    [
        ([VIDEO, VIDEO], [], "video_id must be unique"),
        ([Video("v1", "a", "u", ("#T",), None)], [], "normalise its hashtags"),
        ([Video("v1", "a", "u", ("t u",), None)], [], "normalise its hashtags"),
        ([Video("v1", "a", "u", (), None)], [], "at least one hashtag"),
        ([Video(" v1", "a", "u", ("t",), None)], [], "strip its fields"),
        ([Video("v\n1", "a", "u", ("t",), None)], [], "must have good rows only"),
        ([Video("v\ud800", "a", "u", ("t",), None)], [], "must be UTF-8"),
        ([Video("v1", "../a", "u", ("t",), None)], [], "stay inside"),
        ([Video("v1", "a", "u", ("t",), -1)], [], "timestamp must be"),
        ([VIDEO], [User("u1", "", 0, "", ())], "age must be"),
    ],
)
def test_rows_that_would_change_are_not_written(tmp_path, videos, users, text):
    (tmp_path / "videos.csv").write_text("as it was")
    assert text in message(write_raw_dataset, tmp_path, videos, users)
    assert os.listdir(tmp_path) == ["videos.csv"]
    assert (tmp_path / "videos.csv").read_text() == "as it was"


GROUPED = VIDEOS.replace("\n", ",group\n")


def test_groups_are_read_and_written_back(tmp_path):
    rows = "good,clips/a.mp4,u1,t,,film 1\nv2,clips/b.mp4,u1,t,,\nv3,clips/b.mp4,u1,t,,NaN\n"
    raw = read(tmp_path, GROUPED + rows)
    assert [video.group for video in raw.videos] == ["film 1", "", ""] and not raw.problems
    write_raw_dataset(tmp_path / "again", raw.videos, raw.users)
    header, first, *_ = (tmp_path / "again" / "videos.csv").read_text().splitlines()
    assert header == GROUPED.strip() and first == "good,clips/a.mp4,u1,t,,film 1"
    again = read_raw_dataset(tmp_path / "again", strict=True, check_files=False)
    assert again.videos == raw.videos and again.fingerprint == raw.fingerprint
    other = read(tmp_path, GROUPED + rows.replace("film 1", "film 2"))
    assert other.fingerprint != raw.fingerprint
    lost = Video("v", "a.mp4", "u", ("t",), None, group="nan")
    assert "must be read as it was written" in message(write_raw_dataset, tmp_path, [lost], [])


def test_without_groups_the_fingerprint_is_that_of_commit_2d83d21(tmp_path):
    digest = "eee769799148909ff1d51a82ac39e81e66e83643ca0b886493ccb0ca7526260d"
    raw = read(tmp_path, VIDEOS + GOOD)
    assert raw.fingerprint == digest
    assert read(tmp_path, GROUPED + GOOD.replace("\n", ",\n")).fingerprint == digest
    write_raw_dataset(tmp_path / "again", raw.videos, raw.users)
    assert (tmp_path / "again" / "videos.csv").read_text().startswith(VIDEOS)


def test_by_rules_2_a_column_group_is_ignored(tmp_path):
    raw = read(tmp_path, GROUPED + GOOD.replace("\n", ",film\n"), rules=2)
    assert [video.group for video in raw.videos] == [""] and raw.rules == 2


def test_a_column_group_is_named_once(tmp_path):
    text = message(read, tmp_path, GROUPED.replace("\n", ",group\n"))
    assert "name each column once" in text and "rename one group" in text
