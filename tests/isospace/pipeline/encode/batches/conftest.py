"""A run whose texts go to a stand-in for the Batch API, without the stages around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isospace.collection.raw_vectors import read_vectors
from isospace.collection.vector_files import vector_parts
from isospace.encoding.engine import Engine
from isospace.encoding.loading import read_tokenizer
from isospace.encoding.registry.record import EncoderRecord
from isospace.encoding.registry.register import prepare_encoder
from isospace.encoding.served.encoder import ServedEncoder
from isospace.encoding.served.opening import open_served
from isospace.encoding.spec import EndpointSpec, ServedEncoderSpec
from isospace.pipeline.encode.batches.wait import encode_in_batches
from isospace.pipeline.encode.plan import plan_shards
from isospace.pipeline.encode.shards import EncodedShard
from isospace.pipeline.local_executor import LogReporter
from isospace.pipeline.run import Run
from isospace.storage.store import Store, open_store
from tests.helpers.batch_provider import BatchProvider
from tests.helpers.fake_provider_answers import marker_of, vector_of
from tests.helpers.runs import bare_config, bare_run, text_hash, write_chunk_part

ENCODER = {"kind": "served", "protocol": "openai", "model": "fake-1", "max_tokens": 512}
TEXTS = [f"text number {n}" for n in range(20)]


class Killed(BaseException):
    """Ends a run where it waits, as a kill would."""


class Saying(LogReporter):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, message: str) -> None:
        self.lines.append(message)

    def warning(self, message: str) -> None:
        self.lines.append(message)


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, EncoderRecord]:
    store = open_store(tmp_path_factory.mktemp("registered"))
    with BatchProvider() as provider:
        engine = Engine(endpoint=EndpointSpec(url=provider.url("openai")))
        record = prepare_encoder(store, ServedEncoderSpec.model_validate(ENCODER), engine).record
    return store, record


@dataclass
class Bench:
    """One run, which can be started again."""

    folder: Path
    provider: BatchProvider
    registered: tuple[Store, EncoderRecord]
    batch: dict[str, Any] = field(default_factory=dict)
    runtime: dict[str, Any] = field(default_factory=dict)
    reporter: Saying = field(default_factory=Saying)
    texts: list[str] = field(default_factory=lambda: TEXTS)
    now: float = 0.0
    sleeps: int = 0
    on_sleep: Callable[[], object] = lambda: None

    @property
    def made(self) -> Run:
        sizes = {"request_texts": 3, "max_texts": 9, "poll_seconds": 60.0, **self.batch}
        endpoint = {"url": self.provider.url("openai"), "deadline_seconds": 2.0, "batch": sizes}
        config = bare_config(
            self.folder, recipe={"encoder": ENCODER}, endpoint=endpoint, **{"shard_tokens": 60, **self.runtime}
        )
        return bare_run(self.folder, config=config, encoder_id=self.registered[1].encoder_id)

    def encoder(self, run: Run) -> ServedEncoder:
        store, record = self.registered
        return open_served(store, record, read_tokenizer(store, record.encoder_id), run.config.runtime.endpoint)

    def encode(self, texts: list[str] | None = None) -> list[EncodedShard]:
        run = self.made
        wanted = texts or self.texts
        # A part that exists is not written again.
        part = write_chunk_part(run, text_hash("".join(wanted)).hex()[:8], wanted)
        shards = plan_shards(run, [part], limit=100).shards
        encoder = self.encoder(run)
        try:
            return encode_in_batches(self.reporter, run, shards, encoder, clock=lambda: self.now, sleep=self.sleep)
        finally:
            encoder.client.close()

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.sleeps += 1
        assert self.sleeps < 1000, "the run waits forever"
        self.on_sleep()

    def kill_while_waiting(self, texts: list[str] | None = None) -> None:
        """Run until every batch is under way, and end there."""

        def kill() -> None:
            if all(stored.answer["status"] == "in_progress" for stored in self.provider.batches.values()):
                raise Killed

        self.on_sleep, self.provider.held = kill, True
        with pytest.raises(Killed):
            self.encode(texts)
        self.on_sleep, self.provider.held = lambda: None, False

    def vectors(self) -> dict[bytes, np.ndarray]:
        run, found = self.made, dict[bytes, np.ndarray]()
        for path in vector_parts(run.store, run.encoder_id):
            hashes, vectors = read_vectors(run.store, path, run.encoder_id)
            assert not found.keys() & set(hashes), "a text has two vectors"
            found |= dict(zip(hashes, vectors, strict=True))
        return found

    def expect(self, texts: list[str]) -> None:
        """Check that exactly these texts have a vector, each its own."""
        found = self.vectors()
        assert found.keys() == {text_hash(text) for text in texts}
        marker = marker_of({})
        for text in texts:
            assert np.array_equal(found[text_hash(text)], vector_of(text, marker)), text

    def paid(self) -> dict[str, int]:
        """How often each text was answered in a batch; the control text is not counted."""
        return {text: times for text, times in self.provider.paid.items() if text.startswith("text number")}

    def records(self) -> list[str]:
        run = self.made
        return [stat.path for stat in run.store.walk(run.paths.batches) if "refused" not in stat.path]

    def said(self, words: str) -> bool:
        return any(words in line for line in self.reporter.lines)

    def changed(self, **batch: Any) -> Bench:
        return replace(self, batch={**self.batch, **batch}, reporter=Saying(), sleeps=0)


@pytest.fixture
def provider() -> Iterator[BatchProvider]:
    with BatchProvider() as running:
        yield running


@pytest.fixture
def bench(tmp_path: Path, provider: BatchProvider, registered: tuple[Store, EncoderRecord]) -> Bench:
    return Bench(tmp_path, provider, registered)
