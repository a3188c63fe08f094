"""Figures of audits are stored by field; records whose keys were English phrases are read all the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from isospace.operations.audit.audit import AuditRecord, read_audits, write_audit
from isospace.operations.audit.figures import CorpusFigures, Figures
from isospace.storage import paths as layout
from isospace.storage.store import Store, open_store

# Written before figures had fields: an audit of a snapshot with alarms, and one of a snapshot that could not be opened.
RECORDS = Path(__file__).parent / "records"
PHRASE_KEYS, UNOPENED = RECORDS / "phrase_keys.json", RECORDS / "unopened.json"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    opened = open_store(tmp_path)
    for number, path in ((2, PHRASE_KEYS), (3, UNOPENED)):
        opened.write(layout.numbered(layout.CollectionPaths("c").folder("audits"), number), path.read_bytes())
    return opened


def leaves(value: Any) -> Iterator[Any]:
    """Yield every number and text, in an order that does not depend on keys."""
    if isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from leaves(one)
    else:
        yield value


def test_a_record_with_phrases_for_keys_is_read_by_field(store: Store) -> None:
    record, unopened = read_audits(store, "c")
    old = json.loads(PHRASE_KEYS.read_bytes())["figures"]
    figures = record.figures
    assert figures is not None
    assert figures.isotropy.raw_at_fit.mean_cosine == old["isotropy"]["raw, at the fit"]["mean_cosine"]
    assert figures.random_pair_cosines[95] == old["cosines of random pairs"]["95"]
    assert figures.corpus.copies_at_fit == old["corpus"]["copies at the fit"]
    assert figures.corpus.reference_snapshot == old["corpus"]["reference"] == 1
    assert figures.corpus.drift is not None
    assert figures.corpus.drift.most[0] == tuple(old["corpus"]["drift"]["most"][0])
    assert figures.saturated["int8"].at_fit == old["saturated"]["int8"]["at the fit"]
    assert figures.reproduced.smallest_cosine == old["reproduced"]["smallest cosine"]
    assert figures.frozen_queries is not None
    assert figures.frozen_queries.name == old["frozen queries"]["set"]
    assert figures.frozen_queries.ndcg_before == old["frozen queries"]["ndcg@10_before"]
    assert figures.logged_queries is not None
    assert figures.logged_queries.count == old["logged answers"]["count"]
    assert figures.languages == {"en": 1.0}
    assert unopened.figures is None
    assert [alarm.name for alarm in unopened.alarms] == ["files"]


def test_nothing_of_an_old_record_is_lost(store: Store) -> None:
    record = read_audits(store, "c")[0]
    old = json.loads(PHRASE_KEYS.read_bytes())["figures"]
    assert record.figures is not None
    read = list(leaves(record.figures.model_dump(mode="json")))
    assert len(read) > 150
    assert sorted(map(repr, read)) == sorted(map(repr, leaves(old)))


def test_a_record_that_is_written_again_is_read_as_it_was(store: Store) -> None:
    record = read_audits(store, "c")[0]
    written = write_audit(store, record)
    assert read_audits(store, "c", last=1) == [written]
    assert written.figures == record.figures
    stored = json.loads(store.read(layout.numbered(layout.CollectionPaths("c").folder("audits"), written.number)))
    assert set(stored["figures"]) == set(Figures.model_fields)
    assert set(stored["figures"]["corpus"]) == set(CorpusFigures.model_fields)


def test_a_key_that_never_was_one_is_refused() -> None:
    body = json.loads(PHRASE_KEYS.read_bytes())
    del body["seal_sha256"]
    assert AuditRecord.model_validate(body).number == 2
    body["figures"]["corpus"]["Copies"] = 1.0
    with pytest.raises(ValidationError, match="Copies"):
        AuditRecord.model_validate(body)
