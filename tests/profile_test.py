"""Profiles are normalised as the training data were."""

import dataclasses
import pathlib
import tarfile

import pytest
from views import build, random_world, spell

from uhman_jax.dataset.view import TEST, View
from uhman_jax.recommend.profile import Profile, ProfileEncoder, profile_of
from uhman_jax.runtime.errors import UserError

HASHTAGS = ("sea", "sun", "sea|sun", "strasse")


@pytest.fixture(scope="module")
def view():
    return dataclasses.replace(
        build(*random_world(15)),
        genders=("unknown", "female"),
        countries=("unknown", "US", "NAM", "atlantis"),
        hashtags=HASHTAGS,
        max_history=3,
    )


def used(encoder, *profiles):
    encoded = encoder.encode(profiles)
    rows = zip(encoded.history_BR, encoded.history_mask_BR, strict=True)
    return [[HASHTAGS[t] for t in row_R[mask_R]] for row_R, mask_R in rows]


@pytest.mark.parametrize("text", ["-1", "0", "121", "x", "1e400", "18-24"])
def test_an_age_is_a_number_of_years(text):
    with pytest.raises(UserError, match="age must be a number of years from 1 to 120, got '"):
        Profile.parse(age=text)


@pytest.mark.parametrize(
    "written, age",
    [(" 25 ", 25), (25, 25), (25.0, 25), ("25 years", 25), ("", None), (None, None)]
    + [(float("nan"), None), ("n/a", None), ("?", None)],
)
def test_ages(written, age):
    assert Profile.parse(age=written).age == age


def test_a_profile_in_one_field():
    profile = Profile.parse_line('gender=f,age=30, history=["A", "b"], country=US')
    assert profile == Profile("f", 30, "US", ('["A", "b"]',))
    assert Profile.parse_line("history=#a,#b").describe() == "used #a #b before"
    for text, wrong in (("size=3", "size=3"), ("gender=f, m", "m"), ("history=a, b=c", "b=c")):
        with pytest.raises(UserError, match=f"got '{wrong}'"):
            Profile.parse_line(text)


def test_a_profile_is_described_as_it_was_written():
    history = "#Straße,sun C++"
    profile = Profile.parse("Female", 20, "n/a", history)
    assert profile.describe() == "Female, age 20, used #Straße #sun before"
    assert Profile("unknown").describe() == "nothing known"


def test_genders_and_countries(view):
    genders = {"female": 1, "F": 1, " WOMAN ": 1, "": 0, "unknown": 0, "-": 0}
    countries = {"US": 1, "us": 1, "USA": 1, "u.s.": 1, "United  States": 1, "🇺🇸": 1, "null": 0}
    countries |= {"Namibia": 2, "NAM": 2, "NA": 0, "ATLANTIS": 3}
    encoder = ProfileEncoder(view)
    encoded = encoder.encode([*map(Profile, genders), *(Profile(country=c) for c in countries)])
    assert encoded.gender_B.tolist()[: len(genders)] == list(genders.values())
    assert encoded.country_B.tolist()[len(genders) :] == list(countries.values())
    assert encoder.notes == []


def test_by_rules_1_attributes_are_compared_as_written(view):
    view = dataclasses.replace(view, rules=1, countries=("unknown", "USA", "NA"))
    encoder = ProfileEncoder(view)
    encoded = encoder.encode([Profile("FEMALE", country="usa"), Profile("F", country="NA")])
    assert encoded.gender_B.tolist() == [1, 0] and encoded.country_B.tolist() == [1, 2]
    assert encoder.notes == [
        "gender 'F' is not in the training data (female) and counts as unknown"
    ]


@pytest.mark.parametrize(
    "history",
    ["#Sea,#SUN", "sea;sun", '["sea", "sun"]', "['sea', 'sun']", "“#sea” ‘#sun’", ("#Sea", "sun")]
    + [["sea sun"], ("sea|sun",)],
)
def test_histories(view, history):
    encoder = ProfileEncoder(view)
    both = [Profile(history=history), Profile.parse(history=history)]
    assert used(encoder, *both) == [["sea", "sun"]] * 2 and encoder.notes == []


