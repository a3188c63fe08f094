"""Nothing that is measured is trained on."""

from __future__ import annotations

import pytest

from isospace.errors import ConfigError
from isospace.finetuning.decontaminate import near_duplicates, split_examples
from isospace.finetuning.examples import Example
from tests.conftest import sentences

TEXTS = list(sentences(400, words=30).values())


def examples(count: int, *, first: int = 0) -> list[Example]:
    return [Example(f"what is {n}", TEXTS[n], f"d{n}", "titles") for n in range(first, first + count)]


def changed(text: str) -> str:
    """The same text but for one word and the case."""
    words = text.split()
    return " ".join([*words[:3], "replaced", *words[4:]]).upper()


def test_documents_stay_whole_on_one_side() -> None:
    pairs = [*examples(200), *(Example(f"more of {n}", f"{TEXTS[n]} more", f"d{n}", "judged") for n in range(200))]
    split = split_examples(pairs, evaluated={}, queries=[], share=0.3, seed=0)
    sides = [{e.doc_id for e in side} for side in (split.training, split.held_out)]
    assert not sides[0] & sides[1]
    assert 0.2 < len(sides[1]) / 200 < 0.4


def test_what_is_evaluated_is_left_out_with_its_copies_and_its_questions() -> None:
    pairs = examples(200)
    split = split_examples(
        [*pairs, Example("a copy of it", changed(TEXTS[300]), "copy", "titles")],
        evaluated={"d3": TEXTS[3], "d300": TEXTS[300]},
        queries=["What is 5?"],
        share=0.2,
        seed=1,
    )
    kept = [*split.training, *split.held_out]
    assert not {"d3", "copy", "d5"} & {e.doc_id for e in kept}
    found = split.leakage
    assert (found.evaluated_documents, found.evaluated_duplicates, found.evaluated_queries) == (1, 1, 1)


def test_a_copy_of_a_held_out_text_is_not_trained_on() -> None:
    plain = split_examples(examples(200), evaluated={}, queries=[], share=0.2, seed=0)
    own = plain.held_out[0]
    ids = (f"copy{n}" for n in range(1000))
    # An id that falls on the side of training.
    pairs = [Example(f"copy {n}", changed(own.positive), next(ids), "titles") for n in range(12)]
    split = split_examples([*examples(200), *pairs], evaluated={}, queries=[], share=0.2, seed=0)
    assert not any(e.doc_id.startswith("copy") for e in split.training)
    assert split.leakage.held_out_duplicates >= 1
    assert {e.doc_id for e in plain.training} == {e.doc_id for e in split.training}


def test_the_side_of_a_document_does_not_depend_on_the_others() -> None:
    few, many = (split_examples(examples(n), evaluated={}, queries=[], share=0.3, seed=0) for n in (150, 300))
    assert {e.doc_id for e in few.held_out} <= {e.doc_id for e in many.held_out}
    other = split_examples(examples(150), evaluated={}, queries=[], share=0.3, seed=1)
    assert other.held_out != few.held_out


def test_without_held_out_pairs_it_refuses() -> None:
    with pytest.raises(ConfigError, match=r"of 30 pairs \d+ are held out"):
        split_examples(examples(30), evaluated={}, queries=[], share=0.2, seed=0)


def test_repeated_pairs_count_once() -> None:
    split = split_examples([*examples(200), *examples(50)], evaluated={}, queries=[], share=0.2, seed=0)
    assert len(split.training) + len(split.held_out) == 200
    assert split.leakage.repeated == 50


def test_near_duplicates_are_found_and_others_are_not() -> None:
    texts = [TEXTS[0], changed(TEXTS[1]), TEXTS[50], "", "short one"]
    assert near_duplicates(texts, [TEXTS[0], TEXTS[1], "short one", ""]) == {0, 1, 4}
