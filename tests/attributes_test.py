"""Genders and countries: one name for all spellings."""

import subprocess
import sys

import pycountry
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uhman_jax.dataset.attributes import country_names, fold_country, fold_gender, is_unknown
from uhman_jax.simulator.names import COUNTRIES, GENDERS

NOTHING = ["", " ", "-", "--", "?", "unknown", "Unknown ", "UNKNOWN", "nan", "NaN", "null", "NULL"]
NOTHING += ["none", "None", "n/a", "N/A", "#N/A", "<NA>", "NA", "na", "n.a.", "undefined", "ｎａｎ"]
NOTHING += ["Not specified", "prefer not to say", "\u200b", "un\u200bknown", "not_available"]


@pytest.mark.parametrize("text", NOTHING)
def test_unknown_values(text):
    assert is_unknown(text) and fold_gender(text) == "" and fold_country(text) == ""


@pytest.mark.parametrize("text", ["0", "other", "no", "NO", "nor", "Nauru", "nonbinary", "ana"])
def test_values_that_look_unknown(text):
    assert not is_unknown(text)


@pytest.mark.parametrize(
    "name, spellings",
    [
        ("female", ["F", "f.", "FEMALE", " female ", "ｆｅｍａｌｅ", "fe\u200bmale", "Woman"]),
        ("female", ["W", "girl", "♀", "mujer", "女", "여성", "женский"]),
        ("male", ["M", "m", "Male", "man", "boy", "♂", "♂\ufe0f", "männlich", "hombre", "男性"]),
        ("nonbinary", ["nonbinary", "Non-Binary", "non binary", "NB", "enby", "non_binary"]),
        ("other", ["other", "OTHER ", "Other"]), ("trans woman", ["trans woman", "Trans  Woman"]),
    ],
)  # fmt: skip
def test_genders(name, spellings):
    assert {fold_gender(text) for text in spellings} == {name}


@pytest.mark.parametrize(
    "name, spellings",
    [
        ("US", ["US", "us", "Us", "USA", "usa", "U.S.", "U.S.A.", "u s", "🇺🇸", "ＵＳＡ"]),
        (
            "US",
            ["America", "United States", "UNITED  STATES", "united states of america", "the US"],
        ),
        ("GB", ["GB", "GBR", "UK", "U.K.", "Great Britain", "United Kingdom", "England", "Wales"]),
        ("DE", ["DE", "de", "DEU", "Germany", "Federal Republic of Germany"]),
        ("KR", ["KR", "KOR", "South Korea", "Korea, Republic of", "Republic of Korea", "Korea"]),
        ("KP", ["KP", "North Korea", "Korea, Democratic People's Republic of", "DPRK"]),
        ("CI", ["Côte d'Ivoire", "Cote d’Ivoire", "COTE DIVOIRE", "Ivory Coast"]),
        ("TR", ["Türkiye", "Turkiye", "TURKEY", "TÜRKİYE"]),
        ("CZ", ["Czechia", "Czech Republic", "The Czech Republic"]),
        ("NL", ["Netherlands", "The Netherlands", "Holland"]),
        ("TT", ["Trinidad and Tobago", "Trinidad & Tobago"]),
        ("LC", ["Saint Lucia", "St. Lucia", "St Lucia"]),
        ("CD", ["DR Congo", "Congo, The Democratic Republic of the", "DRC"]),
        ("CG", ["Congo", "Republic of the Congo"]),
        ("FK", ["Falkland Islands (Malvinas)", "Falkland Islands"]),
        ("RU", ["Russia", "Russian Federation", "rus"]),
        ("XK", ["Kosovo", "xk"]),
        ("NAM", ["Namibia", "NAM", "nam", "Republic of Namibia"]),
        ("atlantis", ["Atlantis", " ATLANTIS"]),
        ("new atlantis", ["New  Atlantis", "new\tatlantis"]),
    ],
)
def test_countries(name, spellings):
    assert {fold_country(text) for text in spellings} == {name}


def test_all_codes_and_names_of_iso_3166():
    for country in pycountry.countries:
        expected = "NAM" if country.alpha_2 == "NA" else country.alpha_2
        for fact in ("alpha_2", "alpha_3", "name", "common_name", "official_name"):
            if (text := getattr(country, fact, "NA")) != "NA":
                for spelling in (text, text.upper(), text.lower(), f" {text} "):
                    assert fold_country(spelling) == expected, spelling


def test_names_are_names_of_themselves():
    assert all(fold_country(name) == name for name in country_names().values())


def test_simulated_values_stay_as_they_are():
    assert tuple(map(fold_gender, GENDERS)) == GENDERS
    assert tuple(map(fold_country, COUNTRIES)) == COUNTRIES


AWKWARD = "#-./ ·fFmMnaAuUsSkKİıßﬁ♀🇺🇸\u0307\u0301\u200d\ufe0f"


@given(st.text(st.sampled_from(AWKWARD) | st.characters()))
def test_folding_again_changes_nothing(text):
    for fold in (fold_gender, fold_country):
        once = fold(text)
        assert fold(once) == once == fold(f" {text}\n")
        assert (once == "") == is_unknown(text)


def test_a_long_text_is_not_a_value():
    assert fold_gender("x" * 200) == "x" * 200 and fold_gender("x" * 201) == ""
    assert fold_country("\u0345\u0301" * 60_000) == ""


def test_the_list_of_countries_is_loaded_only_if_needed():
    code = "import sys, uhman_jax.dataset.raw; assert 'pycountry' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
