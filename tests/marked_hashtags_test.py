"""Hashtags that a text marks with '#': the rules of twitter-text, and our additions.

`TEXTS` has a text of our own for each of the 68 points about hashtags in twitter-text's conformance
list, in its order. All agree, with two intended differences: each hashtag is returned once, and
spellings are NFC. `OURS` has the cases that the list leaves open.
"""

import json
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from shared_files import shared

from uhman_jax.dataset.hashtags import (
    keyword_hashtag,
    marked_hashtags,
    normalise_hashtag,
    read_hashtags,
)

TEXTS = [
    # Behind emoji, with and without selectors, colours and joiners.
    ("sun ☀#beach day", ["beach"]),
    ("sun ☀\ufe0e#beach day", ["beach"]),
    ("sun ☀\ufe0f#beach day", ["beach"]),
    ("hi 👋🏽#beach day", ["beach"]),
    ("hi 👋🏽\ufe0f#beach day", ["beach"]),
    ("we 👩\u200d👩\u200d👦#beach day", ["beach"]),
    # Letters and digits.
    ("we love #surfing so much", ["surfing"]),
    ("off to #summer24", ["summer24"]),
    ("#4ever young", ["4ever"]),
    ("meet at gate #27 now", []),
    ("#7", []),
    ("(#one )#two [#three ]#four ’#five’#six", ["one", "two", "three", "four", "five", "six"]),
    # Latin letters with marks.
    ("vamos a la #montaña", ["montaña"]),
    ("enfin l'#été", ["été"]),
    ("wir sind #müde", ["müde"]),
    # Scripts of East Asia, and Cyrillic.
    ("nothing here: # 写真 カメラ", []),
    ("look, #바다 again", ["바다"]),
    ("half width #ﾤﾣﾩ here", ["ﾤﾣﾩ"]),
    ("look, #море again", ["море"]),
    ("#ネコ is a cat", ["ネコ"]),
    ("#さくら now!", ["さくら"]),
    ("#海 is the sea", ["海"]),
    ("a cat #ネコ", ["ネコ"]),
    ("in bloom #さくら", ["さくら"]),
    ("swim time #海", ["海"]),
    ("see the #ネコ jump?", ["ネコ"]),
    ("under #さくら all day", ["さくら"]),
    ("at the #海 again. and you?", ["海"]),
    ("今日は #夏休みスタート", ["夏休みスタート"]),
    ("晴れました。#夏休み", ["夏休み"]),
    ("#夏休み。", ["夏休み"]),
    ("全角で ＃ｎｅｋｏ４５６", ["ｎｅｋｏ４５６"]),
    ("これは夏休み#夏休み", []),
    ("のばす。#ビーチ", ["ビーチ"]),
    ("のばす。#ﾋﾞｰﾁ", ["ﾋﾞｰﾁ"]),
    ("#ﾈｺﾊﾞﾝﾁ #ｶﾞｷﾞｸﾞ", ["ﾈｺﾊﾞﾝﾁ", "ｶﾞｷﾞｸﾞ"]),
    ("着いたよ！#夏休み。", ["夏休み"]),
    ("着いたよ！＃夏休み。", ["夏休み"]),
    ("#人々 #みすゞ #続く〻 #同〃", ["人々", "みすゞ", "続く〻", "同〃"]),
    ("#ニャ～ン と～鳴く", ["ニャ～ン"]),
    ("#ニャ〜ン と～鳴く", ["ニャ〜ン"]),
    # Turkish.
    ("bugün çok güzel: #Güneş #şarkı #tuş #şş", ["Güneş", "şarkı", "tuş", "şş"]),
    ("bugün çok güzel: #İzmir #ıslak", ["İzmir", "ıslak"]),
    # Punctuation, line ends, addresses.
    ("#sea: #sun; #sky, #sand. #surf! #sail?", ["sea", "sun", "sky", "sand", "surf", "sail"]),
    (":#sea ;#sun ,#sky .#sand !#surf ?#sail", ["sea", "sun", "sky", "sand", "surf", "sail"]),
    ("#sea\nand\n#sun2\nand\n#sky3\n", ["sea", "sun2", "sky3"]),
    ("#http://clips.example #https://clips.example", []),
    ("http://clips.example/#top clips.example/#top", []),
    # More letters: extended Latin, Arabic, Hebrew, Indic, South-East Asia.
    ("#Bakıda #tǁae #Dvořák #Ṫír", ["Bakıda", "tǁae", "Dvořák", "Ṫír"]),
    ("#ساحل #البحر #تهران  #شمس", ["ساحل", "البحر", "تهران", "شمس"]),
    ("#غروب_آفتاب  #يوم_جميل, #آب_بازی.", ["غروب_آفتاب", "يوم_جميل", "آب_بازی"]),
    ("#בֵּית־סֵפֶר #גב׳ #תנ״ך", ["בֵּית־סֵפֶר", "גב׳", "תנ״ך"]),
    ("#ทะเล #พระอาทิตย์ #ผู้คน #น้ำ", ["ทะเล", "พระอาทิตย์", "ผู้คน", "น้ำ"]),
    ("#می‌رویم #دل‌تنگ", ["می‌رویم", "دل‌تنگ"]),
    ("እንዴት ነህ ዛሬ #ባህርዳር", ["ባህርዳር"]),
    ("#ක්‍රීඩා", ["ක්‍රීඩා"]),
    ("#۱۲موج #موج۳۴ #بحـــر_٥٦", ["۱۲موج", "موج۳۴", "بحـــر_٥٦"]),
    ("#समुद्र #समुद्र_२३ #२३ लहर", ["समुद्र", "समुद्र_२३"]),
    ("#সাগর #દરિયો #ಕಡಲು #കടൽ #கடல் #సముద్రం", ["সাগর", "દરિયો", "ಕಡಲು", "കടൽ", "கடல்", "సముద్రం"]),
    ("#རྒྱ་མཚོ་ #རྒྱ་མཚོ", ["རྒྱ་མཚོ་", "རྒྱ་མཚོ"]),
    ("#សមុទ្រ #ပင်လယ် #ທະເລ", ["សមុទ្រ", "ပင်လယ်", "ທະເລ"]),
    ("#Γαλάζια_θάλασσα το καλοκαίρι", ["Γαλάζια_θάλασσα"]),
    ("#Ծով #ზღვა", ["Ծով", "ზღვა"]),
    ("#sol·licitud", ["sol·licitud"]),
    ("#_ #3_4 #345 #〃", []),
    # Beyond the basic plane.
    ("#\U00020089", ["\U00020089"]),
    ("#\U00016f05\U00016f52", ["\U00016f05\U00016f52"]),
    ("#B\U000104a1", ["B\U000104a1"]),
]

