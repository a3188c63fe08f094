"""The title of a Markdown file is what a reader sees, and its front matter is its metadata."""

from __future__ import annotations

import time

import pytest

from isospace.ingest.document import Document
from isospace.ingest.parsers.front_matter import read_front_matter
from isospace.ingest.parsers.markdown import heading_title, parse_markdown


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("Tide tables\n===========\n\n## January", "Tide tables"),
        ("~~~python\n# a comment\n~~~\n\nprose\n\n# Tide tables", "Tide tables"),
        ("1. ```sh\n   # indented fence\n   ```\n\n# Tide tables", "Tide tables"),
        ("    # code by indentation\n\n# Tide tables", "Tide tables"),
        ("<script>\n# not markup\n</script>\n\n# Tide tables", "Tide tables"),
        ("> # A quoted page\n\n# Tide tables", "Tide tables"),
        ("- # A heading in a list\n\n# Tide tables", "Tide tables"),
        ("##### Moved to another address\n\n# Tide tables\n\n## January", "Tide tables"),
        ("# Setup\n\n# Usage", "Setup"),
        (
            "# *Tide* `tables` of [Kiel](https://kiel.example) ![harbor](k.png) {#tides .wide}",
            "Tide tables of Kiel harbor",
        ),
        ("# Tide tables ##\n", "Tide tables"),
        ("# a \\# b &amp; c", "a # b & c"),
        (
            '<p align="center">\n<h1><img src="k.png" alt="logo">Tide <i>tables</i></h1>\n</p>\n\n## January',
            "Tide tables",
        ),
        ("<h1 align=center>\n\nTide *tables*\n\n</h1>\n\n## January", "Tide tables"),
        ('<h1><img src="k.png" alt="Tide tables"></h1>\n\n## January', "Tide tables"),
        ("## Tide tables\n\nprose\n\n### January\n\n### February", "Tide tables"),
        ("## Tides\n\nprose\n\n### January\n\n### February\n\n## Summary", "Tides"),
        ('<!-- Old headings. -->\n\n<a id="tides"></a>\n\n## Tides\n\n### January', "Tides"),
        ("![a badge](b.svg)\n\n## January", ""),
        # Sections are no titles.
        ("## 1.2.0\n\n### Added\n\n## 1.1.0\n\n### Added\n\n## 1.0.0", ""),
        ("prose\n\n## January", ""),
        ("## January\n\nprose\n\n## February", ""),
        ("## A\n\n## B\n\n# C\n\n# D", ""),
        ("#no-heading, but a tag", ""),
        ("", ""),
    ],
)
def test_the_title_is_the_heading_that_readers_see(text: str, title: str) -> None:
    assert heading_title(text) == title
    assert parse_markdown(text).text == text


@pytest.mark.parametrize(
    ("front", "title"),
    [
        ("title: 'It''s high tide'", "It's high tide"),
        ('title: "Tides \\u2014 a table"', "Tides — a table"),
        ("title: >-\n  Tides of\n  the Baltic", "Tides of the Baltic"),
        ("title: |\n  Tides\n  of the Baltic", "Tides of the Baltic"),
        ("seo:\n  title: Buy tide tables!\ntitle: Tides", "Tides"),
        ("title: No", "No"),
        ("title: 1984", "1984"),
        ("title: 1.10", "1.10"),
        ("title: 2024-01-05", "2024-01-05"),
        ("title: Tides # a comment", "Tides"),
        ("# do not edit\nlayout: page", "Heading"),
        ("title:\n  en: Tides", "Heading"),
        ("title:", "Heading"),
        ("title: ''", "Heading"),
        ("seo:\n  title: Buy tide tables!", "Heading"),
    ],
)
def test_the_title_of_front_matter_is_as_it_is_written(front: str, title: str) -> None:
    for end in ("---", "..."):
        parsed = parse_markdown(f"---\n{front}\n{end}\n# Heading\n\nprose")
        assert " ".join(parsed.title.split()) == title
        assert parsed.text == "# Heading\n\nprose"
        assert not parsed.notes


def test_front_matter_is_metadata_with_the_types_of_yaml_1_2() -> None:
    front = (
        "lang: no\nopens: 8:30\nzip: 01234\nweight: 10\nratio: .5\ndraft: false\ntags: [a, b]\nnone: ~\non: 2024-01-05"
    )
    assert parse_markdown(f"---\n{front}\nformat: x\nsecret: !vault abc\n---\nprose").metadata == {
        "lang": "no",
        "opens": "8:30",
        "zip": "01234",
        "weight": 10,
        "ratio": 0.5,
        "draft": False,
        "tags": ["a", "b"],
        "none": None,
        "on": "2024-01-05",
        "secret": "abc",
        "format": "markdown",
    }


