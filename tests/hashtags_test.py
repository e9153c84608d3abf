"""Keys and spellings of hashtags, and lists of them."""

import json
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uhman_jax.dataset.hashtags import (
    Hashtags,
    normalise_hashtag,
    read_hashtags,
    spell_hashtag,
    split_hashtags,
)
from uhman_jax.dataset.spelling import is_legal, may_hold

# Characters on which '#', NFKC and case folding get in each other's way.
AWKWARD = "#＃﹟ \u00a0\u00a8\u0345\u0390\u1fd6\u03f4ßſK\u1e9eÅﬁıΣς\u0130\u0307\u200d\ufe0f日本ｈＨ"
characters = st.one_of(st.sampled_from(AWKWARD), st.characters(exclude_categories=["Cs"]))
texts = st.lists(characters).map("".join)  # st.text would draw the awkward ones like all others


@pytest.mark.parametrize(
    "text, expected",
    [
        ("#Fun", "fun"), ("##fun#", "fun"), ("＃ＦＵＮ", "fun"),
        ("Straße", "strasse"), ("ﬁre", "fire"),
        ("e\u0301te\u0301", "\u00e9t\u00e9"), ("日本", "日本"), ("c++", "c++"),
        ("İstanbul", "istanbul"), ("i\u0307stanbul", "istanbul"), ("ıslak", "ıslak"),
        ("se\u200ba\u00ad", "sea"), ("\u200f#שלום", "שלום"), ("❤\ufe0f", "❤"),
        ("می\u200cرویم", "میرویم"), ("ニャ～ン", "ニャ〜ン"), ("·sol·licitud·", "sol·licitud"),
        ("\u2800sea\u3164", "sea"), ("#", ""), (" # ", ""), ("", ""),
    ],
)  # fmt: skip
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
    assert "#" not in once and once.split() in ([], [once])


def normalise_by_rules_1(text):
    """Returns the key as the function of version 1 did."""
    previous = None
    while text != previous:
        previous = text
        text = unicodedata.normalize("NFKC", "".join(text.split()).strip("#")).casefold()
        text = unicodedata.normalize("NFKC", text)
    return text


@given(texts)
def test_rules_1_are_as_they_were(text):
    assert normalise_hashtag(text, rules=1) == normalise_by_rules_1(text)
    parts = "".join(" " if c in "#＃﹟" else c for c in text).split()
    keys = dict.fromkeys(filter(None, map(normalise_by_rules_1, parts)))
    assert split_hashtags(text, rules=1) == tuple(keys)


@pytest.mark.parametrize("rules", [1, 2])
def test_rules_differ_where_they_should(rules):
    assert normalise_hashtag("\u0130x\u200b", rules) == ("i\u0307x\u200b" if rules == 1 else "ix")
    assert split_hashtags("#A,b c++", rules) == (("a,b", "c++") if rules == 1 else ("a", "b"))


@pytest.mark.parametrize(
    "text, spelling",
    [
        ("#Straße", "Straße"), ("＃ＦＵＮ", "ＦＵＮ"), ("Cafe\u0301", "Café"),
        ("\u200bNew York\u200e", "NewYork"), ("می\u200cرویم\u200c", "می\u200cرویم"),
        ("se\u200ba", "sea"), ("❤\ufe0f", "❤\ufe0f"), ("e\ufe0f", "e"), ("・ランチ・", "ランチ"),
        ("##", ""),
    ],
)  # fmt: skip
def test_spellings_for_display(text, spelling):
    assert spell_hashtag(text) == spelling


@given(texts)
def test_a_spelling_has_the_key_of_its_text(text):
    spelling = spell_hashtag(text)
    assert spell_hashtag(spelling) == spelling == unicodedata.normalize("NFC", spelling)
    assert normalise_hashtag(spelling) == normalise_hashtag(text)


def test_every_character_has_a_key_that_is_one_and_has_nothing_invisible():
    """Checks that each hashtag of a table can be written as its key and read again."""
    visible = {*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD}
    visible |= {*range(0x13430, 0x13460)}  # signs that join hieroglyphs
    for code in range(sys.maxunicode + 1):
        is_held = may_hold(character := chr(code))
        is_format = unicodedata.category(character) == "Cf"
        if not is_held and not is_format and code >= 0xD800:
            continue
        key = normalise_hashtag(f"a{character}b")
        assert is_legal(key) or not is_held, hex(code)
        assert not is_format or key == "ab" or code in visible, hex(code)
        if code < 0xD800:
            assert normalise_hashtag(key) == key == unicodedata.normalize("NFKC", key), hex(code)


SEA_SUN = ("sea", "sun"), ("Sea", "sun"), ()


