"""The spelling of a hashtag for display: its choice, and that all outputs show it."""

import dataclasses
import hashlib
import io
import json
import re
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import small_run
from hypothesis import given, settings
from hypothesis import strategies as st
from views import build, make_raw, random_world, spell

from tools.export.folder import export_run
from tools.export.load import load
from tools.inspect_run import study
from uhman_jax.config import Distribution, Split, ViewConfig
from uhman_jax.dataset.raw import Video
from uhman_jax.dataset.view import TRAIN, View, build_view
from uhman_jax.dataset.vocabulary import choose_spellings
from uhman_jax.demo.server import Answers
from uhman_jax.recommend import Profile
from uhman_jax.recommend.explain import explain
from uhman_jax.report import write_report
from uhman_jax.runtime.errors import UserError


def use(number, user, hashtag, spelling):
    return Video(f"v{number:02d}", "", user, (hashtag,), number, (spelling,))


def shown(view):
    return dict(zip(view.hashtags, view.spellings, strict=True))


# ---- The choice, worked by hand


LOVE = ["ann LOVEISLAND"] * 9 + ["bob LoveIsland"]
STRASSE = ["ann STRASSE", "bob Straße"]


@pytest.mark.parametrize(
    ("uses", "expected"),
    [
        (LOVE, "LOVEISLAND"),  # one user each, nine uses
        ([*LOVE, "eva LoveIsland"], "LoveIsland"),  # two users against one
        (STRASSE, "STRASSE"),  # equal, and "T" comes before "t"
        ([*STRASSE, "bob Straße"], "Straße"),  # one user each, two uses
        (["ann NYC", "ann nyc", "bob nyc"], "nyc"),  # a user counts for each of their spellings
    ],
)
def test_users_decide_then_uses_then_the_text(uses, expected):
    videos = [use(v, text.split()[0], "key", text.split()[1]) for v, text in enumerate(uses)]
    assert choose_spellings(videos) == {"key": expected}


def test_hashtags_that_are_written_as_they_are_matched_count_too():
    videos = [Video(f"v{i}", "", f"u{i}", ("sun", "sea"), i) for i in range(2)]  # spellings=()
    videos.append(Video("v2", "", "u2", ("sea", "sun"), 2, ("SEA", "sun")))
    assert choose_spellings(videos) == {"sun": "sun", "sea": "sea"}
    assert choose_spellings([]) == {}


def slow_choice(videos):
    """One hashtag after the other."""
    pairs = [
        (name, text, video.user_id)
        for video in videos
        for name, text in zip(video.hashtags, video.written, strict=True)
    ]
    chosen = {}
    for hashtag in {name for name, _, _ in pairs}:
        texts = {text for name, text, _ in pairs if name == hashtag}

        def worth(text, hashtag=hashtag):
            users = [user for name, other, user in pairs if (name, other) == (hashtag, text)]
            return -len(set(users)), -len(users), text

        chosen[hashtag] = min(texts, key=worth)
    return chosen


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("uvw"), st.sampled_from(["a", "A", "ab", "aB", "AB", "Ab"])),
        max_size=12,
    ),
    st.randoms(use_true_random=False),
)
def test_the_choice_equals_a_slow_one_in_any_order(uses, rng):
    videos = [use(v, user, text.lower(), text) for v, (user, text) in enumerate(uses)]
    expected = slow_choice(videos)
    assert choose_spellings(videos) == expected
    rng.shuffle(videos)
    assert choose_spellings(videos) == expected


# ---- In a view


@pytest.mark.parametrize("split", list(Split))
def test_spellings_are_those_of_train(split):
    videos, users = random_world(3)
    videos = spell(videos, 0)
    view = build(videos, users, split=split)
    assert len(view.video_ids) == len(videos)
    train = {view.video_ids[row] for row in view.rows(TRAIN)}
    expected = slow_choice([video for video in videos if video.video_id in train])
    assert shown(view) == expected and view.spellings != view.hashtags
    written = build(*random_world(3), split=split)
    assert written.spellings == written.hashtags == view.hashtags
    assert written.fingerprint != view.fingerprint


