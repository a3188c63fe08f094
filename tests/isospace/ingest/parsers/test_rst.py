"""The title of reStructuredText is that of its first section, and nothing that only looks like one."""

from __future__ import annotations

import pytest

from isospace.ingest.parsers.rst import rst_headings, rst_title


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("Title\n=====\n", "Title"),
        ("Hi\n==", "Hi"),
        ("C\n=", "C"),
        ("A long title\n....", "A long title"),
        ("A title\n:::::::", "A title"),
        ("A title\n;;;;;;;;;", "A title"),
        ("=========\n  A title\n=========\n", "A title"),
        ("===\nlong\n====\n", "long"),
        (".. _anchor:\nTitle\n-----", "Title"),
        ("1. Intro\n========", "1. Intro"),
        ("港口\n====", "港口"),
        ("cafe\u0301\n^^^^", "cafe\u0301"),
        (".. image:: a.png\n   :alt: b\n\nTitle\n#####", "Title"),
        ("Too short\n==\n\nTitle\n=====", "Title"),
        ("Example::\n\n   code\n   ====\n\nTitle\n=====", "Title"),
        ("Example::\n\n   code\n====\n\nTitle\n=====", "Title"),
        ("Example::\n\n\tcode\n\t====\n\nTitle\n=====", "Title"),
        ("A paragraph\nof two lines\n------------\n\nTitle\n=====", "Title"),
        ("- item\n------\n\nTitle\n=====", "Title"),
        ("港口\n==\n", ""),
        ("prose\n\n----\n\nmore", ""),
        ("text\n..\n", ""),
        ("text\n::\n\n  code", ""),
        ("....\n====", ""),
        ("=====  =====\nA      B\n=====  =====\n", ""),
        ("", ""),
    ],
)
def test_the_title_is_that_of_the_first_section(text: str, title: str) -> None:
    assert rst_title(text.split("\n")) == title


def test_the_level_of_a_section_is_that_of_its_style() -> None:
    text = "===\nTop\n===\n\nOne\n---\n\ncode::\n\n    no\n    ---\n\n日本\n~~~~\n\nTwo\n---\n\nLow\n===\n"
    found = [(one.level, one.text, text[one.start :].split("\n")[0]) for one in rst_headings(text)]
    # A rule above the title makes it another style than a rule below it alone.
    assert found == [(1, "Top", "==="), (2, "One", "One"), (3, "日本", "日本"), (2, "Two", "Two"), (4, "Low", "Low")]
    assert rst_headings("") == ()
