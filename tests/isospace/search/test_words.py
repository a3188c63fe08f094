"""Words of the lexical index: equal for equal words, whatever their form, and found where a text has them."""

from __future__ import annotations

import re
import time
import unicodedata
from pathlib import Path

import bm25s
import numpy as np
import pytest

from isospace.search.bm25 import LexicalIndex
from isospace.search.highlight import highlighter, snapshot_highlighter
from isospace.search.postings import build_postings
from isospace.search.spec import LexicalSpec
from isospace.search.words import document_words, find_words, folded, query_weights, words_of

NOW, SECOND, FIRST = LexicalSpec(), LexicalSpec(tokenizer=2), LexicalSpec(tokenizer=1)
ENGLISH = (Path(__file__).parents[3] / "docs" / "architecture.md").read_text().encode("ascii", "ignore").decode()


def found(query: str, *texts: str, spec: LexicalSpec = NOW) -> list[int]:
    """Return the texts that share a word with a query, best first."""
    rows, scores = LexicalIndex(spec, [build_postings([texts], spec)]).best(query, len(texts))
    return [int(rows[place]) for place in np.argsort(-scores, kind="stable")]


@pytest.mark.parametrize(
    ("plain", "other"),
    [
        ("naïve façade", unicodedata.normalize("NFD", "naïve façade")),
        ("Việt Nam", unicodedata.normalize("NFD", "VIỆT NAM")),
        ("서울", unicodedata.normalize("NFD", "서울")),
        ("ガラス", "ｶﾞﾗｽ"),
        ("キログラム", "㌔㌘"),
        ("flight", "ﬂight"),
        ("affluent", "aﬄuent"),
        ("ij", "ĳ"),
        ("Linux 2026", "Ｌｉｎｕｘ　２０２６"),
        ("co2", "CO₂"),
        ("xiv", "ⅹⅳ"),
        ("straße", "STRASSE"),
        ("ΟΔΥΣΣΕΥΣ", "οδυσσευς"),
        ("istanbul", "İSTANBUL"),
        ("ıspanak", "ISPANAK"),
        ("izmir", unicodedata.normalize("NFD", "İzmir")),
        ("cooperation", "co\xadoper\xadation"),
        ("password", "pass\u200bword"),
        ("password", "\ufeffpass\u2060word\u200e"),
        ("می\u200cخواهم", "میخواهم"),
        ("كتاب", "كتـــاب"),
        ("الله", "ﷲ"),
        ("葛飾", "葛\U000e0100飾"),
        ("क़लम", unicodedata.normalize("NFD", "क़लम")),
    ],
)
def test_forms_of_one_word_are_one_word_in_both_directions(plain: str, other: str) -> None:
    for spec in (NOW, SECOND):
        for query, text in ((plain, other), (other, plain), (plain, plain)):
            assert words_of([query], spec, "query") == words_of([text], spec, "query")
            assert found(query, text, "nothing of it", spec=spec) == [0]


@pytest.mark.parametrize(
    "words",
    [
        "हिन्दी में किताबें पढ़ना",
        "தமிழ் மொழியில் புத்தகங்கள்",
        "বাংলা ভাষার বই",
        "ಕನ್ನಡ ಪುಸ್ತಕ",
        "മലയാളം ഭാഷ",
        "שָׁלוֹם עוֹלָם",
        "السَّلامُ عَلَيْكُم",
    ],
)
def test_a_word_keeps_its_marks(words: str) -> None:
    expected = [unicodedata.normalize("NFKC", word) for word in words.split()]
    assert words_of([words, words], NOW, "query") == words_of([words, words], SECOND, "query") == [expected] * 2


def test_another_word_is_not_found() -> None:
    assert found("कल", "कला", "कल") == [1]
    assert found("มาก", "แมว") == []
    assert found("resume", "résumé") == []


