"""One run of the line: what it starts from, fixed before the first document is read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from isospace.collection.alias import aliases
from isospace.collection.snapshot import Manifest, latest_manifest, read_manifest
from isospace.encoding.embedder import load_space
from isospace.encoding.registry.record import EncoderRecord
from isospace.errors import ConfigError, IntegrityError
from isospace.evaluation.gate.verdicts import read_verdicts
from isospace.ingest.spec import ChunkingSpec
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.preflight import identified, require_possible, require_trainer
from isospace.storage import paths as layout
from isospace.storage.hashing import fingerprint
from isospace.storage.run_id import new_run_id
from isospace.storage.store import Store, open_store
from isospace.transform.spec import TransformSpec


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
        Whether all parts are formed anew: space or chunking are not the base's, or the base has to be repaired.
    damaged
        Files of the base that are missing or have another size than its manifest says. Then nothing that an earlier run
        wrote is taken on trust: what is not as the manifest says is written again.
    scratch
        Local folder that is removed at the end.
    work
        Store that documents, chunks and plans are written to: the run's own, or a scratch one for a dry run.
    transform
        The recipe's, its files named by their content.
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

    def trusts(self, path: str) -> bool:
        """Tell whether a file that is there may stay: in a repair, only one that is what the base's manifest says.

        Older snapshots name the same files: writing one again with another library could change its bytes for them.
        """
        if not self.damaged:
            return True
        base = self.base
        named = {ref.path: ref.sha256 for ref in base.files()} if base else {}
        return path not in self.damaged and path in named and self.store.digest(path) == named[path]

    @property
    def collection(self) -> str:
        """Name of the collection."""
        return self.config.runtime.collection

    @property
    def paths(self) -> layout.CollectionPaths:
        """The paths of the collection."""
        return layout.CollectionPaths(self.collection)


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
    require_possible(config.recipe, encoder)
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
        transform=identified(config.recipe.transform),
    )
    base = latest_manifest(store, config.runtime.collection)
    if base is None:
        require_trainer(run.transform)
        return run
    damaged = tuple(damaged_files(store, base))
    space_id = _sealed_space(run, base, damaged)
    if space_id is None:
        require_trainer(run.transform)
    rebuild = bool(damaged) or space_id != base.space_id or base.chunking_id != run.chunking_id
    if rebuild and config.runtime.selection.is_partial:
        why = f"{damaged[0]} is lost" if damaged else "the recipe is not that of the collection's latest snapshot"
        raise ConfigError(
            f"runtime.selection ({config.runtime.selection.describe()}): every part has to be formed anew, since "
            f"{why}, and a snapshot has one space for all of its documents. Run without a selection first."
        )
    return replace(run, base_sequence=base.sequence, space_id=space_id, rebuild=rebuild, damaged=damaged)


def damaged_files(store: Store, manifest: Manifest) -> list[str]:
    """Return the files of a snapshot that are missing or have another size; what they hold is `verify`'s business.

    Folders are listed: a request for each of a large collection's files would take an object store minutes.
    """
    refs = manifest.files()
    folders = {str(PurePosixPath(ref.path).parent) for ref in refs}
    sizes = {stat.path: stat.size for folder in sorted(folders) for stat in store.walk(folder)}
    return [ref.path for ref in refs if sizes.get(ref.path) != ref.size]


def chunking_id(spec: ChunkingSpec, encoder_id: str) -> str:
    """Identity of how documents are cut: the specification, and the encoder whose tokens it counts."""
    return fingerprint({"chunking": spec.model_dump(mode="json"), "encoder_id": encoder_id})


def _sealed_space(run: Run, base: Manifest, damaged: tuple[str, ...]) -> str | None:
    """Return a sealed space that the recipe asks for, unless a refit was ordered: the base's, or that of an aliased snapshot.

    The base may be a candidate that the gate rejected: then the space in production comes first, if the recipe asks for
    it.
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
        if not _asks_for(run, manifest):
            continue
        if lost := [path for path in damaged if path.startswith(layout.space_folder(manifest.space_id))]:
            raise IntegrityError(
                f"{lost[0]}: is missing or has another size than snapshot {manifest.sequence} says, and a sealed space "
                "cannot be made again. Restore the file, or fit another space with runtime.refit=true."
            )
        load_space(run.store, manifest.space_id)
        return manifest.space_id
    return None


def _asks_for(run: Run, manifest: Manifest) -> bool:
    asked = run.transform.model_dump(mode="json")
    return manifest.encoder_id == run.encoder_id and manifest.recipe.get("transform") == asked