def test_front_matter_may_be_toml_or_json() -> None:
    toml = parse_markdown("+++\ntitle = 'Tides'\ndate = 2024-01-05\n[author]\nname = 'A'\n+++\n\nprose")
    assert (toml.title, toml.text) == ("Tides", "\nprose")
    assert toml.metadata == {"title": "Tides", "date": "2024-01-05", "author": {"name": "A"}, "format": "markdown"}
    json = parse_markdown('{\n  "title": "Tides", "weight": 3\n}\n\nprose')
    assert (json.title, json.text.strip(), json.metadata["weight"]) == ("Tides", "prose", 3)


@pytest.mark.parametrize(
    "text",
    [
        "---\n\nprose between rules\n\n---\n\nmore",
        "---\nprose\n",
        "{% raw %}\nprose",
        "{}",
        '{"only": "JSON"}',
        "+++\nx",
    ],
)
def test_what_only_looks_like_front_matter_is_text(text: str) -> None:
    parsed = parse_markdown(text)
    assert parsed.text == text
    assert parsed.metadata == {"format": "markdown"}
    assert not parsed.notes


@pytest.mark.parametrize(
    ("front", "why"),
    [
        ("title: {{ page.title }}\n: :", "is not YAML"),
        (
            "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
            + "".join(
                f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
            ),
            "more than 10,000 values",
        ),
        ("a: &a [*a]", "nests more than 32 deep"),
        ("a: " + "[" * 3_000, "is not YAML"),
        ("d: !!bool maybe", "does not fit its tag"),
        ("d: !!timestamp soon", "does not fit its tag"),
        ("d: !!int ''", "is not YAML"),
        ("d: !!timestamp 2024-13-45", "is not YAML"),
        ("d: !!float x", "is not YAML"),
        ("d: !!binary é", "is not YAML"),
        ("a: b\n" * 20_000, "has 100,009 characters; expected at most 60,000"),
    ],
)
def test_front_matter_that_cannot_be_read_stays_in_the_text_and_is_said(front: str, why: str) -> None:
    text = f"---\n{front}\n---\n# Tides\n\nprose"
    parsed = parse_markdown(text)
    assert (parsed.title, parsed.text) == ("Tides", text)
    (note,) = parsed.notes
    assert note.warns
    assert why in note.detail


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("+++\n" + ".".join("a" * 29_000) + " = 1\n+++\nprose", "nests more than 32 deep"),
        ("+++\nb = {'a'" + ".a" * 29_000 + " = 1}\n+++\nprose", "nests more than 32 deep"),
        ("+++\n[" + ".".join("a" * 29_000) + "]\n+++\nprose", "nests more than 32 deep"),
        ("+++\nn = " + "7" * 5_000 + "\n+++\nprose", "is not TOML"),
        ("+++\n" + "".join(f"a{n} = 1\n" for n in range(9_000)) + "+++\nprose", "expected at most 60,000"),
        ('{"a": "' + "b" * 70_000 + '"}\nprose', "expected at most 60,000"),
        ('{"a": ' + "[" * 40 + "]" * 40 + "}\nprose", "nests more than 32 deep"),
    ],
)
def test_front_matter_in_toml_or_json_that_cannot_be_read_is_said(text: str, why: str) -> None:
    begun = time.process_time()
    parsed = parse_markdown(text)
    assert parsed.text == text
    (note,) = parsed.notes
    assert why in note.detail
    assert time.process_time() - begun < 1.0


def test_a_long_text_between_rules_is_not_front_matter() -> None:
    for text in (
        "---\n" + "prose, of course: many words\n" * 4_000 + "---\nmore",
        "---\nkey: value\n" + "prose\n" * 20_000,
    ):
        assert not parse_markdown(text).notes


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("---\nn: 0x" + "f" * 5_000 + "\n---\nprose", "0x" + "f" * 5_000),
        ("---\nn: 0o" + "7" * 9_000 + "\n---\nprose", "0o" + "7" * 9_000),
        ("---\nn: " + "9" * 5_000 + "\n---\nprose", "9" * 5_000),
        ("+++\nn = 0x" + "f" * 5_000 + "\n+++\nprose", "0x" + "f" * 5_000),
        ('{"n": ' + "9" * 5_000 + "}\nprose", "9" * 5_000),
        ("---\nn: 0xff\n---\nprose", 255),
        ("+++\nn = 0o17\n+++\nprose", 15),
    ],
)
def test_a_number_of_too_many_digits_is_text(text: str, value: object) -> None:
    parsed = parse_markdown(text)
    assert parsed.metadata["n"] == value
    assert Document("d", "d", "", "prose", parsed.metadata).metadata_json


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("\\ud83c\\udf89", "🎉"),
        ("a \\uD83D\\uDE00 b", "a 😀 b"),
        ("\\ud83c", "\ud83c"),
        ("\\udf89\\ud83c", "\udf89\ud83c"),
    ],
)
def test_pairs_of_surrogates_are_one_character(written: str, read: str) -> None:
    parsed = parse_markdown(f'---\ntitle: "{written}"\n"k{written}": ["{written}"]\n---\nprose')
    assert parsed.title == read
    assert parsed.metadata[f"k{read}"] == [read]