@pytest.mark.parametrize(
    ("query", "text", "other"),
    [
        ("東京大学", "私は東京大学で物理を学びました。", "大阪の学生です。"),
        ("猫", "黒猫が好きです。", "犬が好きです。"),
        ("北京烤鸭", "我们昨天晚上吃了北京烤鸭", "上海的天气很好"),
        ("データベース", "このデータベースは速い", "とても遅い"),
        ("서울", "서울은 큰 도시이다", "부산에서 만나요"),
        ("ภาษาไทย", "ฉันกำลังเรียนภาษาไทยอยู่", "แมวตัวนี้สีดำ"),
        ("ພາສາລາວ", "ຂ້ອຍເວົ້າພາສາລາວໄດ້", "ແມວສີດຳ"),
        ("ភាសាខ្មែរ", "ខ្ញុំរៀនភាសាខ្មែរ", "ឆ្មា"),
        ("မြန်မာ", "ကျွန်တော်မြန်မာစာဖတ်တယ်", "ကြောင်"),
        ("Python", "Pythonで書かれた", "Rustで書かれた"),
    ],
)
def test_scripts_without_spaces_are_found_inside_a_sentence(query: str, text: str, other: str) -> None:
    assert found(query, other, text)[0] == 1


@pytest.mark.parametrize(
    ("query", "texts", "spec"),
    [
        # Others share pairs of characters or words with the query, and come later.
        ("北京大学", ("他在北京大学学习物理", "北京的天气很好", "大学生喜欢音乐"), {}),
        ("機械学習", ("機械学習のモデルを訓練する", "機械を修理する", "学習塾に通う"), {}),
        ("대학교", ("서울에 있는 대학교에서 공부한다", "대학원 입학", "서울은 크다"), {}),
        ("มหาวิทยาลัย", ("เขาเรียนที่มหาวิทยาลัยในกรุงเทพ", "อาหารไทยอร่อยมาก", "มหาสมุทร"), {}),
        ("विश्वविद्यालय", ("वह विश्वविद्यालय में पढ़ता है", "विश्व बड़ा है", "विद्यालय पास है"), {}),
        ("பல்கலைக்கழகம்", ("சென்னைப் பல்கலைக்கழகம் பழமையானது", "கழகம் சென்றது", "சென்னை பெரியது"), {}),
        # An inflected form needs a stemmer.
        ("किताबें", ("मेरी किताब अच्छी है", "घर बड़ा है"), {"stemmer": "hindi"}),
        ("Häuser", ("Das Haus ist alt", "Der Garten ist neu"), {"stemmer": "german"}),
        ("كتاب", ("هذا كتاب جديد", "ذهب إلى المدرسة", "كاتب مشهور"), {}),
        ("الكتاب", ("قرأت كتابا", "بيت كبير"), {"stemmer": "arabic"}),
        ("IĞDIR", ("Iğdır'da hava güzel", "İzmir'de hava soğuk"), {}),
        ("ığdır", ("IĞDIR İLİ", "ADIYAMAN İLİ"), {}),
        ("kitaplar", ("Kitapları okudum", "Evler büyük"), {"stemmer": "turkish"}),
        ("ΟΔΥΣΣΕΥΣ", ("Ο Οδυσσεύς και ο οδυσσευς", "Η Πηνελόπη", "Ο Αχιλλεύς"), {}),
        ("Việt Nam", ("Hà Nội là thủ đô của Việt Nam", "Nam Định", "Việt kiều"), {}),
        (unicodedata.normalize("NFD", "thủ đô"), ("Hà Nội là thủ đô", "thu đo"), {}),
        # Each whole compound is a word.
        ("Donaudampfschiff", ("Ein Donaudampfschiff fährt vorbei", "Ein Dampfschiff auf der Donau"), {}),
        ("Straßen-Bahn", ("Die Straßen-Bahn kommt", "Die Bahn kommt", "Die Straßen sind leer"), {}),
        # Exact identifiers come before texts of their parts, however often these have them.
        ("max_part_size", ("set max_part_size to 8", "the max size of a part", "max max part part size size"), {}),
        ("getUserName", ("call getUserName(id)", "get the user name", "user user name name get"), {}),
        ("get_user_name", ("x = getUserName()", "get user name", "user_name"), {}),
        ("os.path.join", ("call os.path.join(a, b)", "join the path", "os"), {}),
        ("join_all", ("os.path.join_all()", "join them all"), {}),
        ("parse_http_request", ("parseHTTPRequest(x)", "parse a request of http"), {}),
        ("iPhone", ("The new iPhone", "The new phone", "phone phone phone"), {}),
        ("McDonald", ("Old McDonald", "Old Donald"), {}),
        ("eBay", ("I sold it on eBay", "a bay"), {}),
        ("WiFi", ("Wi-Fi is on", "a fi"), {}),
        ("wifi", ("Wi-Fi is on", "it is on"), {}),
        ("C++", ("written in C++", "written in C", "vitamin C", "written in C#"), {}),
        ("C#", ("written in C#.", "written in C", "written in C++"), {}),
        (".NET", ("runs on .NET", "a fishing net", "net net"), {}),
        ("ASP.NET", ("runs on ASP.NET", "runs on .NET", "an asp"), {}),
        ("node.js", ("uses node.js", "a node", "node of js"), {}),
        ("nodejs", ("uses node.js", "a node"), {}),
        ("3.11", ("Python 3.11 is out", "chapter 11 of 3", "311 pages"), {}),
        ("GPT-4", ("we asked GPT-4", "we asked GPT-3", "4 times"), {}),
        ("GPT4", ("we asked GPT-4", "we asked GPT-3"), {}),
        ("utf8", ("in UTF-8", "in UTF-16", "8 bits"), {}),
        ("e-mail", ("send an e-mail", "send mail", "vitamin e"), {}),
        ("email", ("send an e-mail", "send mail"), {}),
        ("USA", ("in the U.S.A.", "in a city"), {}),
        ("U.S.A.", ("in the USA", "in the city"), {}),
        ("AT&T", ("a bill of AT&T", "meet at t", "at the bank"), {"stopwords": "english"}),
        ("don't", ("I don't know", "I do know"), {}),
        ("cafe\u0301", ("ein Café", "ein Cafe"), {}),
        ("ann.lee@example.com", ("Write to ann.lee@example.com", "Ann Lee, for example", "example.com"), {}),
        ("docs.python.org", ("see https://docs.python.org/3/library/re.html", "python docs", "an org"), {}),
        ("re.html", ("see https://docs.python.org/3/library/re.html", "html re"), {}),
        ("__init__", ("def __init__(self)", "an init", "init init"), {}),
    ],
)
def test_every_language_finds_its_text_first(query: str, texts: tuple[str, ...], spec: dict[str, str]) -> None:
    last_first = texts[::-1]
    assert last_first[found(query, *last_first, spec=LexicalSpec(**spec))[0]] == texts[0]


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("request", "parse_http_request"),
        ("request", "parseHTTPRequest"),
        ("http server", "class HTTPServer"),
        ("user name", "getUserName"),
        ("user name", "get_user_name"),
        ("getUserName", "get-user-name"),
        ("part", "maxPartSize"),
        ("rna", "siRNA"),
        ("phone", "iPhone"),
        ("utf", "utf8"),
        ("sha 256", "sha256sum"),
        ("b", "a.b.c"),
        ("main", "src/main/app"),
        ("private", "_private"),
        ("Über", "getÜberName"),
        ("имя", "получитьИмя"),
    ],
)
def test_parts_of_identifiers_are_found_since_the_third_version(query: str, text: str) -> None:
    assert found(query, text, "nothing of it") == [0]
    if query not in ("b", "main"):
        assert found(query, text, spec=SECOND) == []


