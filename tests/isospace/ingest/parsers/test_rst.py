"""The title of reStructuredText is that of its first section, and nothing that only looks like one."""

from __future__ import annotations

import pytest

from isospace.ingest.parsers.rst import rst_title


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