def test_front_matter_alone_is_text_unless_it_has_a_title() -> None:
    assert parse_markdown("---\ndescription: all there is\n---\n").text == "---\ndescription: all there is\n---\n"
    assert parse_markdown("---\ntitle: Tides\n---\n").text == ""


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (
            "![map](data:image/png;base64," + "iVBOR/+" * 3_000 + "==) and prose",
            "![map](data:image/png;base64) and prose",
        ),
        (
            "[1]: data:image/jpeg;base64," + ("A" * 76 + "\n") * 50 + "AAA=\n\nprose",
            "[1]: data:image/jpeg;base64\n\nprose",
        ),
        ('<img alt="x" src="data:image/svg+xml,%3Csvg' + "%20" * 90 + '">', '<img alt="x" src="data:image/svg+xml">'),
        (
            "url(data:font/woff2;charset=utf-8;base64," + "d09" * 90 + ") end",
            "url(data:font/woff2;charset=utf-8;base64) end",
        ),
        ("a data:;base64," + "Zm9v" * 40 + " word", "a data:;base64 word"),
        # The next line is text, however much it looks like base64.
        (f"data:image/png;base64,{'Zm9v' * 40}\n{'word' * 11}\n", f"data:image/png;base64\n{'word' * 11}\n"),
        (
            f"data:image/png;base64,{'Zm9v' * 19}\nhttps_example_" + "x" * 80,
            "data:image/png;base64\nhttps_example_" + "x" * 80,
        ),
        (f"(data:image/png;base64,{'Zm9v' * 40})\nword)", "(data:image/png;base64)\nword)"),
        (f"data:image/png;base64,{'Zm9v' * 40}\nword) and", "data:image/png;base64\nword) and"),
        (f"data:image/png;base64,{'Zm9v' * 39}Zm8=\n{'Zm9v' * 40}", f"data:image/png;base64\n{'Zm9v' * 40}"),
        (
            f"data:image/png;base64,{'Zm9v' * 19}\n{'Zm9v' * 19}\n\n{'Zm9v' * 19}",
            f"data:image/png;base64\n\n{'Zm9v' * 19}",
        ),
        (f"data:image/png;base64,{'Zm9v' * 40}\nkey=\n", "data:image/png;base64\nkey=\n"),
        # It begins on the next line, or shares its first with what precedes it, or is indented.
        ("data:image/png;base64,\n" + ("A" * 64 + "\n") * 9 + "AAA=\nprose", "data:image/png;base64\nprose"),
        (
            'src="data:image/png;base64,\n    ' + ("A" * 76 + "\n    ") * 9 + 'AAAA"> prose',
            'src="data:image/png;base64"> prose',
        ),
        ("x data:image/png;base64," + "A" * 52 + ("\n" + "A" * 76) * 9 + "\nprose", "x data:image/png;base64\nprose"),
        (
            "data:image/png;base64," + "A" * 54 + ("\n" + "A" * 76) * 9 + "\nAAAA==\nprose",
            "data:image/png;base64\nprose",
        ),
    ],
)
def test_the_data_of_data_uris_are_not_text(text: str, kept: str) -> None:
    parsed = parse_markdown(text)
    assert parsed.text == kept
    (note,) = parsed.notes
    assert "has 1 data: URIs" in note.detail


@pytest.mark.parametrize(
    "text",
    [
        "The data: " + "several words of prose " * 9,
        "`data:text/plain;base64,SGVsbG8=` is short, and many words follow it in this line, all of them prose",
        "data:image/png;base64,\nand prose in the next line",
        "metadata:image/png of a long_identifier_" + "x" * 200,
    ],
)
def test_text_about_data_stays(text: str) -> None:
    assert parse_markdown(text).text == text


@pytest.mark.parametrize(
    "text",
    [
        "---\na: [" + "a: [" * 10_000 + "\n---\n",
        "> " * 100_000,
        "# " + "[" * 3_900,
        "# " + "*a " * 30_000,
        "<h1>" * 50_000,
        "<!--" * 20_000,
        "<" * 50_000,
        "data:image/png;base64," * 20_000,
        ("data:a/b;base64," + "A" * 59 + " ") * 5_000,
        "data:image/png;" + "a=b;" * 50_000,
        ("data:image/png;base64,\n" + "A" * 40 + "\n") * 9_000,
        "data:image/png;base64," + ("A" * 64 + "\n") * 9_000,
        "\n".join(f"[a{n}]: x" for n in range(20_000)),
    ],
)
def test_hostile_text_takes_no_time(text: str) -> None:
    begun = time.process_time()
    parse_markdown(text)
    assert time.process_time() - begun < 2.0


def test_long_front_matter_is_not_parsed() -> None:
    assert not read_front_matter("---\n" + "a: b\n" * 20_000 + "---\nprose").values
