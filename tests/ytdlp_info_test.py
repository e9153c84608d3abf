"""Info files of yt-dlp: their hashtags, times and posters."""

import doctest

import pytest

from tools import import_yfcc100m, ytdlp_info, ytdlp_users


@pytest.mark.parametrize("module", [ytdlp_info, ytdlp_users, import_yfcc100m])
def test_the_examples_hold(module):
    failed, attempted = doctest.testmod(module)
    assert attempted and not failed


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
def test_title_and_description_give_the_hashtags(title, description, hashtags, info):
    info = {"id": "a", "uploader": "Ana Maria", "title": title, "description": description} | info
    assert ytdlp_info.hashtags_of(info, "description")[0] == hashtags


@pytest.mark.parametrize(
    ("tags", "hashtags", "odd"),
    [
        (["C# tutorial", "New York"], ("newyork",), ["'C# tutorial'"]),
        (["sea", None, "", 1, 2.5, True, ["sun"], {"a": "b"}], ("sea",),
         ["None", "''", "1", "2.5", "True", "a list", "a dict"]),
        ("dance", ("dance",), []), ("dance, Fun times,", ("dance", "funtimes"), []),
        ({"sea": "sun"}, (), ["a dict"]), (7, (), ["7"]), (None, (), []), ([], (), []),
        (["#Sea", "sea"], ("sea",), []),
    ],
)  # fmt: skip
def test_tags_are_a_list_of_texts(tags, hashtags, odd):
    assert ytdlp_info.hashtags_of({"tags": tags}, "tags")[::2] == (hashtags, odd)


@pytest.mark.parametrize(
    ("timestamp", "date", "expected"),
    [
        (1_700_000_000.9, None, 1_700_000_000), ("1700000000", "20231114", 1_700_000_000),
        (None, "20231114", 1_699_920_000),  # its start in UTC
        (1_700_000_000_123, None, 1_700_000_000), ("NA", "2023-11-14", 1_699_920_000), (0, None, 0),
        (None, None, None), ("NA", "NA", None), (float("nan"), None, None),
    ],
)  # fmt: skip
def test_time_has_several_names(timestamp, date, expected):
    info = {"timestamp": timestamp, "upload_date": date}
    assert ytdlp_info.timestamp_of(info) == (expected, "")


@pytest.mark.parametrize(
    ("timestamp", "date", "expected", "odd"),
    [
        (10**30, "20231114", 1_699_920_000, f"1{'0' * 30}"), (-5, None, None, "-5"),
        (None, "yesterday", None, "'yesterday'"), (True, None, None, "True"),
        ([1], [2], None, "a list"), (float("inf"), None, None, "inf"),
    ],
)  # fmt: skip
def test_an_odd_time_is_returned(timestamp, date, expected, odd):
    info = {"timestamp": timestamp, "upload_date": date}
    assert ytdlp_info.timestamp_of(info) == (expected, odd)


def test_an_odd_suffix_is_none():
    odd = ["mp4/video", "..", "/etc/passwd", "x" * 300, "mp4\0", "mp4\n", ["mp4"], 4, True]
    assert [ytdlp_info.extension_of({"ext": ext}) for ext in odd] == [None] * len(odd)


def users_of(*infos):
    return ytdlp_users.users_of([ytdlp_info.poster_of(info) for info in infos])


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
        # an id of several users identifies none of them
        ([("UC1", "@x", "Ana"), ("UC2", "@y", "Ana"), (None, None, "Ana")], ["UC1", "UC2", "Ana"]),
        ([("UC1", "@ana", "x"), ("UC2", "@ana", "y"), (None, "@ana", "x")], ["UC1", "UC2", "@ana"]),
        ([("UC1", "@1", "Ana"), (None, "@2", "Ana")], ["UC1", "@2"]),
        ([("UCa", None, None), ("UCA", None, None)], ["UCa", "UCA"]),
        # unknown is no id
        ([("NA", "n/a", "Ana"), ("null", "None", "Bo"), ("", " ", "unknown"), (True, 1.5, ["x"])],
         ["Ana", "Bo", "", ""]),
    ],
)  # fmt: skip
def test_one_person_is_one_user(posters, users):
    keys = ("channel_id", "uploader_id", "uploader")
    assert users_of(*(dict(zip(keys, ids, strict=True)) for ids in posters)) == users


def test_people_of_two_sites_share_no_handle():
    ana = {"uploader_id": "@ana", "channel_id": None}
    sites = {"extractor": "twitter"}, {"extractor": "youtube:tab"}
    infos = [ana | {"extractor": "youtube", "channel_id": "UC1"}, *(ana | site for site in sites)]
    assert users_of(*infos) == ["UC1", "@ana", "UC1"]
