"""Words of the lexical index: equal for equal words, whatever their form, and found where a text has them."""

from __future__ import annotations

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
from isospace.search.words import find_words, folded, words_of

NOW, FIRST = LexicalSpec(), LexicalSpec(tokenizer=1)
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
    for query, text in ((plain, other), (other, plain), (plain, plain)):
        assert words_of([query], NOW, "query") == words_of([text], NOW, "query")
        assert found(query, text, "nothing of it") == [0]


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
        "snake_case is2 ok",
    ],
)
def test_a_word_keeps_its_marks(words: str) -> None:
    assert words_of([words], NOW, "query")[0] == [unicodedata.normalize("NFKC", word) for word in words.split()]


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
        # Each whole compound is a word.
        ("Donaudampfschiff", ("Ein Donaudampfschiff fährt vorbei", "Ein Dampfschiff auf der Donau"), {}),
        ("max_part_size", ("set max_part_size to 8", "the max size of a part"), {}),
        ("os.path.join", ("call os.path.join(a, b)", "join the path", "os"), {}),
    ],
)
def test_every_language_finds_its_text_first(query: str, texts: tuple[str, ...], spec: dict[str, str]) -> None:
    last_first = texts[::-1]
    assert last_first[found(query, *last_first, spec=LexicalSpec(**spec))[0]] == texts[0]


@pytest.mark.parametrize(
    ("query", "text"),
    [
        # Compounds and identifiers are not taken apart, except at dots: a vector search finds these.
        ("Dampfschiff", "Ein Donaudampfschiff"),
        ("part", "max_part_size"),
        ("part", "maxPartSize"),
        ("max part size", "maxPartSize"),
    ],
)
def test_parts_of_compounds_and_identifiers_are_not_found(query: str, text: str) -> None:
    assert found(query, text) == []
    assert found("join", "os.path.join") == [0]


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
        # English texts keep the words that they had.
        assert words_of([ENGLISH], LexicalSpec(**spec), "document")[0] == expected[0]


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
        ("kg", "5㎏ salt", []),
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
    "text", [ENGLISH, "oﬃce ½ ㎏ 東京都 ภาษาไทย கலை re\u0301 İx pass\u200bword ﷺ", "", "!?", "\U0001f600"]
)
def test_words_that_are_marked_are_those_of_the_index(text: str) -> None:
    for spec in (NOW, FIRST):
        assert [word.text for word in find_words(text, spec)] == words_of([text], spec, "document")[0]


@pytest.mark.parametrize("unit", ["🇩", "🇩🇪\u0301", "👩\u200d", "a\u0301", "क\u094d", "\u1100", "\u0600", "👍🏽"])
def test_places_take_time_in_proportion_to_the_text(unit: str) -> None:
    text = unit * 80_000
    before = time.process_time()
    find_words(text + " word", NOW)
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
