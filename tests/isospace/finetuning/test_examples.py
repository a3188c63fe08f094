"""What can be trained on, and what is refused before it does harm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from isospace.errors import ConfigError
from isospace.finetuning.config import FineTuneSpec, LossSpec, NegativesSpec
from isospace.finetuning.examples import PairRow, examples_digest, read_examples

PAIR = {"anchor": "DataForce quarterly report", "positive": "DataForce Q3 earnings"}
SPEC: dict[str, Any] = {"name": "n", "pairs": [{"kind": "titles"}], "evaluation": "judged"}


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def test_a_labelled_negative_is_no_pair() -> None:
    with pytest.raises(ValidationError, match=r"label = 0\.1 .*expected 1 or no label"):
        PairRow(anchor="DataForce analysis", positive="Data Force military", label=0.1)


@pytest.mark.parametrize("label", [0, 0.1, 0.9, -1])
def test_a_file_with_a_labelled_negative_names_the_row(tmp_path: Path, label: float) -> None:
    path = written(
        tmp_path / "p.jsonl", [{**PAIR, "label": 1}, {**PAIR, "positive": "Data Force military", "label": label}]
    )
    with pytest.raises(ConfigError, match=r"p\.jsonl, row 2: label = .*column negative"):
        read_examples(path)


@pytest.mark.parametrize("column", ["score", "similarity"])
def test_graded_pairs_are_refused(tmp_path: Path, column: str) -> None:
    path = written(tmp_path / "p.jsonl", [{**PAIR, column: 0.9}])
    with pytest.raises(ConfigError, match=f"column {column}: graded pairs"):
        read_examples(path)


def test_rows_become_examples(tmp_path: Path) -> None:
    rows = [
        {**PAIR, "label": 1, "negative": "Data Force military", "doc_id": 7},
        {"anchor": "another", "positive": "DataForce Q3 earnings"},
    ]
    first, second = read_examples(written(tmp_path / "p.jsonl", rows))
    assert (first.anchor, first.negatives, first.doc_id, first.origin) == (
        PAIR["anchor"],
        ("Data Force military",),
        "7",
        "file",
    )
    assert second.doc_id.startswith("positive-")
    assert examples_digest([first, second]) != examples_digest([second, first])


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"anchor": "same", "positive": " same "}, "anchor and positive are the same text"),
        ({**PAIR, "negative": PAIR["positive"]}, "negative and positive of"),
        ({"anchor": "", "positive": "x"}, "anchor: "),
    ],
)
def test_rows_that_teach_nothing_are_named(tmp_path: Path, row: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=f"row 1: {reason}"):
        read_examples(written(tmp_path / "p.jsonl", [row]))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"training": {"epochs": 4}}, "less than or equal to 3"),
        ({"training": {"held_out_share": 0}}, "greater than 0"),
        ({"training": {"rate": 0.1}}, r"less than or equal to 0\.001"),
        ({"loss": {"kind": "triplet"}, "negatives": {"count": 0}}, "negatives.count=0: needs 1 or more"),
        ({"loss": {"kind": "margin_mse"}}, "the cross-encoder that is its teacher"),
        ({"pairs": []}, "at least 1 item"),
        ({"evaluation": None}, "valid string"),
    ],
)
def test_bad_practice_is_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        FineTuneSpec.model_validate({**SPEC, **change})


def test_losses_take_what_belongs_to_them() -> None:
    with pytest.raises(ValidationError, match=r"loss\.cached with loss\.kind=triplet"):
        LossSpec(kind="triplet", cached=8)
    with pytest.raises(ValidationError, match="margins hold for full vectors"):
        LossSpec(kind="margin_mse", matryoshka=(8,))
    with pytest.raises(ValidationError, match="1 <= first <= last"):
        NegativesSpec(ranks=(9, 3))
