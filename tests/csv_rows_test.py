"""Rows of a table: well-formed ones are read with their lines, whatever the others hold."""

import random
import time

import pytest

from uhman_jax.dataset.csv_rows import parse_rows
from uhman_jax.dataset.raw import VIDEO_COLUMNS

HEADER = ",".join(VIDEO_COLUMNS) + "\n"
GOOD = "good,a.mp4,u1,#Fun cat,1700000000\n"


def parse(rows, header=HEADER):
    """Returns the line and the fields of each row by video_id, and (line, kind) of each problem."""
    data = rows if isinstance(rows, bytes) else (header + rows).encode()
    found, problems = parse_rows(data, "videos.csv", VIDEO_COLUMNS, "hashtags")
    assert all(problem.file == "videos.csv" and "\n" not in str(problem) for problem in problems)
    by_id = {row.fields["video_id"]: (row.line, *row.fields.values()) for row in found}
    return by_id, [(problem.line, problem.kind) for problem in problems]


def test_line_numbers_are_those_of_the_file():
    rows = (
        '\nv1,a.mp4,u1,"#one\n#two",\n'  # lines 3 and 4
        "\n"
        "bad,a.mp4,u1,t\n"  # line 6
        'v2,b.mp4,u1,"three\r\nfour\n\nfive",\n'  # lines 7 to 10
        "worse,a.mp4,u1,t\0,\n"  # line 11
    )
    found, problems = parse(rows)
    assert [row[:2] for row in found.values()] == [(3, "v1"), (7, "v2")]
    assert [row[4].split() for row in found.values()] == [
        ["#one", "#two"],
        ["three", "four", "five"],
    ]
    assert problems == [(6, "wrong field count"), (11, "NUL byte")]


@pytest.mark.parametrize("broken", ['x,b,u1,"t,1', 'x,"b,u1,t,1', '"x,b,u1,t,1', 'x,b,u1,"t,"1"'])
@pytest.mark.parametrize("later", ["", '"q1",a,u1,"t u",\n', 'q2,a,u1,t",1\n'])
def test_open_quote_swallows_no_good_row(broken, later):
    found, problems = parse(f"{broken}\n{GOOD}{later}g2,b,u1,t,\n")
    assert {"good", "g2"} <= found.keys() and "x" not in found
    assert problems[0][0] == 2


@pytest.mark.parametrize("row", ['x,"clips/\nb.mp4",u1,t,', '"x\r\ny",b.mp4,u1,t,'])
def test_only_hashtags_may_span_lines(row):
    found, problems = parse(f"{row}\n{GOOD}")
    assert list(found) == ["good"] and problems == [(2, "open quote")]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_byte_order_mark_and_line_ends_do_not_matter(end, mark):
    expected = {"good": (2, *GOOD.strip().split(","))}
    assert parse(mark + (HEADER + GOOD).replace("\n", end).encode()) == (expected, [])


def test_columns_in_any_order_with_others_between():
    header = "note, hashtags ,path,video_id,timestamp,user_id\n"
    assert parse('"a, b",#T, a.mp4 , v1 ,7.0,u1\n', header) == (
        {"v1": (2, "v1", "a.mp4", "u1", "#T", "7.0")},
        [],
    )


@pytest.mark.parametrize("seed", range(40))
def test_damaged_bytes_cost_at_most_the_rows_they_touch(seed):
    rng = random.Random(seed)
    rows = [f'v{i},a.mp4,u{i},"t{i} s",{i}' for i in range(60)]
    text = bytearray((HEADER + "\n".join(rows) + "\n").encode())
    for _ in range(5):
        position = rng.randrange(len(HEADER), len(text))
        if text[position] != ord("\n"):  # which would join two rows
            text[position] = rng.choice([*b'\0\xff\xc3,"\r #\nx'])
    found, _ = parse(bytes(text))
    # New line ends shift later rows, so rows are identified by their text.
    whole = {row.split(",")[0] for row in rows if f"\n{row}\n".encode() in bytes(text)}
    assert whole <= found.keys()


def test_many_rows_are_read_fast():
    rows = "".join(f"v{i},a.mp4,u1,a b c,{i}\n" for i in range(10_000))
    started = time.monotonic()
    found, problems = parse(rows + 'x,a.mp4,u1,"t,1\n' * 3_000)  # each could swallow the rest
    assert time.monotonic() - started < 20, "generous: about 1 s when the machine is idle"
    assert len(found) == 10_000 and len(problems) > 2_000
    found, problems = parse(f'x,b.mp4,u1,"t,\n{rows}')
    assert len(found) == 10_000 and problems == [(2, "open quote")]
