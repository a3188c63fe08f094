"""What a run starts from, determined before the first document is read."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path

from isospace.collection.alias import aliases
from isospace.collection.snapshot import Manifest, damaged_files, latest_manifest, read_manifest
from isospace.collection.tombstones import count_tombstones
from isospace.collection.vector_index.refresh import Writer
from isospace.encoding.embedder import load_space
from isospace.encoding.registry.record import EncoderRecord
from isospace.encoding.sparse.embedder import load_sparse_space
from isospace.encoding.sparse.record import SparseEncoderRecord
from isospace.errors import ConfigError, IntegrityError
from isospace.evaluation.gate.verdicts import read_verdicts
from isospace.ingest.spec import ChunkingSpec
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.kept_tokenizer import keeping_tokenizer
from isospace.pipeline.main_guard import require_main_guard
from isospace.pipeline.preflight import require_faiss, require_feasible, require_feasible_pair, with_hashed_files
from isospace.storage import paths as layout
from isospace.storage.hashing import fingerprint
from isospace.storage.openable import report_address
from isospace.storage.run_id import new_run_id
from isospace.storage.store import Store, open_store
from isospace.transform.spec import TransformSpec


@dataclass(frozen=True, slots=True)
class Run:
    """References that every stage needs; no arrays.

    Attributes
    ----------
    run_id
        Names the run in reports and commits; no identity depends on it.
    encoder_id, chunking_id
        Identities of the recipe's encoder and chunking. The encoder is that of documents.
    base_sequence
        Number of the snapshot that the run starts from, or None.
    space_id
        The sealed space that is reused, or None if one has to be fitted.
    rebuild
        Whether all parts are rebuilt: because space or chunking differ from the base's, or to repair the base.
    damaged
        Files of the base that are missing, or whose size differs from its manifest. If there are any, files of earlier
        runs are not trusted: those that differ from the manifest are rewritten.
    scratch
        Local folder that is removed at the end.
    work
        Store to which documents, chunks, and plans are written: the run's own, or a scratch store in a dry run.
    transform
        The recipe's transform, with hashes instead of the paths of query files.
    tombstones
        How many tombstones the collection had when the run began; a later one keeps it from committing.
    query_encoder_id
        Identity of the encoder of queries; None if documents and queries have the same.
    sparse_encoder_id
        Identity of the recipe's sparse encoder; None without one.
    sparse_space_id
        The sealed sparse space that is reused; None without a sparse encoder, or if one has to be sealed.
    """

    run_id: str
    config: PipelineConfig
    encoder_id: str
    chunking_id: str
    base_sequence: int | None
    space_id: str | None
    rebuild: bool
    damaged: tuple[str, ...]
    scratch: Path
    work: str
    transform: TransformSpec
    tombstones: int
    query_encoder_id: str | None = None
    sparse_encoder_id: str | None = None
    sparse_space_id: str | None = None

    @property
    def store(self) -> Store:
        """The store of the collection."""
        return open_store(self.config.runtime.store)

    @property
    def encoder_ids(self) -> tuple[str, ...]:
        """The encoder of documents, and that of queries if it is another one."""
        return (self.encoder_id, *([self.query_encoder_id] if self.query_encoder_id else []))

    @property
    def work_store(self) -> Store:
        """The store of new parts and plans."""
        return open_store(self.work)

    @property
    def index_writer(self) -> Writer | None:
        """Who brings the index of raw vectors up to date; None in a dry run, which leaves the store as it is."""
        return Writer(self.collection, self.run_id) if self.work == self.config.runtime.store else None

    @property
    def base(self) -> Manifest | None:
        """The snapshot this run starts from, as the store has it."""
        if self.base_sequence is None:
            return None
        return _base(self.config.runtime.store, self.collection, self.base_sequence, self.run_id)

    def trusts(self, path: str) -> bool:
        """Return whether an existing file may stay: during a repair, only if it matches the base's manifest.

        Files that match are not rewritten: older snapshots name them too, and another library version could change
        their bytes.
        """
        if not self.damaged:
            return True
        digests = _digests(self.config.runtime.store, self.collection, self.base_sequence, self.run_id)
        return path not in self.damaged and path in digests and self.store.digest(path) == digests[path]

    @property
    def collection(self) -> str:
        """Name of the collection."""
        return self.config.runtime.collection

    def address(self, path: str) -> str:
        """Return the link to a report, or where its file lies if no report server is known."""
        return report_address(self.store, path, self.config.runtime.report_url)

    @property
    def paths(self) -> layout.CollectionPaths:
        """The paths of the collection."""
        return layout.CollectionPaths(self.collection)


@functools.lru_cache(maxsize=2)
def _base(url: str, collection: str, base: int, run_id: str) -> Manifest:
    """Return the base of a run, which every stage asks for; a snapshot of many parts takes time to read."""
    return read_manifest(open_store(url), collection, base)


@functools.lru_cache(maxsize=2)
def _digests(url: str, collection: str, base: int | None, run_id: str) -> dict[str, str]:
    """Return the digests of a run's base, which is parsed once and not for each of its files."""
    return {} if base is None else {r.path: r.sha256 for r in read_manifest(open_store(url), collection, base).files()}


