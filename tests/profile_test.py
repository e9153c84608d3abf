"""Profiles are normalised as the training data were."""

import dataclasses

import pytest
from views import build, random_world

from uhman_jax.recommend.profile import Profile, ProfileEncoder
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