@pytest.mark.parametrize(
    ("query", "text"), [("Dampfschiff", "Ein Donaudampfschiff"), ("Schiff", "Donaudampfschiff"), ("huis", "ziekenhuis")]
)
def test_parts_of_compounds_are_not_found(query: str, text: str) -> None:
    assert found(query, text) == []


def test_the_second_version_has_the_words_that_it_had() -> None:
    text = "get_user_name HTTPServer os.path e-mail C++ .NET 3.11 __x__ don't naïve CO₂ 東京都 ½ ﬁle İx Straße ____"
    second = "get_user_name httpserver os path e mail c net 3 11 __x__ don t naïve co2 東 京 都 東京 京都 1 2 file ix"
    second += " strasse ____"
    assert words_of([text], SECOND, "document")[0] == second.split()
    assert [word.text for word in find_words(text, SECOND)] == second.split()
    assert document_words([text], SECOND) == [(second.split(), len(second.split()))]
    assert query_weights("a-b a é", SECOND) == {"a": 2.0, "b": 1.0, "é": 1.0}


def test_a_pattern_takes_nothing_apart() -> None:
    third = LexicalSpec(pattern=r"[a-z_]+")
    assert words_of(["getUserName get_x"], third, "query") == [["getusername", "get_x"]]
    assert document_words(["getUserName get_x"], third) == [(["getusername", "get_x"], 2)]


