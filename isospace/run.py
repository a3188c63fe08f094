"""One run of the line: what it starts from, fixed before the first document is read."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from isospace.config import ChunkingSpec, PipelineConfig
from isospace.encoder_files import EncoderRecord
from isospace.errors import IntegrityError
from isospace.fingerprint import fingerprint
from isospace.opening import load_space
from isospace.parquet import verify_file
from isospace.snapshot import Manifest, latest_manifest, read_manifest
from isospace.store import Store, open_store


@dataclass(frozen=True, slots=True)
class Run:
    """References that every station needs; no arrays.

    Attributes
    ----------
    run_id
        Names the run in reports and commits; no identity depends on it.
    config
        The pipeline.
    encoder_id, chunking_id
        Identities of the recipe's parts.
    base_sequence
        Number of the snapshot this run starts from, or None.
    space_id
        The sealed space that is used again, or None if one is to be fitted.
    rebuild
        Whether all parts are formed anew: space or chunking is not the base's, or the base has to be repaired.
    repair
        Whether a file of the base is missing or has another size than its manifest says.
    scratch
        Local folder that is removed at the end.
    work
        Store that documents, chunks and plans are written to: the run's own, or a scratch one for a dry run.
    """

    run_id: str
    config: PipelineConfig
    encoder_id: str
    chunking_id: str
    base_sequence: int | None
    space_id: str | None
    rebuild: bool
    repair: bool
    scratch: Path
    work: str

    @property
    def store(self) -> Store:
        """The store of the collection."""
        return open_store(self.config.runtime.store)

    @property
    def work_store(self) -> Store:
        """Where new parts and plans are."""
        return open_store(self.work)

    @property
    def base(self) -> Manifest | None:
        """The snapshot this run starts from, read from the store."""
        return None if self.base_sequence is None else read_manifest(self.store, self.collection, self.base_sequence)

    @property
    def collection(self) -> str:
        """Name of the collection."""
        return self.config.runtime.collection


def start_run(config: PipelineConfig, encoder: EncoderRecord, scratch: Path, *, dry: bool = False) -> Run:
    """Decide what a run starts from.

    Parameters
    ----------
    config
        The pipeline.
    encoder
        Identity of its loaded encoder.
    scratch
        An empty local folder.
    dry
        Whether nothing may be written to the store.

    Returns
    -------
    Run
    """
    store = open_store(config.runtime.store)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    run = Run(
        run_id=f"{stamp}-{secrets.token_hex(4)}",
        config=config,
        encoder_id=encoder.encoder_id,
        chunking_id=chunking_id(config.recipe.chunking, encoder.encoder_id),
        base_sequence=None,
        space_id=None,
        rebuild=True,
        repair=False,
        scratch=scratch,
        work=str(scratch / "dry-store") if dry else config.runtime.store,
    )
    return rebase(run, latest_manifest(store, config.runtime.collection))


def rebase(run: Run, base: Manifest | None) -> Run:
    """Return the run as it starts from another snapshot."""
    space_id = _sealed_space(run, base)
    repair = base is not None and not is_whole(run.store, base)
    rebuild = repair or base is None or space_id is None or base.chunking_id != run.chunking_id
    sequence = base.sequence if base else None
    return replace(run, base_sequence=sequence, space_id=space_id, rebuild=rebuild, repair=repair)


def is_whole(store: Store, manifest: Manifest) -> bool:
    """Tell whether every file of a snapshot is there with its size; what it holds is `verify`'s business."""
    try:
        for ref in manifest.files():
            verify_file(store, ref, content=False)
    except IntegrityError:
        return False
    return True


def chunking_id(spec: ChunkingSpec, encoder_id: str) -> str:
    """Identity of how documents are cut: the specification, and the encoder whose tokens it counts."""
    return fingerprint({"chunking": spec.model_dump(mode="json"), "encoder_id": encoder_id})


def _sealed_space(run: Run, base: Manifest | None) -> str | None:
    """Return the base's space if the recipe still asks for it, and no refit was ordered."""
    if base is None or run.config.runtime.refit or base.encoder_id != run.encoder_id:
        return None
    space = load_space(run.store, base.space_id)
    return base.space_id if space.record.spec == run.config.recipe.transform else None
