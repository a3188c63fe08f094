"""Sentences of prose are told from headings, tables, code, and marks; pseudo-queries of a set are made of them."""

from __future__ import annotations

import time
from functools import partial

import pytest

from isospace.ingest.prose import prose_sentences
from isospace.ingest.pseudo_queries import Passage, choose_pseudo_kind, make_pseudo_queries
from isospace.storage.hashing import sha256

MARKDOWN = """# A heading that ends like a sentence.

The first paragraph has `code`, a [link](https://example.org/a), and **bold words
over two lines**. Its second sentence follows.

| name of a column | its meaning |
| --- | --- |
| a cell of the table. | It has a sentence of its own. |

- [ ] A task of the list is a sentence.
- an item without an end
  that goes on. And this one ends!
10) The tenth item is numbered in this way.

> A quotation goes on
> over two lines. It says no more.

    code is indented by four spaces here
    and goes on without an end

    A paragraph of a list may be indented just as far.

A Title Above a Rule.
---------------------

```python
print("A program may contain a sentence.")
```

<div>A tag begins a line of HTML.</div>

[name]: https://example.org is the address of a link.
!!! note "An admonition has a title of its own."
.. note:: A directive is written like this here.
$ command to be typed into a console.
>>> session of an interpreter that prints.
1998 23.4 45.1 12.9 33.0.
one cell\tanother cell of the row of a page.

A label without an end
"""


def found(text: str, *, ended: bool = True) -> list[str]:
    return [sentence.text for sentence in prose_sentences(text, ended=ended)]


def test_only_prose_is_left_of_markdown_without_its_marks() -> None:
    assert found(MARKDOWN) == [
        "The first paragraph has code, a link, and bold words over two lines.",
        "Its second sentence follows.",
        "A task of the list is a sentence.",
        "an item without an end that goes on.",
        "And this one ends!",
        "The tenth item is numbered in this way.",
        "A quotation goes on over two lines.",
        "It says no more.",
        "A paragraph of a list may be indented just as far.",
    ]
    # Indented code does not end as sentences do either way.
    assert found(MARKDOWN, ended=False) == [*found(MARKDOWN), "A label without an end"]


def test_the_place_of_a_sentence_is_where_it_stands_with_its_marks() -> None:
    places = {s.text: MARKDOWN[s.start : s.end] for s in prose_sentences(MARKDOWN, ended=True)}
    assert places["A quotation goes on over two lines."] == "A quotation goes on\n> over two lines."
    assert places["A task of the list is a sentence."] == "A task of the list is a sentence."
    assert places["And this one ends!"] == "And this one ends!"
    first = "The first paragraph has code, a link, and bold words over two lines."
    assert (
        places[first] == "The first paragraph has `code`, a [link](https://example.org/a), and **bold words\n"
        "over two lines**."
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # The fence was opened before the chunk began: the next one with a language says so.
        ("It is code.\n```\nThis is prose.\n```sh\nMore code.\n```\nMore prose.", ["This is prose.", "More prose."]),
        ("This is prose.\n```\nIt is code.", ["This is prose."]),
        ("````\n```sh\nIt is code.\n```\nStill code.\n````\nThis is prose.", ["This is prose."]),
        ("~~~\n```\nIt is code.\n~~~\nThis is prose.", ["This is prose."]),
        ("- ```sh\n  It is code.\n  ```\n- This is prose.", ["This is prose."]),
        ("> ```\n> It is code.\n> ```\n> This is prose.", ["This is prose."]),
        ("This is prose.\n```md\n```sh\nIt is code.\n```\nMore prose.", ["This is prose.", "More prose."]),
        ("=====\nA title.\n=====\nThis is prose.", ["This is prose."]),
        ("Two lines are\nno title.\n---\nThis is prose.", ["Two lines are no title.", "This is prose."]),
        ("- an item that does not end\n- This is prose.", ["This is prose."]),
        ("one cell | another cell of a row.", []),
        ("![A logo](logo.png) This is prose.", ["This is prose."]),
        (f"A sentence of {'many ' * 250}words. This is prose.", ["This is prose."]),
        ("一つの文です。もう一つの文です。", ["一つの文です。", "もう一つの文です。"]),
        ("यह एक वाक्य है। ", ["यह एक वाक्य है।"]),
        ('He said "it ends."', ['He said "it ends."']),
        ("", []),
        ("\n\n \n", []),
    ],
)
def test_where_code_and_titles_begin_and_end(text: str, expected: list[str]) -> None:
    assert found(text) == expected


@pytest.mark.parametrize(
    "unit", ["`", "**a", "**a ", "[", "> ", "- ", " | ", "```\n", "a.\n", "(", "!)", "\t", "[a](", "1. "]
)
def test_hostile_texts_take_no_longer_than_their_length(unit: str) -> None:
    started = time.monotonic()
    prose_sentences(unit * (300_000 // len(unit)), ended=True)
    assert time.monotonic() - started < 5.0


PASSAGES = [Passage(f"d{n}", "", "", f"# The heading number {n} here\n\n{MARKDOWN}") for n in range(30)]


def test_queries_of_prose_are_sentences_and_the_rest_of_the_text_answers_them() -> None:
    find = partial(prose_sentences, ended=True)
    made = make_pseudo_queries(PASSAGES, "sentences", size=30, seed=0, find=find)
    assert {query.text for query in made} <= set(found(MARKDOWN))
    # Sentences of less than four words are no queries, and each is a query once.
    assert len(made) == len([text for text in found(MARKDOWN) if len(text.split()) > 3])
    for query in made:
        assert query.text not in query.remainder
        assert "| a cell of the table. |" in query.remainder
    assert made == make_pseudo_queries(PASSAGES, "sentences", size=30, seed=0, find=find)
    assert choose_pseudo_kind(PASSAGES, "auto", find) == "sentences"
    others = make_pseudo_queries(PASSAGES, "sentences", size=30, seed=0, find=find, exclude={made[0].text})
    assert {query.text for query in others} == {query.text for query in made[1:]}
    # One document gives each of its sentences, one after the other.
    taken: set[str] = set()
    while query := make_pseudo_queries(PASSAGES[:1], "sentences", size=1, seed=0, find=find, exclude=taken):
        taken.add(query[0].text)
    assert taken == {query.text for query in made}
    # What is left of two sentences says too little.
    short = [Passage("d", "", "", "The first sentence is here. A second sentence follows it.")]
    assert make_pseudo_queries(short, "sentences", size=9, seed=0, find=find) == []
    tables = [Passage(f"d{n}", "A title of some words", "", "| a b c d. |\n\n| e. |\n\n| f. |") for n in range(9)]
    assert choose_pseudo_kind(tables, "auto", find) == "titles"
    assert make_pseudo_queries(tables, "sentences", size=9, seed=0, find=find) == []


def test_without_it_pieces_are_drawn_as_ever_since_they_decide_fits_and_encoders() -> None:
    drawn = make_pseudo_queries(PASSAGES, "sentences", size=6, seed=0)
    assert [(query.passage, query.text) for query in drawn] == [
        (3, "It says no more."),
        (10, "A paragraph of a list may be indented just as far."),
        (18, "> A quotation goes on > over two lines."),
        (17, 'note "An admonition has a title of its own.'),
        (5, "note:: A directive is written like this here."),
        (0, "- [ ] A task of the list is a sentence."),
    ]
    assert sha256(drawn[-1].remainder.encode()).startswith("6023f029866ea9ee")
