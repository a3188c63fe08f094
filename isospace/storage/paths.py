"""Where everything lies in a store, relative to its prefix. See docs/format.md.

Only this module knows these paths: others ask for them here, and have a path taken apart here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast, get_args

from isospace.errors import ConfigError
from isospace.storage.protocol import Store

Kind: TypeAlias = Literal[
    "documents",
    "chunks",
    "segments",
    "deletions",
    "quarantine",
    "plans",
    "serving",
    "lexical",
    "references",
    "snapshots",
    "aliases",
    "evaluation",
    "verdicts",
    "answers",
    "audits",
    "forgotten",
]
"""The folders of a collection: what kind of file lies in each."""

COLLECTIONS, ENCODERS, VECTORS, SPACES, REPORTS = "collections", "encoders", "vectors", "spaces", "reports"
"""Folders at the top of a store."""

_KINDS = frozenset(get_args(Kind))
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_NUMBERED = re.compile(r"(?:^|/)(\d{8})\.json$", re.ASCII)
_ID_DIGITS = 64


def is_name(name: str) -> bool:
    """Tell whether a name can be that of a collection or an alias."""
    return _NAME.fullmatch(name) is not None


def checked_name(name: str, what: str) -> str:
    """Return a name that is safe as a folder, or raise ConfigError."""
    if not is_name(name):
        raise ConfigError(f"{what} {name[:60]!r}: expected 1 to 100 letters, digits, dots, dashes and underscores.")
    return name


def numbered(folder: str, number: int) -> str:
    """Return the file of one number in an append-only folder."""
    return f"{folder}/{number:08d}.json"


def number_of(path: str) -> int | None:
    """Return the number of a file made by `numbered`, or None for any other file."""
    match = _NUMBERED.search(path)
    return int(match.group(1)) if match else None


@dataclass(frozen=True, slots=True)
class CollectionPaths:
    """Every path of one collection.

    Raises
    ------
    ConfigError
        If the name is not safe as a folder.
    """

    name: str

    def __post_init__(self) -> None:
        checked_name(self.name, "collection")

    @property
    def root(self) -> str:
        """Folder of everything that belongs to the collection alone."""
        return f"{COLLECTIONS}/{self.name}"

    def folder(self, kind: Kind) -> str:
        """Folder of all files of one kind."""
        return f"{self.root}/{kind}"

    def documents(self, part: str) -> str:
        """Documents of one part."""
        return f"{self.folder('documents')}/{part}.parquet"

    def chunks(self, part: str) -> str:
        """Chunks of one part; `part` derives from its documents and from how they were cut."""
        return f"{self.folder('chunks')}/{part}.parquet"

    def segment(self, space_id: str, part: str) -> str:
        """Vectors and codes of one part in one space; `part` is that of the chunks, row by row."""
        return f"{self.folder('segments')}/{space_id}/{part}.parquet"

    def plan(self, plan_id: str) -> str:
        """Rows of the shards of one plan."""
        return f"{self.folder('plans')}/{plan_id}.parquet"

    def deletions(self, digest: str) -> str:
        """Documents of older parts that a snapshot no longer has."""
        return f"{self.folder('deletions')}/{digest}.parquet"

    def quarantine(self, digest: str) -> str:
        """Table of inputs that a run set aside, with reasons."""
        return f"{self.folder('quarantine')}/{digest}.parquet"

    def snapshot(self, number: int) -> str:
        """Manifest of one snapshot: its commit."""
        return numbered(self.folder("snapshots"), number)

    def alias(self, alias: str) -> str:
        """Folder of the history of one alias, numbered."""
        return f"{self.folder('aliases')}/{checked_name(alias, 'alias')}"

    def serving_database(self, snapshot_id: str, files: str) -> str:
        """DuckDB database of one snapshot in these files: after a compaction, equal content lies in others."""
        return f"{self.folder('serving')}/{snapshot_id}-{files[:16]}.duckdb"

    def serving_record(self, snapshot_id: str, files: str) -> str:
        """Size and SHA-256 of the serving database, written after it."""
        return f"{self.folder('serving')}/{snapshot_id}-{files[:16]}.json"

    def lexical_index(self, snapshot_id: str, files: str) -> str:
        """BM25 index of one snapshot in these files: equal content in other files has its rows in another order."""
        return f"{self.folder('lexical')}/{snapshot_id}-{files[:16]}.safetensors"

    def lexical_record(self, snapshot_id: str, files: str) -> str:
        """Tokenizer, size and SHA-256 of the BM25 index, written after it."""
        return f"{self.folder('lexical')}/{snapshot_id}-{files[:16]}.json"

    def evaluation_set(self, name: str) -> str:
        """Folder of the versions of one evaluation set, numbered."""
        return f"{self.folder('evaluation')}/{checked_name(name, 'evaluation set')}"

    def evaluation_files(self, name: str, set_id: str) -> str:
        """Folder of the queries and judgements of one version."""
        return f"{self.evaluation_set(name)}/{set_id[:32]}"

    def verdicts(self, snapshot_id: str) -> str:
        """Folder of the verdicts on one snapshot, numbered."""
        return f"{self.folder('verdicts')}/{snapshot_id}"

    def answers(self, day: str) -> str:
        """Folder of the answers that were logged on one day."""
        return f"{self.folder('answers')}/{day}"

    def reference_record(self, space_id: str) -> str:
        """Record of the sample that audits compare with: what the collection was when its space was fitted."""
        return f"{self.folder('references')}/{space_id}.json"

    def reference_sample(self, space_id: str, digest: str) -> str:
        """Raw vectors of that sample."""
        return f"{self.folder('references')}/{space_id}-{digest[:16]}.parquet"

    @property
    def replacements(self) -> str:
        """Folder of the notes which snapshot took whose place, numbered by the old one."""
        return f"{self.folder('forgotten')}/replaced"

    @property
    def receipts(self) -> str:
        """Folder of the receipts for the orders to forget documents, numbered like these."""
        return f"{self.folder('forgotten')}/receipts"


@dataclass(frozen=True, slots=True)
class CollectionFile:
    """A path below the folder of a collection, taken apart; `kind` is None where no kind of file has its place."""

    collection: str
    kind: Kind | None


def parse_collection_path(path: str) -> CollectionFile | None:
    """Return whose file a path is, and of what kind; None if it is not below the folder of a collection."""
    top, _, rest = path.partition("/")
    name, _, inner = rest.partition("/")
    kind, _, file = inner.partition("/")
    if top != COLLECTIONS or not is_name(name) or not inner:
        return None
    return CollectionFile(name, cast("Kind", kind) if file and kind in _KINDS else None)


def list_collections(store: Store) -> list[str]:
    """Return the names of the collections of a store, sorted; one may have no snapshot yet."""
    return [name for name in store.folders(COLLECTIONS) if is_name(name)]


def list_encoders(store: Store) -> list[str]:
    """Return the identities of the encoders of a store, sorted."""
    return [name for name in store.folders(ENCODERS) if len(name) == _ID_DIGITS]


def list_embedded(store: Store) -> list[str]:
    """Return the identities of the encoders that a store has raw vectors of, sorted."""
    return store.folders(VECTORS)


def list_spaces(store: Store) -> list[str]:
    """Return the identities of the spaces of a store, sorted."""
    return store.folders(SPACES)


def encoder_folder(encoder_id: str) -> str:
    """Folder of one encoder: encoder.json and the model's files."""
    return f"{ENCODERS}/{encoder_id}"