def test_removed_uses_count_for_the_spelling():
    videos = [use(v, f"u{v}", "all", "All" if v % 3 else "ALL") for v in range(40)]
    videos += [use(v, f"u{v}", f"t{v % 4}", f"T{v % 4}") for v in range(40, 60)]
    natural = build(videos)
    balanced = build(videos, distribution=Distribution.BALANCED, balanced_top=1)
    assert balanced.report["downsampled_uses"] > 10
    assert shown(balanced) == shown(natural) and shown(natural)["all"] == "All"


def test_a_file_of_an_earlier_version_shows_hashtags(tmp_path):
    videos = [use(v, f"u{v}", "strasse", "Straße") for v in range(20)]
    view, path = build(videos), tmp_path / "view.npz"
    view.save(path)
    with np.load(path) as archive:
        arrays = dict(archive)
    header = json.loads(arrays["header"].tobytes()) | {"format": 2}
    del header["spellings"], header["rules"]
    buffer = io.BytesIO()
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(buffer, **arrays)
    data = buffer.getvalue()[:-2] + (64).to_bytes(2, "little")
    path.write_bytes(data + hashlib.sha256(data).hexdigest().encode())
    again = View.load(path)
    assert again.spellings == again.hashtags == ("strasse",) and again.rules == 1
    assert again.find("Straße") == again.find("strasse") == 0


def test_views_of_rules_1_are_unchanged():
    """Checks the fingerprint of version 0.1; the spellings are the hashtags."""
    videos = [
        Video(f"v{i}", "", f"u{i % 7}", ("straße" if i % 2 else "sea", "日本"), i)
        for i in range(30)
    ]
    raw = dataclasses.replace(make_raw(videos), rules=1)
    config = ViewConfig(min_count=1)
    view = build_view(raw, [video.video_id for video in videos], config)
    assert view.spellings == view.hashtags
    expected = "74ad2d0728d552be72d93db7b29d7200850670ba12497a914d3dd7ddd7743ed3"
    assert view.fingerprint == expected
    current = build_view(make_raw(videos), [video.video_id for video in videos], config)
    assert current.fingerprint != expected


# ---- From the tables to all that people see

WRITTEN = {
    "dark": ("Straße", "strasse", "Straße", "STRASSE", "Straße"),
    "bright": ("LoveIsland", "loveisland", "LoveIsland"),
    "w": ("W",),
}
SHOWN = {"strasse": "Straße", "loveisland": "LoveIsland", "w": "W"}


