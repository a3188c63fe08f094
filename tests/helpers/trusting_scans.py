"""Scans of a source that trust a listing, and those that read everything."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from isospace.collection.listing import read_listed, read_listing, record_listing
from isospace.collection.part_record import PartRecord
from isospace.collection.snapshot import Manifest, commit_manifest
from isospace.collection.tombstones import count_tombstones
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.run import Run
from isospace.pipeline.scan.diff import Scan, scan_source
from isospace.storage.parquet import read_parquet
from isospace.storage.store import Store, open_store
from tests.helpers.manifests import file_ref, manifest, written
from tests.helpers.runs import bare_config, bare_run


def config_for(folder: Path, recipe: dict[str, Any] | None = None, **runtime: Any) -> PipelineConfig:
    given = {"source": str(folder / "source"), "part_documents": 3, "max_removed_share": 1.0, **runtime}
    return bare_config(folder, recipe=recipe, **{"max_quarantined_share": 1.0, **given})


def scanned(
    folder: Path,
    base: Manifest | None,
    *,
    recipe: dict[str, Any] | None = None,
    refused: dict[str, str] | None = None,
    run: dict[str, Any] | None = None,
    **runtime: Any,
) -> tuple[Run, Scan]:
    scratch = folder / f"scratch{len(list(folder.iterdir()))}"
    config = config_for(folder, recipe, **runtime)
    tombstones = count_tombstones(open_store(config.runtime.store), "c")
    given = {"config": config, "base": base, "scratch": scratch, "tombstones": tombstones, **(run or {})}
    begun = bare_run(folder, **given)
    return begun, scan_source(begun, refused)


def committed(run: Run, scan: Scan) -> Manifest:
    """Commit what a scan has found, with files in place of chunks and segments, and record its listing."""
    base = run.base
    kept = [part for part in base.parts if part.name in scan.kept] if base else []
    kept = [part.model_copy(update={"documents": scan.moved_parts.get(part.name, part.documents)}) for part in kept]
    new = [
        PartRecord(name=Path(ref.path).stem, documents=ref, chunks=file_ref("x"), segment=file_ref("x"))
        for ref in scan.parts
    ]
    changes = {"parts": (*kept, *new), "deletions": scan.deletions, "documents_digest": scan.documents_digest}
    made = written(run.store, manifest(base.sequence + 1 if base else 1, **changes))
    done = commit_manifest(run.store, made, tombstones=run.tombstones)
    if scan.listing is not None:
        record_listing(run.store, "c", scan.listing)
    return done


def begun(folder: Path, **options: Any) -> Manifest:
    return committed(*scanned(folder, None, **options))


def compared(folder: Path, base: Manifest | None, **options: Any) -> Scan:
    """Scan with and without trust; return the scan with trust, which has to find the same."""
    everything = scanned(folder, base, **options, verify_source_hours=0.0)[1]
    trusting = scanned(folder, base, **options)[1]
    assert everything.unread == 0
    same = {"unread": 0, "listing": None}
    assert replace(trusting, **same) == replace(everything, **same)
    assert quarantined(open_store(str(folder / "store")), trusting) == quarantined(
        open_store(str(folder / "store")), everything
    )
    return trusting


def quarantined(store: Store, scan: Scan) -> list[dict[str, Any]]:
    return [] if scan.quarantine is None else read_parquet(store, scan.quarantine.path).to_pylist()


def listed(folder: Path, base: Manifest) -> set[str]:
    store = open_store(str(folder / "store"))
    record = read_listing(store, "c", base.documents_digest)
    return set() if record is None else set(read_listed(store, record))