def test_by_rules_1_a_history_is_split_at_spaces_and_signs(view):
    encoder = ProfileEncoder(dataclasses.replace(view, rules=1))
    found = used(encoder, Profile.parse(history="sea|sun #SEA"), Profile())
    assert found == [["sea|sun", "sea"], []]
    assert used(encoder, Profile(history=("sea,sun",))) == [[]]
    assert encoder.notes == ["not in the vocabulary, so not used: #sea,sun"]


def test_notes_name_the_values_that_the_model_cannot_use(view):
    encoder = ProfileEncoder(view)
    user = Profile("man", 200, "nowhere", ("sea", "#Straße Never", "#SEA C++"))
    assert used(encoder, user, Profile()) == [["sea", "strasse"], []]
    assert encoder.notes == [
        "not in the vocabulary, so not used: #Never",
        "not a hashtag, so not used: 'C++'",
        "gender 'man' is not in the training data (female) and counts as unknown",
        "country 'nowhere' is not in the training data (US, NAM, atlantis) and counts as unknown",
    ]


def test_a_long_history_is_cut(view):
    encoder = ProfileEncoder(dataclasses.replace(view, max_history=1))
    assert used(encoder, Profile(history=("sun", "sea"))) == [["sun"]]
    assert "first 1 " in encoder.notes[0]


def test_the_profile_of_a_known_user_is_that_of_their_clips():
    videos, users = random_world(15)
    videos = spell(videos, 1)
    full = build(videos, users)
    encoder = ProfileEncoder(full)
    row = next(iter(full.rows(TEST)))  # whose history is that of any further clip
    known = profile_of(full, full.user_ids[row])
    encoded = encoder.encode([known])
    assert encoder.notes == []
    assert encoded.gender_B == full.gender_V[row] and encoded.country_B == full.country_V[row]
    assert encoded.age_B == full.age_V[row]
    history = encoded.history_BR[0][encoded.history_mask_BR[0]]
    assert history.tolist() == full.history.row(row).tolist() != []
    ages = {profile_of(full, user_id).age for user_id in full.user_ids}
    assert ages == {None, *full.ages[1:]} and len(ages) > 3
    assert Profile(age="18-24").describe() == "age 18-24"


@pytest.mark.parametrize(
    ("user_id", "text"),
    [
        ("U01 ", "got 'U01 ', and similar ids are 'u01'; "),
        ("somebody", "got 'somebody', and some of its ids are 'u00', 'u01', 'u02', 'u03', 'u04'; "),
    ],
)
def test_an_unknown_user_is_one_sentence_with_ids(user_id, text):
    view = build(*random_world(15))
    with pytest.raises(UserError) as caught:
        profile_of(view, user_id)
    message = str(caught.value)
    assert message.startswith(f"a known user must have a clip in the run, {text}")
    assert message.endswith("or describe the user by gender, age, country and history")


def test_a_user_of_a_run_of_an_earlier_version_is_known(tmp_path):
    """Reads the run of `stored_run_test`; `dark,` is one hashtag by its rules."""
    with tarfile.open(pathlib.Path(__file__).parent / "fixtures" / "stored_run.tar.xz") as archive:
        archive.extract("./run/view.npz", tmp_path, filter="data")
    view = View.load(tmp_path / "run" / "view.npz")
    assert view.min_count == 0
    for user_id in set(view.user_ids):
        known = profile_of(view, user_id)
        ids = {view.hashtags.index(name) for name in known.history}
        rows = [row for row, name in enumerate(view.user_ids) if name == user_id]
        assert ids >= {t for row in rows for t in view.history.row(row).tolist()}
        encoder = ProfileEncoder(view)
        encoded = encoder.encode([known])
        assert encoder.notes == [] and encoded.history_mask_BR.sum() == len(ids)
        assert encoded.country_B == view.country_V[rows[0]]
