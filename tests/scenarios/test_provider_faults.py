"""Whole runs over a provider that fails in the middle: nothing is silent, and no text is lost, doubled, or wrong.

The table in docs/provider-faults.md is made here:
ISOSPACE_WRITE_DOCS=1 python -m pytest tests/scenarios/test_provider_faults.py
"""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from isospace.collection.quarantine import read_quarantine
from isospace.collection.snapshot import latest_manifest, sequences
from isospace.encoding import probing
from isospace.encoding.registry.register import prepare_encoder
from isospace.encoding.served import pace
from isospace.encoding.tokenizer import Tokenizer
from isospace.encoding.tokenizer_rules import noticing_texts
from isospace.errors import EncoderError
from isospace.pipeline.config import PipelineConfig, engine_of
from isospace.pipeline.embed import embed_corpus
from isospace.pipeline.resources import forget_encoders
from isospace.storage.store import Store, open_store
from tests.helpers.documents import configuration, sentences, write_jsonl
from tests.helpers.fake_provider import FakeProvider
from tests.helpers.provider_faults import TROUBLES, Trouble, after, stored_vectors
from tests.helpers.runs import text_hash
from tests.helpers.served_models import ROLE_SETTINGS

# Whole runs of some seconds each.
pytestmark = pytest.mark.integration

DOCS = Path(__file__).parents[2] / "docs" / "provider-faults.md"
SECRET = "sk-very-secret-0123456789"
DOCUMENTS = sentences(100)
SENT = [f"title {name} {text}" for name, text in DOCUMENTS.items()]


@dataclass(frozen=True)
class Clean:
    """The store of an undisturbed run, its snapshot ID and raw vectors, and the requests that compare the probes."""

    store: Path
    snapshot_id: str
    vectors: dict[bytes, bytes]
    probes: int


@functools.cache
def noticing(data: bytes, texts: tuple[str, ...]) -> tuple[list[str], list[str]]:
    return noticing_texts(Tokenizer(data), texts)


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeProvider]:
    monkeypatch.setattr(pace, "_FIRST_SECONDS", 0.01)
    monkeypatch.setenv("TEST_KEY", SECRET)
    with FakeProvider(key=SECRET, echo_key=True, silence=0.8) as running:
        yield running
    forget_encoders()


@pytest.fixture(scope="module")
def clean() -> dict[str, Clean]:
    """An undisturbed run, by protocol."""
    return {}


@pytest.fixture(autouse=True)
def probes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    # The choice of texts takes long, and depends on the tokenizer alone, which is the same in all runs.
    monkeypatch.setattr(probing, "noticing_texts", lambda tokenizer, texts: noticing(tokenizer.data, tuple(texts)))


def config_of(provider: FakeProvider, folder: Path, protocol: str) -> PipelineConfig:
    folder.mkdir(exist_ok=True)
    parameters = {} if protocol == "tei" else ROLE_SETTINGS[protocol].get("parameters", {})
    recipe: dict[str, Any] = {
        "encoder": {
            "kind": "served", "protocol": protocol, "model": "fake-1", "max_tokens": 200, "parameters": parameters
        },
        "transform": {"representations": ["float32"], "fit": {"kind": "none"}},
        "chunking": {"overlap_tokens": 0},
    }  # fmt: skip
    endpoint = {
        "url": provider.url(protocol), "key_env": "TEST_KEY", "timeout_seconds": 0.4, "deadline_seconds": 2.0,
        "max_batch_texts": 9,
    }  # fmt: skip
    runtime = {"endpoint": endpoint, "shard_tokens": 3000, "part_documents": 100, "retries": 0, "report_chunks": 0}
    source = write_jsonl(folder / "docs.jsonl", DOCUMENTS)
    return configuration(Path("unused"), source, folder / "store", recipe=recipe, runtime=runtime)


