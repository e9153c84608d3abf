"""Spelling of hashtags."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uhman_jax.dataset.hashtags import normalise_hashtag, split_hashtags

# Characters on which '#', NFKC and case folding get in each other's way.
AWKWARD = "#＃﹟ \u00a0\u00a8\u0345\u0390\u1fd6\u03f4ßſK\u1e9eÅﬁıΣς\u0130\u0307\u200d\ufe0f日本ｈＨ"
characters = st.one_of(st.sampled_from(AWKWARD), st.characters(exclude_categories=["Cs"]))
texts = st.lists(characters).map("".join)  # st.text would draw the awkward ones like all others


@pytest.mark.parametrize(
    "text, expected",
    [
        ("#Fun", "fun"),
        ("##fun#", "fun"),
        ("＃ＦＵＮ", "fun"),
        ("Straße", "strasse"),
        ("ﬁre", "fire"),
        ("e\u0301te\u0301", "\u00e9t\u00e9"),
        ("日本", "日本"),
        ("c++", "c++"),
        ("#", ""),
        (" # ", ""),
        ("", ""),
    ],
)
def test_spellings(text, expected):
    assert normalise_hashtag(text) == expected


def test_kinds_of_one_hashtag_agree():
    spellings = ["CAFÉ", "café", "cafe\u0301", "#Cafe\u0301", "ＣＡＦÉ", "##café "]
    assert {normalise_hashtag(text) for text in spellings} == {"café"}


@given(texts)
def test_normalising_again_changes_nothing(text):
    once = normalise_hashtag(text)
    assert normalise_hashtag(once) == once
    assert unicodedata.normalize("NFKC", once) == once
    assert unicodedata.normalize("NFKC", once.casefold()) == once
    assert not once.startswith("#") and not once.endswith("#") and once.split() in ([], [once])


def test_every_character_of_the_basic_plane_is_settled_in_one_go():
    for code in range(0xD800):
        once = normalise_hashtag(f"a{chr(code)}b")
        assert normalise_hashtag(once) == once == unicodedata.normalize("NFKC", once), hex(code)


def test_splits_at_white_space_and_hash_signs():
    assert split_hashtags("#b a\tc\n#d") == ("b", "a", "c", "d")
    assert split_hashtags("#love#fun＃日本") == ("love", "fun", "日本")
    assert split_hashtags("") == split_hashtags(" # ## ") == ()


def test_repeated_hashtags_keep_their_first_place():
    assert split_hashtags("b A #B a ｂ c") == ("b", "a", "c")


@given(texts)
def test_joined_hashtags_split_into_themselves(text):
    hashtags = split_hashtags(text)
    assert split_hashtags(" ".join(hashtags)) == hashtags
    assert len(set(hashtags)) == len(hashtags) and "" not in hashtags