def test_words_of_a_query_count_as_often_as_they_occur_and_hyphenated_wholes_a_quarter() -> None:
    weights = {"wingbody": 0.25, "wing": 2.0, "body": 1.0, "gpt4": 1.0, "gpt": 1.0, "4": 1.0}
    assert query_weights("wing-body GPT-4 wing", NOW) == weights
    assert query_weights("wing-body wing-body", NOW) == {"wingbody": 0.5, "wing": 2.0, "body": 2.0}
    assert query_weights("wingbody wing-body", NOW)["wingbody"] == 1.25
    assert query_weights("", NOW) == {}


def test_hyphenated_prose_does_not_outweigh_the_other_words_of_a_query() -> None:
    texts = ("boundary-layer of a plane", "boundary layer of a wing")
    assert found("boundary-layer wing", *texts) == [1, 0]
    assert found("boundary-layer", *texts) == [0, 1]


def test_every_simple_character_is_of_a_word_to_both_libraries_or_to_none() -> None:
    import regex

    from isospace.search import words as module

    simple = [chr(code) for code in range(0x2300) if module._SIMPLE.fullmatch(chr(code))]
    assert "a" in simple
    assert "я" in simple
    for character in simple:
        assert bool(re.fullmatch(r"\w", character)) == bool(regex.fullmatch(r"[\p{L}\p{N}_]", character)), character
        assert not regex.fullmatch(r"\p{M}", character), character
        runs = module._identifiers().fullmatch(character)
        assert runs is None or runs.lastgroup != "run", character
    assert module._SIMPLE.fullmatch("\u2300") is None


def test_pairs_have_the_order_of_the_characters_and_numbers_stay_whole() -> None:
    assert words_of(["東京都 2024年12月"], NOW, "query") == [["東京", "京都", "2024", "年", "12", "月"]]
    assert words_of(["京都"], NOW, "document") == [["京", "都", "京都"]]
    assert found("都東", "東京") == []


@pytest.mark.parametrize("spec", [{}, {"stemmer": "english", "stopwords": "english"}, {"pattern": r"[a-z]{3,}"}])
def test_the_first_version_is_still_what_the_library_made_of_a_text(spec: dict[str, str]) -> None:
    import Stemmer

    first = LexicalSpec(tokenizer=1, **spec)
    texts = [ENGLISH, "कला कल İstanbul ﬁle re\u0301sume\u0301 東京都"]
    expected = bm25s.tokenize(
        texts,
        token_pattern=first.pattern or r"(?u)\b\w+\b",
        stopwords=first.stopwords or [],
        stemmer=Stemmer.Stemmer("english") if first.stemmer else None,
        return_ids=False,
        show_progress=False,
    )
    assert words_of(texts, first, "document") == words_of(texts, first, "query") == expected
    if not spec.get("pattern"):
        # English texts kept the words that they had.
        assert words_of([ENGLISH], LexicalSpec(tokenizer=2, **spec), "document")[0] == expected[0]


def test_stopwords_and_stems_apply_to_folded_words() -> None:
    german = LexicalSpec(stemmer="german", stopwords="german")
    assert (
        words_of(["FÜR die Häuser", unicodedata.normalize("NFD", "für die Häuser")], german, "query") == [["haus"]] * 2
    )
    assert folded("ＦÜＲ") == "für"


def test_a_pattern_finds_words_in_the_folded_text() -> None:
    assert words_of(["oﬃce-hours, Ｎo 7"], LexicalSpec(pattern=r"[a-z-]+"), "query") == [["office-hours", "no"]]
    assert words_of(["key=value"], LexicalSpec(pattern=r"=(\w+)"), "document") == [["value"]]


