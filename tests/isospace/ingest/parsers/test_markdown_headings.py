from __future__ import annotations

import pytest

from isospace.ingest.parsers import markdown_headings as module
from isospace.ingest.parsers.markdown_headings import markdown_headings


def found(text: str) -> list[tuple[int, str, str]]:
    """Level and text of each heading, and what stands at its place."""
    return [(one.level, one.text, text[one.start :].split("\n")[0]) for one in markdown_headings(text)]


@pytest.mark.parametrize(
    ("text", "headings"),
    [
        ("# One\n\ntext\n\n### Three ###", [(1, "One", "# One"), (3, "Three", "### Three ###")]),
        ("One\nand a half\n===\n\n  Two\n---", [(1, "One and a half", "One"), (2, "Two", "Two")]),
        ("  ## Indented a little", [(2, "Indented a little", "## Indented a little")]),
        ("# The *best* [link](x) `c #` {#an}", [(1, "The best link c #", "# The *best* [link](x) `c #` {#an}")]),
        ("# a > b\n# a > b", [(1, "a > b", "# a > b"), (1, "a > b", "# a > b")]),
        ("#\n\n##", [(1, "", "#"), (2, "", "##")]),
        ("```sh\n# comment\n```\n\n~~~\n# two\n~~~", []),
        ("    # indented code\n\ntext `# no`", []),
        ("> # quoted\n\n- # in a list\n\n1. ## in another", []),
        ("#hashtag\n\n####### seven\n\n\\# escaped", []),
        ("<!-- # old -->\n\n<!--\n<h2>old</h2>\n-->", []),
        ("<pre>\n<h1>no</h1>\n</pre>", []),
        ("<div>\n<h2 id='a'>A &amp; <b>B</b></h2>\n</div>", [(2, "A & B", "<h2 id='a'>A &amp; <b>B</b></h2>")]),
        ("<h1><img src=x alt='The logo'></h1>", [(1, "The logo", "<h1><img src=x alt='The logo'></h1>")]),
        ("a\n\n# \u202eab \U0001f600 e\u0301", [(1, "\u202eab \U0001f600 e\u0301", "# \u202eab \U0001f600 e\u0301")]),
        # A text that kept its front matter, since it could not be parsed, or is all there is.
        ("---\ntitle: [x\n---\n# One", [(1, "One", "# One")]),
        ("---\ntitle: x\n---\n", []),
        ("", []),
    ],
)  # fmt: skip
def test_headings_are_those_that_readers_see(text: str, headings: list[tuple[int, str, str]]) -> None:
    assert found(text) == headings


def test_what_is_behind_the_bound_is_in_no_section(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_OUTLINE_CHARACTERS", 10)
    assert [(one.start, one.text) for one in markdown_headings("# a\n\ntext\n\n# b")] == [(0, "a"), (10, "")]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_as_on_any_system(end: str) -> None:
    text = f"# One{end}{end}a{end}{end}Two{end}={end}b{end}<h3>Three</h3>{end}"
    found = [(heading.text, heading.level) for heading in markdown_headings(text)]
    assert found == [("One", 1), ("Two", 1), ("Three", 3)]
    text = f"a{end}{end}# One{end}{end}<h3>Three</h3>{end}"
    assert [text[heading.start :][:5] for heading in markdown_headings(text)] == ["# One", "<h3>T"]
