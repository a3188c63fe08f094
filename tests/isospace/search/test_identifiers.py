"""Identifiers are words as a whole and by their parts, each with its place."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isospace.search.identifiers import Part, has_parts, identifier_parts, is_plain, query_weight


@pytest.mark.parametrize(
    ("identifier", "words"),
    [
        ("word", ["word"]),
        ("getUserName", ["getUserName", "get", "User", "Name"]),
        ("get_user_name", ["getusername", "get", "user", "name"]),
        ("get__user", ["getuser", "get", "user"]),
        ("HTTPServer", ["HTTPServer", "HTTP", "Server"]),
        ("parseHTTP", ["parseHTTP", "parse", "HTTP"]),
        ("my_HTTPServer", ["myHTTPServer", "my", "HTTPServer", "HTTP", "Server"]),
        ("os.path.join_all", ["ospathjoinall", "os", "path", "joinall", "join", "all"]),
        ("a.b.c", ["abc", "a", "b", "c"]),
        # Single letters that only case or digits set apart are no words.
        ("iPhone", ["iPhone", "Phone"]),
        ("PhD", ["PhD", "Ph"]),
        ("xY", ["xY"]),
        # Plurals of acronyms stay whole.
        ("DNAs", ["DNAs"]),
        ("userIDs", ["userIDs", "user", "IDs"]),
        # One letter and digits are one name.
        ("p53", ["p53"]),
        ("x86_64", ["x86_64", "x86", "64"]),
        ("utf8", ["utf8", "utf", "8"]),
        ("5kg", ["5kg", "5", "kg"]),
        ("base64Encode", ["base64Encode", "base", "64", "Encode"]),
        # A hash has too many numbers to be taken apart.
        ("ab12cd34", ["ab12cd34", "ab", "12", "cd", "34"]),
        ("ab12cd34ef56", ["ab12cd34ef56"]),
        # Between digits, what joins them matters.
        ("3.11", ["3.11", "3", "11"]),
        ("2024-12-01", ["2024-12-01", "2024", "12", "01"]),
        ("1_000", ["1_000", "1", "000"]),
        ("python-3.11", ["python3.11", "python", "3", "11"]),
        ("v1.2", ["v1.2", "v1", "2"]),
        ("GPT-4", ["GPT4", "GPT", "4"]),
        ("3-D", ["3D", "3", "D"]),
        ("AT&T", ["ATT", "AT", "T"]),
        ("e-mail", ["email", "e", "mail"]),
        ("Wi‐Fi", ["WiFi", "Wi", "Fi"]),
        ("U.S.A", ["USA", "U", "S", "A"]),
        # "ie" and "us" are other words.
        ("i.e", ["i", "e"]),
        ("U.S", ["U", "S"]),
        ("i-e", ["ie", "i", "e"]),
        (".NET", [".NET", "NET"]),
        ("ASP.NET", ["ASPNET", "ASP", "NET"]),
        (".bashrc.d", ["bashrcd", ".bashrc", "bashrc", "d"]),
        ("C++", ["C++", "C"]),
        ("C#", ["C#", "C"]),
        ("visual-C++", ["visualC", "visual", "C++", "C"]),
        ("__init__", ["__init__", "init"]),
        ("__init__.py", ["initpy", "__init__", "init", "py"]),
        ("_", []),
        ("_._", []),
        ("a._", ["a"]),
        ("getÜberName", ["getÜberName", "get", "Über", "Name"]),
        ("имяФайла2", ["имяФайла2", "имя", "Файла", "2"]),
        ("e\u0323Bay", ["e\u0323Bay", "e\u0323", "Bay"]),
    ],
)
def test_the_words_of_an_identifier(identifier: str, words: list[str]) -> None:
    assert [part.text for part in identifier_parts(identifier)] == words


def test_places_are_those_of_the_parts() -> None:
    assert identifier_parts("os.path_of") == [
        Part("ospathof", 0, 10), Part("os", 0, 2), Part("pathof", 3, 10), Part("path", 3, 7), Part("of", 8, 10),
    ]  # fmt: skip
    assert identifier_parts("__x__.C++") == [
        Part("xC", 2, 7), Part("__x__", 0, 5), Part("x", 2, 3), Part("C++", 6, 9), Part("C", 6, 7),
    ]  # fmt: skip
    assert identifier_parts("aFileName") == [Part("aFileName", 0, 9), Part("File", 1, 5), Part("Name", 5, 9)]


@settings(deadline=None)
@given(st.lists(st.sampled_from([*"aZé9_.&-‐", "get", "User", "HTTP", "42", "\u0301"]), max_size=12).map("".join))
def test_parts_stand_where_they_say_and_a_word_is_never_empty(text: str) -> None:
    parts = identifier_parts(text)
    assert len({(part.start, part.end, part.text) for part in parts}) == len(parts)
    letters = str.maketrans("", "", "_.&-‐")
    for part, is_whole in zip(parts, has_parts(parts), strict=True):
        assert part.text
        assert part.text.translate(letters) == text[part.start : part.end].translate(letters)
        within = [one for one in parts if one != part and part.start <= one.start and one.end <= part.end]
        assert not is_whole or within


def test_wholes_have_parts_within_them() -> None:
    parts = identifier_parts("os.path_of.C++")
    wholes = [part.text for part, is_whole in zip(parts, has_parts(parts), strict=True) if is_whole]
    assert wholes == ["ospathofC", "pathof", "C++"]
    assert has_parts([]) == []


@pytest.mark.parametrize(
    ("identifier", "weights"),
    [
        ("wing-body", [0.25, 1, 1]),
        ("Wi‐Fi", [0.25, 1, 1]),
        ("GPT-4", [1, 1, 1]),
        ("get_user", [1, 1, 1]),
        ("node.js", [1, 1, 1]),
        ("R&D", [1, 1, 1]),
        ("a-b.c", [1, 1, 1, 1]),
        ("getName-of", [0.25, 1, 1, 1, 1]),
        ("word", [1]),
    ],
)
def test_hyphenated_words_count_a_quarter_in_a_query(identifier: str, weights: list[float]) -> None:
    assert [query_weight(identifier, part) for part in identifier_parts(identifier)] == weights


def test_plain_words_are_those_without_parts() -> None:
    for word in ("word", "Word", "WORD", "Über", "東京"):
        assert is_plain(word) == (word != "東京")
        assert [part.text for part in identifier_parts(word)] == [word]
    assert not any(map(is_plain, ("", "WiFi", "a1", "a_b", "C++", "x.y")))
