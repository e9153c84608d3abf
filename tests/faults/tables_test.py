"""Tables with arbitrary content: good rows are read as written, or an error names the table."""

import csv
import io

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from uhman_jax.dataset.raw import Video, read_raw_dataset
from uhman_jax.runtime.errors import UserError

USUAL = ["", "a1", "clips/x.mp4", "../x", "#sea #sun", "1700000000", "-1", "nan", "1e9"]
AWKWARD = ["x" * 200_000, '"', ",", "\n", "\r\n", "\0", "\ufeff", "\u202e", "=1+1", "\\"]
NUMBERS = st.integers(-(10**30), 10**30).map(str)
CELLS = st.text(max_size=12) | st.sampled_from(USUAL) | st.sampled_from(AWKWARD) | NUMBERS
COLUMNS = ["video_id", "path", "user_id", "hashtags", "timestamp"]
HEADERS = st.one_of(
    st.just(COLUMNS), st.permutations(COLUMNS), st.lists(st.sampled_from([*COLUMNS, "", "x"]))
)
TOO_MANY = [["", "\n0", "0", "", "0", ""]]  # fields; its second line has the right number
ENDS = st.sampled_from(["\n", "\r\n", "\r"])


def table(header, rows, end, mark):
    """Returns a table in which cells with a line break are quoted."""
    file = io.StringIO()
    for row in [header, *rows]:
        broken = any({"\n", "\r"} & set(cell) for cell in row)  # Python 3.11 checks only `end`
        quoting = csv.QUOTE_ALL if broken else csv.QUOTE_MINIMAL
        csv.writer(file, lineterminator=end, quoting=quoting).writerow(row)
    return ("\ufeff" * mark + file.getvalue()).encode("utf-8", "surrogatepass")


def read(root, videos, users=None):
    (root / "videos.csv").write_bytes(videos)
    if users is not None:
        (root / "users.csv").write_bytes(users)
    raw = read_raw_dataset(root, strict=False, check_files=False)
    assert len({video.video_id for video in raw.videos}) == len(raw.videos) > 0
    assert all(video.hashtags and video.user_id and video.video_id for video in raw.videos)
    assert all(str(problem).isprintable() for problem in raw.problems)
    return raw


@settings(deadline=None)
@given(HEADERS, st.lists(st.lists(CELLS, max_size=7), max_size=6), st.integers(0, 6), ENDS)
@example(["video_id", "user_id", "path", "hashtags", "timestamp"], TOO_MANY, 0, "\n")
def test_any_cells(tmp_path_factory, header, rows, index, end):
    """Checks that the good row is kept, and that no row turns into another."""
    good = dict(zip(COLUMNS, ("good", "a.mp4", "u1", "#sea", "5"), strict=True))
    rows.insert(index, [good.get(name, "") for name in header])
    try:
        raw = read(tmp_path_factory.mktemp("root"), table(header, rows, end, len(rows) % 2))
    except UserError as error:
        assert "videos.csv" in str(error)
        assert not set(COLUMNS) <= set(header) or len(set(header)) < len(header)
        return
    assert Video("good", "a.mp4", "u1", ("sea",), 5) in raw.videos
    cells = [dict(zip(header, (cell.strip() for cell in row), strict=False)) for row in rows]
    written = {(row.get("video_id"), row.get("user_id"), row.get("path") or "") for row in cells}
    assert {(video.video_id, video.user_id, video.path) for video in raw.videos} <= written


@settings(deadline=None)
@given(st.binary(max_size=300), st.binary(max_size=300), st.booleans())
def test_any_bytes(tmp_path_factory, videos, users, headed):
    if headed:
        videos = table(COLUMNS, [["a1", "x.mp4", "u1", "#sea", "5"]], "\n", False) + videos
        users = b"user_id,gender,age,country,history\n" + users
    try:
        raw = read(tmp_path_factory.mktemp("root"), videos, users)
    except UserError as error:
        assert ".csv" in str(error)
        return
    if headed and b'#sea,5\n"' not in videos:
        assert Video("a1", "x.mp4", "u1", ("sea",), 5) in raw.videos


@pytest.mark.long
def test_ten_million_rows(tmp_path):
    """Reads a table of which each thousandth row is bad."""
    with open(tmp_path / "videos.csv", "w") as file:
        file.write(",".join(COLUMNS) + "\n")
        for i in range(10_000_000):
            file.write(f"v{i},c/{i}.mp4,u{i % 100_000},#t{i % 1000} #s,{'' if i % 1000 else 'x'}\n")
    raw = read_raw_dataset(tmp_path, strict=False, check_files=False)
    assert len(raw.videos) == 9_990_000 and len(raw.problems) == 10_000