def encoder_document(encoder_id: str) -> str:
    """Sealed description of one encoder."""
    return f"{encoder_folder(encoder_id)}/encoder.json"


def encoder_model(encoder_id: str) -> str:
    """Folder of the model's own files."""
    return f"{encoder_folder(encoder_id)}/model"


def encoder_export(encoder_id: str, kind: str) -> str:
    """Sealed description of what was exported from a model: its tokenizer, a backend's graph, reference vectors."""
    return f"{encoder_folder(encoder_id)}/exports/{kind}.json"


def encoder_export_files(encoder_id: str, kind: str, export_id: str) -> str:
    """Folder of the files of one export, named after their content."""
    return f"{encoder_folder(encoder_id)}/exports/{kind}/{export_id[:16]}"


def encoder_lineage(encoder_id: str) -> str:
    """Sealed record of what a fine-tuned encoder was made from."""
    return f"{encoder_folder(encoder_id)}/lineage.json"


def encoder_languages(encoder_id: str) -> str:
    """Languages that the model's card names; there if it names any."""
    return f"{encoder_folder(encoder_id)}/languages.json"


def encoder_description(key: str) -> str:
    """Which encoder a model's files and a recipe gave; spares loading the model to find out."""
    return f"{ENCODERS}/described/{key}.json"


def encoder_rate(encoder_id: str) -> str:
    """Measured encoding rates by device; provenance, overwritten by every run."""
    return f"{encoder_folder(encoder_id)}/rates.json"


def encoder_vectors(encoder_id: str) -> str:
    """Folder of all raw vectors of one encoder."""
    return f"{VECTORS}/{encoder_id}"


def vectors_folder(encoder_id: str, role: str) -> str:
    """Folder of the raw vectors of one encoder and role."""
    return f"{encoder_vectors(encoder_id)}/{role}"


def space_folder(space_id: str) -> str:
    """Folder of one sealed space."""
    return f"{SPACES}/{space_id}"


def report(run_id: str) -> str:
    """Report of one run."""
    return f"{REPORTS}/{run_id}/report.json"


def report_page(run_id: str) -> str:
    """Report of one run as a page."""
    return f"{REPORTS}/{run_id}/report.html"


def contest_figures(key: str) -> str:
    """Figures of one variant of a contest, by the fingerprint of what they depend on."""
    return f"contests/{key}.json"


def run_leases() -> str:
    """Folder of the leases of runs that write."""
    return "leases/runs"


def upkeep_leases() -> str:
    """Folder of the leases of what deletes files."""
    return "leases/upkeep"
