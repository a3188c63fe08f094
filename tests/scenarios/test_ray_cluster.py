"""A run on a cluster of three nodes, one of which is lost in each stage that works on parts or shards."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from isospace.collection.snapshot import latest_manifest
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.embed import embed_corpus
from isospace.pipeline.encode import waves
from isospace.pipeline.executor import Stage
from isospace.pipeline.local_executor import LocalExecutor
from isospace.storage.store import open_store
from tests.conftest import Configure, corpora, sentences, write_jsonl

ray = pytest.importorskip("ray")
# Ray starts helpers that outlive it by a moment, and leaves files open in them.
pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(1200),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"),
]
STAGES = {"chunk", "encode", "segment", "check part"}


class Nodes:
    """A head, which the run talks to, and two nodes that may be lost."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        self.others: list[Any] = []
        self.complete()

    def complete(self) -> None:
        """Add nodes until there are three again; Ray does so in the main thread only."""
        while len(self.others) < 2:
            self.others.append(self.cluster.add_node(num_cpus=1))
        self.cluster.wait_for_nodes()

    def lose_one(self) -> None:
        """Kill a node with all that runs on it."""
        self.cluster.remove_node(self.others.pop(0), allow_graceful=False)


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    opened = Nodes()
    yield opened
    opened.cluster.shutdown()


class Losing(LocalExecutor):
    """Loses a node when the third item of each stage begins, while others are in progress."""

    def __init__(self, nodes: Nodes) -> None:
        super().__init__()
        self.nodes, self.begun = nodes, dict[str, int]()

    def map(self, stage: Stage[Any, Any], items: Any, **options: Any) -> Any:
        self.nodes.complete()
        return super().map(self._losing(stage), items, **options)

    def stream(self, stage: Stage[Any, Any], items: Any, **options: Any) -> Any:
        self.nodes.complete()
        return super().stream(self._losing(stage), items, **options)

    def _losing(self, stage: Stage[Any, Any]) -> Stage[Any, Any]:
        def work(*arguments: Any) -> Any:
            self.begun[stage.name] = number = self.begun.get(stage.name, 0) + 1
            if number == 3:
                self.nodes.lose_one()
            return stage.work(*arguments)

        return replace(stage, work=work)


def sentence_file(folder: Path) -> Path:
    return write_jsonl(folder / "d.jsonl", sentences(400))


def snapshot_id(config: PipelineConfig) -> str:
    manifest = latest_manifest(open_store(config.runtime.store), "c")
    assert manifest is not None
    return manifest.snapshot_id


def test_a_run_that_loses_a_node_in_each_stage_makes_the_same_snapshot(
    nodes: Nodes, configure: Configure, encoder_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = corpora()
    source = (
        found / "docs-corpus" / "boost-serialization" if found else write_jsonl(tmp_path / "d.jsonl", sentences(400))
    )
    configs = []
    for name, workers in (("local", {}), ("ray", {"kind": "ray", "address": nodes.cluster.address, "count": 2})):
        shutil.copytree(encoder_store, tmp_path / name)
        runtime = {"store": str(tmp_path / name), "workers": workers, "part_documents": 8, "report_chunks": 0}
        configs.append(
            configure(
                source, recipe={"transform": {"fit": {"kind": "none"}}}, runtime={**runtime, "shard_tokens": 30_000}
            )
        )
    embed_corpus(configs[0])
    # The first parts are encoded while others are chunked.
    monkeypatch.setattr(waves, "FIRST_BYTES", 1)
    losing = Losing(nodes)
    embed_corpus(configs[1], losing)
    assert snapshot_id(configs[1]) == snapshot_id(configs[0])
    assert {name for name, items in losing.begun.items() if items >= 3} >= STAGES
    assert not ray.is_initialized()