def start_run(
    config: PipelineConfig,
    encoder: EncoderRecord,
    scratch: Path,
    *,
    queries: EncoderRecord | None = None,
    dry: bool = False,
    sparse: SparseEncoderRecord | None = None,
) -> Run:
    """Determine what a run starts from.

    Parameters
    ----------
    config
        The pipeline.
    encoder
        Identity of the config's encoder.
    scratch
        An empty local folder.
    queries
        Identity of the encoder of queries, if it is another one.
    dry
        Whether nothing may be written to the store.
    sparse
        Identity of the config's sparse encoder.

    Raises
    ------
    ConfigError
        If the recipe cannot work, a selection would leave documents in another space, or the script that is running
        would run again in worker processes.
    IntegrityError
        If the sealed space that the recipe asks for is damaged.
    """
    require_feasible(config.recipe, encoder)
    if queries is not None:
        require_feasible_pair(config.recipe, encoder, queries)
    if config.runtime.workers.kind == "processes" and not dry:
        require_main_guard()
    store = open_store(config.runtime.store)
    run = Run(
        run_id=new_run_id(),
        config=config,
        encoder_id=encoder.encoder_id,
        chunking_id=chunking_id(config.recipe.chunking, encoder.encoder_id),
        base_sequence=None,
        space_id=None,
        rebuild=True,
        damaged=(),
        scratch=scratch,
        work=str(scratch / "dry-store") if dry else config.runtime.store,
        transform=with_hashed_files(config.recipe.transform),
        tombstones=count_tombstones(store, config.runtime.collection),
        query_encoder_id=None if queries is None else queries.encoder_id,
        sparse_encoder_id=None if sparse is None else sparse.encoder_id,
    )
    base = latest_manifest(store, config.runtime.collection)
    if base is None:
        require_faiss(run.transform)
        return run
    run = replace(run, config=keeping_tokenizer(config, store, base))
    damaged = tuple(damaged_files(store, base))
    space_id = _sealed_space(run, base, damaged)
    if space_id is None:
        require_faiss(run.transform)
    sparse_id = _sealed_sparse_space(run, base, damaged)
    # One that has to be sealed needs all parts, too.
    other_sparse = sparse_id != base.sparse_space_id or (sparse is not None and sparse_id is None)
    rebuild = bool(damaged) or space_id != base.space_id or base.chunking_id != run.chunking_id or other_sparse
    if rebuild and config.runtime.selection.is_partial:
        why = f"{damaged[0]} is lost" if damaged else "the recipe differs from that of the latest snapshot"
        raise ConfigError(
            f"runtime.selection ({config.runtime.selection.describe()}): every part has to be rebuilt, since {why}, "
            "and a snapshot has one space for all of its documents. Run without a selection first."
        )
    return replace(
        run,
        base_sequence=base.sequence,
        space_id=space_id,
        rebuild=rebuild,
        damaged=damaged,
        sparse_space_id=sparse_id,
    )


def chunking_id(spec: ChunkingSpec, encoder_id: str) -> str:
    """Return the identity of a chunking: of its specification, and of the encoder whose tokens it counts."""
    return fingerprint({"chunking": spec.model_dump(mode="json"), "encoder_id": encoder_id})


def _sealed_space(run: Run, base: Manifest, damaged: tuple[str, ...]) -> str | None:
    """Return a sealed space that matches the recipe, of the base or of an aliased snapshot; None to fit a new one.

    The base may be a candidate that the gate rejected. Then the space in production is tried first.
    """
    if run.config.runtime.refit:
        return None
    known = aliases(run.store, run.collection)
    others = sorted({entry.snapshot for entry in known.values()} - {base.sequence}, reverse=True)
    numbers = [base.sequence, *others]
    verdicts = read_verdicts(run.store, run.collection, base.snapshot_id)
    production = known.get(run.config.runtime.promote_to or "")
    if verdicts and not verdicts[-1].passed and production is not None:
        numbers = [production.snapshot, *numbers]
    for number in numbers:
        manifest = base if number == base.sequence else read_manifest(run.store, run.collection, number)
        if not _matches_recipe(run, manifest):
            continue
        if lost := [path for path in damaged if path.startswith(layout.space_folder(manifest.space_id))]:
            raise IntegrityError(
                f"{lost[0]}: is missing, or its size differs from the manifest of snapshot {manifest.sequence}, and a "
                "sealed space cannot be rebuilt. Restore the file, or fit a new space with runtime.refit=true."
            )
        load_space(run.store, manifest.space_id)
        return manifest.space_id
    return None


def _sealed_sparse_space(run: Run, base: Manifest, damaged: tuple[str, ...]) -> str | None:
    """Return a sealed sparse space that matches the recipe, of the base or of an aliased snapshot; None for none."""
    spec = run.config.recipe.sparse
    if spec is None or run.sparse_encoder_id is None or run.config.runtime.refit:
        return None
    known = {entry.snapshot for entry in aliases(run.store, run.collection).values()} - {base.sequence}
    others = (read_manifest(run.store, run.collection, number) for number in sorted(known, reverse=True))
    for manifest in (base, *others):
        if (space_id := manifest.sparse_space_id) is None:
            continue
        if lost := [path for path in damaged if path.startswith(layout.space_folder(space_id))]:
            raise IntegrityError(
                f"{lost[0]}: is missing, or its size differs from the manifest of snapshot {manifest.sequence}, and a "
                "sealed space cannot be rebuilt. Restore the file, or fit a new space with runtime.refit=true."
            )
        record = load_sparse_space(run.store, space_id).record
        if (record.encoder_id, record.grid.bits) == (run.sparse_encoder_id, spec.bits):
            return space_id
    return None


def _matches_recipe(run: Run, manifest: Manifest) -> bool:
    transform = run.transform.model_dump(mode="json")
    encoders = (manifest.encoder_id, manifest.query_encoder_id)
    return encoders == (run.encoder_id, run.query_encoder_id) and manifest.recipe.get("transform") == transform
