"""The same run by both executors: this process and Prefect give the same snapshot and the same files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from isospace.collection.snapshot import latest_manifest
from isospace.pipeline.embed import backfill, embed_corpus, refit_space
from isospace.pipeline.selection import Selection
from isospace.storage.store import open_store
from tests.conftest import Configure, sentences, write_jsonl
from tests.helpers.inline import prepared

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("prefect_server")]

# Reports name the run and its time, rates are measured, plans and leases are of one run.
OF_ONE_RUN = ("reports", "plans", "leases", "rates.json", "snapshots", "aliases", "verdicts", "serving", "listings")


def content(store: Path) -> dict[str, str]:
    """SHA-256 of every file that a run writes by content, by its path."""
    files = [path for path in sorted(store.rglob("*")) if path.is_file()]
    names = [path.relative_to(store).as_posix() for path in files]
    kept = [name for name in names if not any(part in OF_ONE_RUN for part in name.split("/"))]
    return {name: hashlib.sha256((store / name).read_bytes()).hexdigest() for name in kept}


def compared(store: Path) -> dict[str, str]:
    """The same, but of sealed documents, which name the run and its time, only the names."""
    return content(store) | {name: "" for name in content(store) if name.endswith(".json")}


def test_both_executors_write_the_same_snapshot_and_the_same_files(configure: Configure, tmp_path: Path) -> None:
    from flows.backfill import backfill as backfill_flow
    from flows.embed_corpus import embed_corpus as embed_flow
    from flows.refit_space import refit_space as refit_flow

    source = tmp_path / "d.jsonl"
    runtime = {"shard_tokens": 900, "part_documents": 40, "report_chunks": 0}
    local, flow = (
        configure(source, runtime={**runtime, "store": str(tmp_path / name)}) for name in ("local", "prefect")
    )

    def snapshots() -> list[str]:
        manifests = [latest_manifest(open_store(config.runtime.store), "c") for config in (local, flow)]
        assert all(manifest is not None for manifest in manifests)
        return [manifest.snapshot_id for manifest in manifests if manifest is not None]

    for config in (local, flow):
        # OpenVINO numbers the nodes of every graph that a process exports: both stores get the same export.
        prepared(open_store(config.runtime.store), config)
    write_jsonl(source, sentences(100))
    reports = [embed_corpus(local), embed_flow(flow)]
    assert [report.encoded for report in reports] == [100, 100]
    write_jsonl(source, sentences(110))
    chosen = Selection(uri="*#d0010?")
    reports = [backfill(local, selection=chosen), backfill_flow(flow, selection=chosen)]
    assert [report.encoded for report in reports] == [10, 10]
    refitted = [
        config.model_copy(
            update={
                "recipe": config.recipe.model_copy(
                    update={"transform": config.recipe.transform.model_copy(update={"normalization": "none"})}
                )
            }
        )
        for config in (local, flow)
    ]
    reports = [refit_space(refitted[0]), refit_flow(refitted[1])]
    assert reports[0].snapshot_id == reports[1].snapshot_id
    assert [report.snapshot for report in reports] == [3, 3]
    assert len(set(snapshots())) == 1
    files = compared(tmp_path / "local")
    assert files == compared(tmp_path / "prefect")
    assert len([name for name in files if name.endswith((".parquet", ".safetensors", ".bin"))]) > 15
