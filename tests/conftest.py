"""Shared fixtures: a tiny model built once, corpora of short texts, configurations."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
if "PYTEST_XDIST_WORKER" in os.environ:
    # Beside other workers the threads of BLAS and torch wait for one another, spinning, for a third of all processor
    # time.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from isospace.encoding.backends.base import usable_cpus
from isospace.encoding.encoder import SentenceEncoder
from isospace.encoding.registry.register import prepare_encoder
from isospace.encoding.spec import EncoderSpec
from isospace.pipeline.config import PipelineConfig
from isospace.storage.store import open_store
from tests.helpers.documents import configuration, sentences, write_jsonl
from tests.helpers.tiny import build_tiny_model

Configure = Callable[..., PipelineConfig]
# Fixtures that start a server or a cluster of its own processes, or need one that runs.
SERVERS = frozenset({"prefect_server", "cluster", "postgresql"})

__all__ = ["Configure", "configuration", "corpora", "sentences", "write_jsonl"]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than processors: a quarter of the time a test waits for a process or a server."""
    return min(4, usable_cpus() + 1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what uses a server or a cluster as an integration test."""
    for item in items:
        if SERVERS & set(getattr(item, "fixturenames", ())):
            item.add_marker("integration")


@pytest.fixture(autouse=True)
def local_copies(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Local copies of one test alone: none finds what another has opened."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("ISOSPACE_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="session")
def encoder_store(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that holds the tiny model and its export, and nothing else."""
    folder = tmp_path_factory.mktemp("store")
    prepare_encoder(open_store(folder), EncoderSpec(model=str(tiny_model)))
    return folder


@pytest.fixture(scope="session")
def tiny_encoder(tiny_model: Path, encoder_store: Path) -> SentenceEncoder:
    return prepare_encoder(open_store(encoder_store), EncoderSpec(model=str(tiny_model)))


@pytest.fixture
def configure(tiny_model: Path, tmp_path: Path) -> Configure:
    """Build a configuration; `recipe` and `runtime` override single keys of the defaults."""

    def build(source: Path | str, *, recipe: dict | None = None, runtime: dict | None = None) -> PipelineConfig:
        return configuration(tiny_model, source, tmp_path / "store", recipe=recipe, runtime=runtime)

    return build


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """One ephemeral Prefect server for the session; it takes twenty seconds to start."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=180):
        yield


def corpora() -> Path | None:
    """Folder of the evaluation corpora: $ISOSPACE_CORPORA, else beside the checkout."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("ISOSPACE_CORPORA", beside))
    return folder if folder.is_dir() else None