def write(v, word):
    spellings = WRITTEN[word]
    return spellings[v % len(spellings)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("spellings")
    small_run.make(root, write=write)
    return root


@pytest.fixture(scope="module")
def recommender(trained):
    with small_run.recommender(trained) as loaded:
        yield loaded


def names_in(text):
    """Returns the hashtags that a page shows."""
    return set(re.findall(r"#(\w+)</bdi>", text))


def test_the_view_matches_any_spelling(trained):
    view = View.load(trained / "run" / "view.npz")
    assert shown(view) == SHOWN
    for texts in (("strasse", "STRASSE", "#Straße", "Ｓtraße"), ("LOVEISLAND", "loveIsland#")):
        assert {view.find(text) for text in texts} == {view.find(texts[0])} != {None}
    assert view.hashtags[view.find("straße")] == "strasse"
    assert [view.find(text) for text in ("", "#", "stra", "love island2")] == [None] * 4


def test_suggestions_are_spelled_as_people_write(trained, recommender):
    clip = trained / "c00.mp4"
    every = {suggestion.hashtag for suggestion in recommender.recommend(clip, top_k=3)}
    assert every == set(SHOWN.values())
    for exclude in ("strasse", "#STRASSE", "Straße #w"):
        left = recommender.recommend(clip, top_k=3, exclude=[exclude])
        excluded = {"Straße", "W"} if "w" in exclude else {"Straße"}
        assert {s.hashtag for s in left} == every - excluded
    one, other = recommender.vectors(["Straße"]), recommender.vectors(["STRASSE"])
    assert one.tolist() == other.tolist() != recommender.vectors(["W"]).tolist()
    with pytest.raises(UserError, match="must be in the run's vocabulary .*got 'Nie'"):
        recommender.vectors(["W", "Nie"])


def test_a_history_is_matched_in_any_spelling_and_shown_as_written(recommender):
    first = recommender.encode([Profile(history=("strasse",))])
    for history in (("STRASSE",), ("Straße",), ("#Straße, strasse", "Nie nie")):
        found = recommender.encode([Profile(history=history)])
        assert found.history_BR.tolist() == first.history_BR.tolist()
        assert found.history_mask_BR.tolist() == first.history_mask_BR.tolist()
    user = Profile.parse(history="#Straße #STRASSE #NeverSeen")
    assert user.describe() == "used #Straße #NeverSeen before"
    recommender.encode([user])
    assert recommender.notes == ["not in the vocabulary, so not used: #NeverSeen"]


def test_pages_and_the_api_show_spellings(trained, recommender, tmp_path):
    clip, profile = trained / "c00.mp4", Profile.parse(history="#STRASSE")
    explain(recommender, clip, [profile, Profile("f")], tmp_path / "why.html", top_k=3)
    assert names_in((tmp_path / "why.html").read_text()) == set(SHOWN.values())
    explain(recommender, clip, [profile], tmp_path / "why.png", top_k=3)
    answers = Answers(recommender)
    clip, profile = str(trained / "c00.mp4"), ("", "", "", "#STRASSE")
    found = answers.suggest(clip, *profile, 3)
    assert {entry["hashtag"] for entry in found["suggestions"]} == set(SHOWN.values())
    shown_page, to_copy = answers.show(clip, *profile, False, *profile, 3)
    assert names_in(shown_page) == set(SHOWN.values())
    assert set(to_copy.split()) == {f"#{text}" for text in SHOWN.values()}


def test_predictions_and_report_show_spellings(trained):
    rows = pq.read_table(trained / "run" / "predictions.parquet").to_pylist()
    for row in rows:
        assert set(row["hashtags"]) == set(SHOWN.values()) > set(row["true_hashtags"]) > set()
    write_report(trained / "run", trained)
    page = (trained / "run" / "report.html").read_text()
    assert {"Straße", "LoveIsland"} <= names_in(page) <= set(SHOWN.values())
    assert page.count("hit: ") > 0, "suggested and true ones are compared in one spelling"


def test_the_inspection_shows_spellings(trained):
    study.inspect_run(trained / "run", top_k=1)
    values = json.loads((trained / "run" / "inspect.json").read_text())
    assert list(values["nearest"]) == values["map"]["hashtags"]
    assert set(values["nearest"]) == set(SHOWN.values())
    swapped = {
        name for swap in values["swaps"]["values"] for name, _ in [*swap["enter"], *swap["leave"]]
    }
    listed = {e["hashtag"] for kind in values["differences"]["kinds"] for e in kind["strongest"]}
    assert swapped | listed <= set(SHOWN.values())
    page = (trained / "run" / "inspect.html").read_text()
    assert {"Straße", "LoveIsland"} <= names_in(page) <= set(SHOWN.values())


def test_predictions_with_folded_hashtags_can_be_inspected(trained, tmp_path):
    """Checks a run of an earlier version."""
    folded = {text: key for key, text in SHOWN.items()}
    table = pq.read_table(trained / "run" / "predictions.parquet").to_pylist()
    for row in table:
        row["hashtags"] = [folded[text] for text in row["hashtags"]]
    copy = shutil.copytree(trained / "run", tmp_path / "run")
    pq.write_table(pa.Table.from_pylist(table), copy / "predictions.parquet")
    study.inspect_run(trained / "run", tmp_path / "new.html", top_k=1)
    study.inspect_run(copy, tmp_path / "old.html", top_k=1)
    assert (tmp_path / "new.json").read_text() == (tmp_path / "old.json").read_text()


def test_an_export_shows_spellings_and_takes_any(trained, tmp_path):
    export_run(trained / "run", tmp_path / "out")
    model = load(tmp_path / "out")
    view = View.load(trained / "run" / "view.npz")
    assert tuple(model.hashtags) == view.spellings
    assert tuple(json.loads((tmp_path / "out" / "keys.json").read_text())) == view.hashtags
    shapes = model.shapes
    codes_FMC = np.zeros((1, shapes["regions"], shapes["channels"]), shapes["codes"])
    one_C = np.ones(shapes["channels"], np.float32)
    for history in ("#STRASSE", ["strasse"], ["Straße"]):
        assert model._history(history) == [view.find("strasse")]
        answer = model.recommend(codes_FMC, one_C, one_C, history=history)
        assert {name for name, _, _ in answer} == set(SHOWN.values())
