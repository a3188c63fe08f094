"""Pseudo-queries of a collection are sentences of its prose, or its lines if it has no full stops."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from isospace.errors import ConfigError
from isospace.evaluation.pseudo_query_set import make_set
from isospace.evaluation.query_sets import EvaluationSet
from isospace.search.open_index import open_index
from tests.helpers.documents import WORDS, configuration, write_jsonl
from tests.helpers.inline import embed_inline


def made(model: Path, folder: Path, documents: dict[str, str], **options: object) -> EvaluationSet:
    """Return the set of a collection of these documents, each of which is one chunk."""
    recipe = {"documents": {}, "chunking": {"kind": "none", "allow_truncation": True, "include_title": False}}
    config = configuration(model, write_jsonl(folder / "d.jsonl", documents), folder / "store", recipe=recipe)
    embed_inline(config)
    with open_index(config.runtime.store, "c", encode=False) as index:
        return make_set(index.view, "default", **options)  # type: ignore[arg-type]


def phrase(chance: random.Random) -> str:
    return " ".join(chance.choices(WORDS, k=6))


def markdown(number: int) -> str:
    chance = random.Random(number)
    code, cell, heading, *rest = (phrase(chance) for _ in range(6))
    return (
        f"# heading {heading} {number}.\n\n```\ncode {code} {number}.\n```\n\n| cell {cell} {number}. | x |\n"
        f"| --- | --- |\n\n- **prose** {rest[0]} {number}.\n\n> prose {rest[1]}\n> {number}. prose {rest[2]} {number}."
    )


def test_queries_are_sentences_of_prose_without_marks(tiny_model: Path, tmp_path: Path) -> None:
    documents = {f"d{number:02d}": markdown(number) for number in range(30)}
    first = made(tiny_model, tmp_path, documents)
    assert (first.kind, len(first.queries)) == ("pseudo", 30)
    for name, query in first.queries.items():
        assert query.startswith("prose "), query
        assert ">" not in query
        assert all(part in first.remainders[name] for part in ("heading ", "code ", "cell "))
    with open_index(str(tmp_path / "store"), "c", encode=False) as index:
        assert make_set(index.view, "default").set_id == first.set_id
        assert make_set(index.view, "default", seed=1).set_id != first.set_id


def test_lines_serve_where_no_sentence_ends(tiny_model: Path, tmp_path: Path) -> None:
    chance = random.Random(0)
    documents = {f"d{n:02d}": "\n\n".join(f"{phrase(chance)} {n}" for _ in range(3)) for n in range(30)}
    assert len(made(tiny_model, tmp_path, documents, kind="sentences").queries) == 30


def test_tables_and_code_alone_give_no_queries(tiny_model: Path, tmp_path: Path) -> None:
    chance = random.Random(0)
    documents = {
        f"d{n:02d}": "\n\n".join([f"| {phrase(chance)} {n}. |", f"# {phrase(chance)}.", f"```\n{phrase(chance)}.\n```"])
        for n in range(30)
    }
    with pytest.raises(ConfigError, match=r"only 0 sentences of 30 chunks can serve as queries; expected 20 or more"):
        made(tiny_model, tmp_path, documents, kind="sentences")
