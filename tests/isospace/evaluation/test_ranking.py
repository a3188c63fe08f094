"""Rankings of the plain model."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from isospace.evaluation import ranking


def test_a_chunk_without_a_direction_ranks_last_and_is_not_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 2.0]], np.float32)
    monkeypatch.setattr(ranking, "live_hashes", lambda *_: [b"a", b"b", b"c"])
    monkeypatch.setattr(ranking, "find_files", lambda *_: [])
    monkeypatch.setattr(ranking, "gather", lambda *_: raw)
    record = SimpleNamespace(encoder_id="e", input_dimension=2)
    chunks = {"doc_id": SimpleNamespace(to_pylist=lambda: ["zero", "slanted", "upright"])}
    index: Any = SimpleNamespace(
        manifest=None, space=SimpleNamespace(space=SimpleNamespace(record=record)), chunks=chunks
    )
    vectors = ranking.plain_vectors(None, index)  # type: ignore[arg-type]
    run = ranking.rank_documents(index, ["q"], np.array([[0.0, 1.0]], np.float32), vectors=vectors)
    assert run["q"] == pytest.approx({"upright": 1.0, "slanted": 0.8, "zero": 0.0})
    assert list(run["q"]) == ["upright", "slanted", "zero"]