OURS = [
    # Keycaps are none.
    ("dial #\ufe0f\u20e3 or *\ufe0f\u20e3", []),
    ("top #3\ufe0f\u20e3 of #all", ["all"]),
    ("#\u20e3 #\ufe0fsea", ["sea"]),
    # Addresses, with any path and query, with or without a scheme.
    ("https://x.example/a_(b)/c-d#e, #f", ["f"]),
    ("(see https://x.example/a)#b", ["b"]),
    ("https://x.example/?a=b&c=#d", []),
    ("x.example?q=#a x.example:8080/#b 10.0.0.1/#c localhost/#d ftp://x/#e", []),
    ("https://x.example/#a，#b", ["b"]),
    ("#a.example/b", ["a"]),
    ("x.example#a me@x.example#b", []),
    ("#sea/#sun and/or/#sky", ["sea", "sun", "sky"]),
    ("#日本http://x.example/#a", ["日本"]),
    # HTML entities; words before the sign.
    ("it&#39;s rock&#x26;roll &amp;#sea", ["sea"]),
    ("c# a_#b 1#c नम#d", []),
    # Glued hashtags, and Weibo's pairs: one rule.
    ("#a#b#c", ["a", "b", "c"]),
    ("#1#b", ["b"]),
    ("##a ＃b#", ["a", "b"]),
    ("#海#山#川", ["海", "山", "川"]),
    ("#周末#出去玩，#美食#好吃", ["周末", "美食"]),
    ("今天#周末#出去玩", ["周末"]),
    ("#周末##美食#", ["周末", "美食"]),
    ("#NBA#总决赛", ["NBA"]),
    ("出去玩 #sea#sun", ["sea", "sun"]),
    ("#東京#大阪 へ行く", ["東京", "大阪"]),
    ("#바다#하늘", ["바다", "하늘"]),
    # Signs within a word; at its ends they are punctuation.
    ("・#ランチ・#カフェ", ["ランチ", "カフェ"]),
    ("#アイス・クリーム #ｱｲｽ･ｸﾘｰﾑ", ["アイス・クリーム"]),
    ("#楽しい〜 #·a·", ["楽しい", "a"]),
    ("#כ״ץ #ז׳ אומר", ["כ״ץ", "ז׳"]),
    # Emoji belong to a hashtag, as on Instagram, but need a letter.
    ("#sun☀\ufe0f#sea🌊 #🌊 #🌊wave", ["sun☀\ufe0f", "sea🌊", "🌊wave"]),
    ("#Lego™ #Nike® #km² #½", ["Lego", "Nike", "km²"]),
    # Invisible characters.
    ("#se\u200ba #\u2060sea #SEA\u200e #s\u00adea", ["sea"]),
    ("#s\ufe0fea", ["sea"]),
    ("sea\u200d#a sea\u200b#b", ["b"]),
    ("#\u3164 #\u200b\u2800", []),
]