@pytest.mark.parametrize(
    ("query", "text", "marked"),
    [
        ("office", "An oﬃce, an OFFICE.", ["oﬃce", "OFFICE"]),
        ("password", "the pass\u200bword it is", ["pass\u200bword"]),
        ("résumé", "My re\u0301sume\u0301!", ["re\u0301sume\u0301"]),
        ("istanbul", "In İstanbul'da", ["İstanbul"]),
        ("東京都", "ここは東京都です", ["東京都"]),
        ("猫", "黒猫", ["猫"]),
        ("ガラス", "窓のｶﾞﾗｽ", ["ｶﾞﾗｽ"]),
        ("kg", "5㎏ salt", ["㎏"]),
        ("request", "parse_http_request(x)", ["request"]),
        ("user name", "id = getUserName()", ["User", "Name"]),
        ("get_user_name", "id = obj.getUserName()", ["getUserName"]),
        ("email", "an E-Mail.", ["E-Mail"]),
        ("c++", "in C++, or C", ["C++", "C"]),
        ("c", "in C++", ["C"]),
        ("net", "on .NET", ["NET"]),
        ("über", "Get\u200bU\u0308berName", ["U\u0308ber"]),
        ("name", "ｇｅｔＮａｍｅ", ["Ｎａｍｅ"]),
        ("schiff", "Donaudampfschiff", []),
        ("5kg", "5㎏ salt", ["5㎏"]),
        ("कला", "कला और कल", ["कला"]),
        ("flag", "🇩🇪 flag 🇩🇪🇫🇷\u0301flag🇩", ["flag", "flag"]),
    ],
)
def test_highlights_are_places_in_the_text_as_it_is(query: str, text: str, marked: list[str]) -> None:
    assert [text[start:end] for start, end in highlighter(query, NOW)(text)] == marked


def test_words_of_a_quarter_of_the_chunks_are_not_highlighted_beside_rarer_ones() -> None:
    shares = {"the": 0.9, "of": 0.26, "river": 0.25, "delta": 0.0}

    def marked(query: str) -> list[str]:
        text = "the delta of the river"
        return [text[start:end] for start, end in highlighter(query, NOW, lambda word: shares[word])(text)]

    assert marked("the river") == ["river"]
    assert marked("the delta of the river") == ["delta", "river"]
    # Of nothing but common words, all are shown.
    assert marked("of the") == ["the", "of", "the"]


@pytest.mark.parametrize(
    "text",
    [
        ENGLISH, "oﬃce ½ ㎏ 東京都 ภาษาไทย கலை re\u0301 İx pass\u200bword ﷺ", "", "!?", "\U0001f600", "__ _ . ..",
        "getÜber\u0308Name C++で .NETの Wi‐Fi_x9 東.京 a.東b é.é#", "I\u0307x.y ß-ẞ Ǆx2 \u0345.a",
    ],
)  # fmt: skip
def test_words_that_are_marked_are_those_of_the_index(text: str) -> None:
    for spec in (NOW, SECOND, FIRST):
        assert [word.text for word in find_words(text, spec)] == words_of([text], spec, "document")[0]


@pytest.mark.parametrize(
    "unit",
    [
        "🇩",
        "🇩🇪\u0301",
        "👩\u200d",
        "a\u0301",
        "क\u094d",
        "\u1100",
        "\u0600",
        "👍🏽",
        "a.",
        "aB",
        "a1_",
        "é-",
        "..A",
        "++",
    ],
)
def test_places_take_time_in_proportion_to_the_text(unit: str) -> None:
    text = unit * 80_000
    before = time.process_time()
    find_words(text + " word", NOW)
    words_of([text + " word"], NOW, "document")
    assert time.process_time() - before < 5


def test_texts_without_words_are_rows_too() -> None:
    assert found("a", "", "!?", "a") == [2]
    assert found("!?", "", "!?", "a") == []
    assert found("a", "", "!?") == []
    assert found("\ud83d half", "\ud83d half", "b") == [0]


def test_without_a_lexical_index_words_match_by_the_usual_rules() -> None:
    class Rules:
        spec = LexicalSpec(stemmer="english")

        def share(self, word: str) -> float:
            return 0.9 if word == "the" else 0.0

    text = "the rivers of the delta"
    for words, marked in ((None, ["the", "the"]), (Rules(), ["rivers"])):
        spans = snapshot_highlighter("the river", words)(text)  # type: ignore[arg-type]
        assert [text[start:end] for start, end in spans] == marked


def test_wholes_count_in_no_length_and_stopwords_nowhere() -> None:
    english = LexicalSpec(stopwords="english")
    assert document_words(["end_of_line", "of_the", "HTTPServer x"], english) == [
        (["endofline", "end", "line"], 2),
        (["ofthe"], 0),
        (["httpserver", "http", "server", "x"], 3),
    ]
    assert document_words(["the_", "end of"], english) == [(["the_"], 0), (["end"], 1)]


def test_a_dot_belongs_to_a_name_only_if_it_is_alone() -> None:
    assert words_of(["..net ...and .NET x..y C#.NET"], NOW, "document")[0] == [
        "net", "and", ".net", "net", "x", "y", "c#", "c", ".net", "net",
    ]  # fmt: skip