def undisturbed(provider: FakeProvider, folder: Path, protocol: str, clean: dict[str, Clean]) -> Clean:
    if protocol not in clean:
        config = config_of(provider, folder, protocol)
        report, store = embed_corpus(config), open_store(config.runtime.store)
        vectors = stored_vectors(store)
        assert set(vectors) == set(map(text_hash, SENT))
        before = provider._number
        prepare_encoder(store, config.recipe.encoder, engine_of(config.runtime))
        clean[protocol] = Clean(folder / "store", report.snapshot_id, vectors, provider._number - before)
        forget_encoders()
    return clean[protocol]


def require_no_key(folder: Path) -> None:
    assert not [path for path in folder.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


@pytest.mark.parametrize("trouble", TROUBLES, ids=[one.name for one in TROUBLES])
def test_a_fault_in_the_middle_of_a_run_is_survived_or_named(
    trouble: Trouble,
    provider: FakeProvider,
    clean: dict[str, Clean],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    caplog: pytest.LogCaptureFixture,
) -> None:
    right = undisturbed(provider, tmp_path_factory.mktemp("clean"), trouble.protocol, clean)
    snapshot_id, vectors = right.snapshot_id, right.vectors
    config = config_of(provider, tmp_path / "run", trouble.protocol)
    shutil.copytree(right.store / "encoders", tmp_path / "run" / "store" / "encoders")
    store = open_store(config.runtime.store)
    bad = next((text for text in SENT if trouble.of and text.startswith(trouble.of)), None)
    provider.faults = [after(trouble, provider._number + right.probes)]
    provider.spoiled = lambda text: trouble.status == 200 and text == bad
    provider.rejects = lambda text: "the text is bad" if trouble.status != 200 and text == bad else None
    provider.rejects_with = trouble.status
    before = len(provider.texts_received())

    if trouble.result == "completes":
        report = embed_corpus(config)
        sent = [text for text in provider.texts_received()[before:] if text in SENT]
        assert set(sent) == set(SENT)
        assert len(sent) - len(SENT) <= report.resent_texts
        assert bool(bad) == (report.snapshot_id != snapshot_id)
        require_quarantined(store, bad, report.quarantined)
        expected = {key: vector for key, vector in vectors.items() if bad is None or key != text_hash(bad)}
        assert stored_vectors(store) == expected
    else:
        with pytest.raises(EncoderError, match=trouble.says) as caught:
            embed_corpus(config)
        assert SECRET not in str(caught.value)
        assert not sequences(store, "c")
        kept = stored_vectors(store)
        assert kept == {key: vectors[key] for key in kept}
        provider.faults = []
        forget_encoders()
        assert embed_corpus(config).snapshot_id == snapshot_id
        assert stored_vectors(store) == vectors
    assert SECRET not in caplog.text
    require_no_key(tmp_path / "run")


def require_quarantined(store: Store, bad: str | None, count: int) -> None:
    quarantined = read_quarantine(store, latest_manifest(store, "c"))
    assert len(quarantined) == count == (1 if bad else 0)
    if bad is not None:
        assert (quarantined[0].doc_id in bad, "the provider refuses a text of it" in quarantined[0].reason) == (
            True,
            True,
        )


def test_the_table_in_the_docs_is_this_one() -> None:
    rows = [f"| {n} | {one.name} | {one.result} | {one.how} |" for n, one in enumerate(TROUBLES, start=1)]
    text = "\n".join([HEAD, "| | fault | the run | what isospace does |", "| ---: | --- | --- | --- |", *rows, ""])
    if os.environ.get("ISOSPACE_WRITE_DOCS"):
        DOCS.write_text(text, encoding="utf-8")
    assert DOCS.read_text(encoding="utf-8") == text


HEAD = """# Faults of a provider

Each of these faults was injected in the middle of a run over 100 documents, whose encoder is behind an API.
After each, no vector was stored twice, and none that an undisturbed run does not store.
A run that completes commits the snapshot of an undisturbed run, except for a document that it quarantines.
A run that fails or is refused commits nothing; the same command, once the provider works again, commits that snapshot.
Errors of the provider repeated the key: no file, log, or error of isospace held it.
`tests/scenarios/test_provider_faults.py` runs them all and writes this table.
"""
