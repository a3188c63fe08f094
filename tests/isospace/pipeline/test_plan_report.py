from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from isospace.errors import ConfigError
from isospace.pipeline import plan_report
from isospace.pipeline.plan_report import PlanReport, plan_only, require_device
from tests.helpers.documents import sentences, write_jsonl
from tests.helpers.inline import embed_inline

NOTHING = PlanReport(
    collection="c",
    base=None,
    space="fit a new one",
    added=0,
    changed=0,
    unchanged=0,
    removed=0,
    stale=0,
    quarantined=0,
    chunks=0,
    distinct_texts=0,
    reused_texts=0,
    texts_to_encode=0,
    shards=0,
    tokens=0,
    truncated_chunks=0,
    truncated_tokens=0,
    seconds=None,
    bytes=0,
    money=None,
)


def test_rows_that_are_zero_are_left_out() -> None:
    assert NOTHING.rows() == [
        ("starts from", "nothing: this is the first snapshot"),
        ("space", "a new one will be fitted"),
        ("to encode", "nothing"),
    ]


def test_estimates_have_units() -> None:
    plan = replace(
        NOTHING, base=3, added=1_200, texts_to_encode=2_000, tokens=90_000, shards=2, bytes=6_200_000, space="ab" * 32
    )
    rows = dict(plan.rows())
    assert rows["starts from"] == "snapshot 3"
    assert rows["space"] == "abababababababab… (unchanged)"
    assert rows["documents added"] == "1,200"
    assert rows["to encode"] == "2,000 texts with 90,000 tokens, in 2 shards"
    assert rows["encoding time"] == "unknown until a first run with this encoder and device"
    assert rows["new vectors"] == "about 6.2 MB"
    timed = dict(replace(plan, seconds=200.0, money=0.5, price=9.0, truncated_chunks=2, truncated_tokens=9).rows())
    assert timed["encoding time"] == "about 3 min 20 s"
    assert timed["cost"] == ("about 0.50, in your currency, at 9 per device hour (runtime.price_per_device_hour)")
    assert timed["truncated"] == "2 chunks, by 9 tokens in all"
    assert dict(replace(plan, seconds=4.21).rows())["encoding time"] == "about 4.2 s"
    assert dict(replace(plan, seconds=7_500.0, bytes=12).rows())["encoding time"] == "about 2 h 5 min"
    assert dict(replace(plan, bytes=12).rows())["new vectors"] == "about 12 bytes"


@pytest.mark.parametrize(
    ("address", "absent", "message"),
    [
        (
            None,
            "ray",
            r"the package ray is not installed \(runtime\.workers\.kind ray needs it\)\. Run: pip install .*\[ray\]",
        ),
        (
            "ray://head:10001",
            "grpc",
            r"the package grpc is not installed \(runtime\.workers\.address = ray://head:10001 needs",
        ),
    ],
)
def test_a_plan_refuses_workers_that_cannot_be_started_from_here(
    configure: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    address: str | None,
    absent: str,
    message: str,
) -> None:
    workers = {"kind": "ray", "count": 2, "address": address}
    config = configure(write_jsonl(tmp_path / "d.jsonl", sentences(3)), runtime={"workers": workers})
    require_device(config)
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == absent else real(name, *rest))
    with pytest.raises(ConfigError, match=message):
        require_device(config)


@pytest.mark.parametrize(
    ("transform", "chunks", "warns"),
    [
        ({}, 3, True),
        ({}, 2, False),
        ({"cells": 2}, 16, False),
        ({"normalization": "none"}, 3, False),
    ],
)
def test_a_new_space_of_a_large_collection_without_cells_is_pointed_out(
    configure: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    transform: dict[str, Any],
    chunks: int,
    warns: bool,
) -> None:
    monkeypatch.setattr(plan_report, "FROM_ROWS", 3)
    path = write_jsonl(tmp_path / "d.jsonl", sentences(chunks))
    config = configure(path, recipe={"transform": transform})
    warnings = [text for text in plan_only(config).warnings() if "cells" in text]
    assert len(warnings) == warns
    if warns:
        assert f"each search scores all {chunks:,} chunks. Set recipe.transform.cells to auto" in warnings[0]
        # Its space is there: a warning for each run would be noise.
        embed_inline(config)
        write_jsonl(path, sentences(chunks + 1))
        assert not [text for text in plan_only(config).warnings() if "cells" in text]