@pytest.mark.parametrize(
    "field",
    [
        "#Sea #sun", "#Sea,#sun", "Sea, sun,", "Sea;sun", "Sea|sun", "Sea | #sun", "Sea、sun",
        "Sea，sun", "Sea；sun", "Sea｜sun", "Sea\u060csun", "Sea\u3000sun", "Sea\u00a0sun",
        "Sea\u2800sun", "Sea\nsun\r\n", "Sea\tsun", "- Sea\n- sun", "Sea • sun", "Sea / sun & sun",
        '["Sea", "sun"]', "['Sea', 'sun']", "('Sea', 'sun')", "{'Sea', 'sun',}", "['Sea' 'sun']",
        "[Sea, sun]", "{Sea,sun}", '["#Sea", null, "sun", NaN, ""]', '["#Sea #sun"]',
        '["\\u0053ea", "s\\x75n"]', '"Sea","sun"', '"Sea""sun"', '"#Sea #sun"', "“#Sea” ‘#sun’",
        "«Sea» „sun‟", "「Sea」『sun』", "＂Sea＂，＇sun＇", "`Sea` `sun`",
        "“Sea”, “sun”", "(Sea) [sun]",
        "#Sea#sun", "##Sea #sun#", "#Sea# ＃sun﹟SUN", "#Sea. #sun!", "Sea: sun...",
        "\u200bSea \ufeffsun", "Sea sun #SEA ｓｅａ",
    ],
)  # fmt: skip
def test_lists(field):
    assert read_hashtags(field) == SEA_SUN


@pytest.mark.parametrize(
    "field, keys, rejected",
    [
        ("C++ sea", ["sea"], ["C++"]), ("c# sea", ["sea"], ["c#"]), ("a/b, sea", ["sea"], ["a/b"]),
        ("don't sea-sun #sea", ["sea"], ["don't", "sea-sun"]), ('se"a', [], ['se"a']),
        ("f(x) @ana sea", ["sea"], ["f(x)", "@ana"]),
        ("https://x.example/a,b#c #sea", ["sea"], ["https://x.example/a,b#c"]),
        ("x.example/#d", [], ["x.example/#d"]), ('["New York", "#sea"]', ["sea"], ["New York"]),
        ("“New York”, “sea”", ["sea"], ["New York"]),
        ('[{"name": "sea"}, {"name": "sun"}]', [], ['[{"name": "sea"}, {"name": "sun"}]']),
        ("rock&#39;n", ["n"], ["rock&#39"]), ("1\ufe0f\u20e3 sea", ["sea"], ["1\ufe0f\u20e3"]),
        ("<b>sea</b>", [], ["<b>sea</b>"]), ("½ km²", ["km2"], ["½"]),
        ("a" * 501 + " " + "b" * 500, ["b" * 500], ["a" * 501]),
        ("%23sea \\#sun", ["sun"], ["%23sea"]), ("2024 _ ... - #", ["2024"], []),
        ("❤\ufe0f 🌊sea", ["❤", "🌊sea"], []), ("nan", [], []), (" NULL ", [], []),
        ('["none"]', [], []), ("[nan]", [], []), ("[]", [], []), ("#nan", ["nan"], []),
        ("none sea", ["none", "sea"], []), ("", [], []),
    ],
)  # fmt: skip
def test_parts_that_cannot_be_hashtags_are_returned(field, keys, rejected):
    read = read_hashtags(field)
    assert list(read.keys) == keys and list(read.rejected) == rejected


def test_several_lists_are_read_together():
    both = read_hashtags('["Sea"]', "sea Sun C++", "c++")
    assert both == Hashtags(("sea", "sun"), ("Sea", "Sun"), ("C++", "c++"))
    assert read_hashtags() == Hashtags((), (), ())


@given(texts)
def test_joined_hashtags_split_into_themselves(text):
    read = read_hashtags(text)
    for names in (read.keys, read.spellings):
        again = read_hashtags(" ".join(f"#{name}" for name in names))
        assert (again.keys, again.spellings, again.rejected) == (read.keys, names, ())
    assert len(set(read.keys)) == len(read.keys) and "" not in read.keys
    assert split_hashtags(text) == read.keys


words = st.text(st.sampled_from("aZ_é日本カन\u093f한0Ёß🌊Ａ"), min_size=1, max_size=6).filter(
    lambda word: read_hashtags(f"#{word}").rejected == () and read_hashtags(f"#{word}").keys
)


@given(st.lists(words, min_size=2, max_size=5))
def test_every_separator_gives_the_same_hashtags(names):
    expected = tuple(dict.fromkeys(map(normalise_hashtag, names)))
    for separator in (" ", ",", ", ", ";", "|", "\n", "、", "，", "\u3000", "#", " #", "\t", " • "):
        assert read_hashtags(f"#{separator.join(names)}").keys == expected, separator
    for left, right in ('""', "''", "“”", "‘’", "«»", "「」", "()", "[]", "〝〟"):
        wrapped = [f"{left}{name}{right}" for name in names]
        assert read_hashtags(" ".join(wrapped)).keys == expected, left
        assert read_hashtags(",".join(wrapped)).keys == expected, left
    for ascii_only in (True, False):
        assert read_hashtags(json.dumps(names, ensure_ascii=ascii_only)).keys == expected
    for wrapped in (names, tuple(names)):
        assert read_hashtags(str(wrapped)).keys == expected