@pytest.mark.parametrize("text, expected", TEXTS + OURS)
def test_text(text, expected):
    assert len(TEXTS) == 68
    assert list(marked_hashtags(text)) == expected


def test_texts_of_strangers():
    for line in shared("strangers/16-hashtag-texts.jsonl").read_text("utf-8").splitlines():
        sample = json.loads(line)
        found = [normalise_hashtag(spelling) for spelling in marked_hashtags(sample["text"])]
        assert found == sample["expected"], sample["text"]


AWKWARD = (
    "##＃﹟ \n&;:/.?()_·・־״'\"🌊☀\u200b\u200d\ufe0f\u20e3\u3164\u2800aZ1é海カ한न\u0301\u0307İıﬁ～½"
)
texts = st.text(st.one_of(st.sampled_from(AWKWARD), st.characters()), max_size=40)


@given(texts)
@example("#ـــ")
def test_whatever_is_marked_is_a_hashtag(text):
    found = marked_hashtags(text)
    read = read_hashtags(" ".join(f"#{spelling}" for spelling in found))
    assert read.spellings == found and read.rejected == ()
    assert read.keys == tuple(map(normalise_hashtag, found)) and len(set(read.keys)) == len(found)
    assert all(any(character.isalpha() for character in key) for key in read.keys)


@given(st.text(st.one_of(st.sampled_from(AWKWARD), st.characters()), max_size=12))
def test_a_keyword_gives_a_hashtag_or_nothing(text):
    spelling = keyword_hashtag(text)
    assert spelling == "" or read_hashtags(spelling + " #a").spellings[0] == spelling


@pytest.mark.parametrize(
    "keyword, spelling",
    [
        ("New York", "NewYork"), (" Hip-Hop ", "HipHop"), ("New Year’s Eve", "NewYearsEve"),
        ("St. Louis", "StLouis"), ("#dance", "dance"), ("日本 旅行", "日本旅行"), ("2024", "2024"),
        ("C# tutorial", ""), ("c++", ""), ("3.5", ""), ("AC/DC", ""), ("R&B", ""), ("...", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_keywords(keyword, spelling):
    assert keyword_hashtag(keyword) == spelling


PIECES = ["#", "a#", "a.", "a.bb/#(", "aaaa://", "x://(", "春#", "#\u200d", "&#", "🌊#", "a", "!"]
PIECES += ['"', '["', '"a",', "\\", "( ", "'a", "a-", "\u0345\u0301", "#\u0345\u0301", '":']


@pytest.mark.parametrize("piece", PIECES)
def test_a_long_text_or_list_is_read_fast(piece):
    long = piece * 20_000
    began = time.process_time()
    for text in (long, f"#a{long}!", f'["{long}"]', f"[{{{long}?"):
        marked_hashtags(text)
        read_hashtags(text)
        keyword_hashtag(text)
    assert time.process_time() - began < 10  # about 0.5 s; a quadratic rule takes minutes
