"""The paths of all files in a store, relative to its prefix. See docs/format.md.

Only this module knows these paths. Other modules build and parse paths with its functions.
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
    "listings",
    "parts",
    "plans",
    "refusals",
    "billed",
    "serving",
    "lexical",
    "recall",
    "remote",
    "references",
    "samples",
    "snapshots",
    "aliases",
    "evaluation",
    "verdicts",
    "answers",
    "audits",
    "forgotten",
]
"""Kinds of files of a collection; each kind has its own folder."""

COLLECTIONS, ENCODERS, VECTORS, SPACES, REPORTS = "collections", "encoders", "vectors", "spaces", "reports"
COMPARISONS, TRASH = "contests", "trash"
"""Top-level folders of a store."""

_KINDS = frozenset(get_args(Kind))
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_NUMBERED = re.compile(r"(?:^|/)(\d{8})\.json$", re.ASCII)
_ID_DIGITS = 64


def is_name(name: str) -> bool:
    """Return whether a name is valid for a collection or an alias."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def checked_name(name: str, what: str) -> str:
    """Return a name that is safe as a folder name; ConfigError if it is not. `what` is for the message."""
    if not isinstance(name, str):
        raise ConfigError(f"{what} {name!r:.60}: is not a text. Write it in quotes.")
    if not is_name(name):
        raise ConfigError(f"{what} {name[:60]!r}: expected 1 to 100 letters, digits, dots, dashes, and underscores.")
    return name


def numbered(folder: str, number: int) -> str:
    """Return the path of one number in an append-only log."""
    return f"{folder}/{number:08d}.json"


def number_of(path: str) -> int | None:
    """Return the number in a path that `numbered` built, or None for any other path."""
    match = _NUMBERED.search(path)
    return int(match.group(1)) if match else None


@dataclass(frozen=True, slots=True)
class CollectionPaths:
    """Every path of one collection.

    Raises
    ------
    ConfigError
        If the name is not safe as a folder name.
    """

    name: str

    def __post_init__(self) -> None:
        checked_name(self.name, "collection")

    @property
    def root(self) -> str:
        """Folder of everything that belongs only to the collection."""
        return f"{COLLECTIONS}/{self.name}"

    def folder(self, kind: Kind) -> str:
        """Return the folder of all files of one kind."""
        return f"{self.root}/{kind}"

    def documents(self, part: str) -> str:
        """Return the path of the documents of one part."""
        return f"{self.folder('documents')}/{part}.parquet"

    def chunks(self, part: str) -> str:
        """Return the path of the chunks of one part; `part` depends on its documents and the chunking."""
        return f"{self.folder('chunks')}/{part}.parquet"

    def segment(self, space_id: str, part: str) -> str:
        """Return the path of the vectors and codes of one part in one space, one row per chunk."""
        return f"{self.folder('segments')}/{space_id}/{part}.parquet"

    def plan(self, plan_id: str) -> str:
        """Return the path of the rows of the encoding shards of one plan."""
        return f"{self.folder('plans')}/{plan_id}.parquet"

    def paid(self, shard_id: str) -> str:
        """Return the folder of a provider's answers to a shard that is not finished."""
        return f"{self.folder('plans')}/paid/{shard_id}"

    @property
    def batches(self) -> str:
        """The folder of what was submitted to a provider's Batch API and is not fetched."""
        return f"{self.folder('plans')}/batches"

    def refusals(self, encoder_id: str, chunking_id: str) -> str:
        """Return the path of the documents with a text that the provider of an encoder refuses."""
        return f"{self.folder('refusals')}/{encoder_id[:32]}-{chunking_id[:32]}.json"

    @property
    def billed(self) -> str:
        """Path of what providers billed for the collection in all."""
        return f"{self.folder('billed')}/total.json"

    @property
    def billed_parts(self) -> str:
        """Return the folder of what was billed for shards, until a run that ends adds it to the total."""
        return f"{self.folder('billed')}/parts"

    def deletions(self, digest: str) -> str:
        """Return the path of a list of documents that are deleted but still in a part."""
        return f"{self.folder('deletions')}/{digest}.parquet"

    def quarantine(self, digest: str) -> str:
        """Return the path of a table of quarantined inputs, with reasons."""
        return f"{self.folder('quarantine')}/{digest}.parquet"

    def listing_record(self, documents_digest: str) -> str:
        """Return the path of the record of which files of the source gave the documents of a snapshot."""
        return f"{self.folder('listings')}/{documents_digest}.json"

    def listing_rows(self, digest: str) -> str:
        """Return the path of some rows of such a listing."""
        return f"{self.folder('listings')}/{digest}.parquet"

    def part_list(self, digest: str) -> str:
        """Return the path of a list of parts, which manifests with many parts name."""
        return f"{self.folder('parts')}/{digest}.json"

    def snapshot(self, number: int) -> str:
        """Return the path of the manifest of one snapshot; writing it is the commit."""
        return numbered(self.folder("snapshots"), number)

    def alias(self, alias: str) -> str:
        """Return the folder of the history of one alias, a numbered log."""
        return f"{self.folder('aliases')}/{checked_name(alias, 'alias')}"

    def alias_removals(self, alias: str) -> str:
        """Return the folder of the records that end an alias."""
        return f"{self.alias(alias)}/removed"

    def alias_removal(self, alias: str, number: int) -> str:
        """Return the path of the record that ends an alias at one entry of its history."""
        return numbered(self.alias_removals(alias), number)

    def serving_database(self, snapshot_id: str, files: str) -> str:
        """Return the path of a snapshot's DuckDB database; `files` differs after a compaction."""
        return f"{self.folder('serving')}/{snapshot_id}-{files[:16]}.duckdb"

    def serving_record(self, snapshot_id: str, files: str) -> str:
        """Return the path of the size and SHA-256 of the serving database, written after it."""
        return f"{self.folder('serving')}/{snapshot_id}-{files[:16]}.json"

    def lexical_index(self, snapshot_id: str, files: str) -> str:
        """Return the path of a snapshot's lexical index as earlier versions wrote it."""
        return f"{self.folder('lexical')}/{snapshot_id}-{files[:16]}.safetensors"

    def lexical_record(self, snapshot_id: str, files: str) -> str:
        """Return the path of the record of a snapshot's lexical index, written after the postings that it names."""
        return f"{self.folder('lexical')}/{snapshot_id}-{files[:16]}.json"

    def recall_record(self, snapshot_id: str, files: str) -> str:
        """Return the path of what was learned about the approximate searches of a snapshot."""
        return f"{self.folder('recall')}/{snapshot_id}-{files[:16]}.json"

    def remote_record(self, snapshot_id: str, files: str) -> str:
        """Return the path of the record of the groups that a snapshot is searched in without a local copy."""
        return f"{self.folder('remote')}/{snapshot_id}-{files[:16]}.json"

    def remote_group(self, digits: str) -> str:
        """Return the folder of one published group."""
        return f"{self.folder('remote')}/{digits}"

    def remote_group_record(self, digits: str) -> str:
        """Return the path of the record of a published group, written after its objects."""
        return f"{self.remote_group(digits)}/group.json"

    def remote_object(self, digits: str, name: str, sha256: str) -> str:
        """Return the path of an object of a published group; the name tells its content."""
        return f"{self.remote_group(digits)}/{name}-{sha256[:16]}.bin"

    def postings(self, part: str, digest: str) -> str:
        """Return the path of the postings of one part; `digest` identifies its chunks and the rules for words."""
        return f"{self.folder('lexical')}/{part}-{digest[:32]}.safetensors"

    def evaluation_set(self, name: str) -> str:
        """Return the folder of the versions of one evaluation set, a numbered log."""
        return f"{self.folder('evaluation')}/{checked_name(name, 'evaluation set')}"

    def evaluation_files(self, name: str, set_id: str) -> str:
        """Return the folder of the queries and judgements of one version."""
        return f"{self.evaluation_set(name)}/{set_id[:32]}"

    def verdicts(self, snapshot_id: str) -> str:
        """Return the folder of the verdicts on one snapshot, a numbered log."""
        return f"{self.folder('verdicts')}/{snapshot_id}"

    def answers(self, day: str) -> str:
        """Return the folder of the queries and hits that were logged on one day."""
        return f"{self.folder('answers')}/{day}"

    def reference_record(self, space_id: str) -> str:
        """Return the path of the record of the sample from the fit, which audits compare with."""
        return f"{self.folder('references')}/{space_id}.json"

    def reference_sample(self, space_id: str, digest: str) -> str:
        """Return the path of the raw vectors of that sample."""
        return f"{self.folder('references')}/{space_id}-{digest[:16]}.parquet"

    def kept_sample(self, seed: int) -> str:
        """Return the path of the chunks that samples with a seed are drawn from; every run overwrites it."""
        return f"{self.folder('samples')}/{seed}.parquet"

    @property
    def replacements(self) -> str:
        """Folder of the records of replaced snapshots, numbered by the old snapshot."""
        return f"{self.folder('forgotten')}/replaced"

    @property
    def receipts(self) -> str:
        """Folder of the receipts for tombstones, with the numbers of the tombstones."""
        return f"{self.folder('forgotten')}/receipts"


@dataclass(frozen=True, slots=True)
class CollectionFile:
    """A parsed path below the folder of a collection; `kind` is None for a file of no known kind."""

    collection: str
    kind: Kind | None


def parse_collection_path(path: str) -> CollectionFile | None:
    """Return the collection and the kind of a path; None if it is not in the folder of a collection."""
    top, _, rest = path.partition("/")
    name, _, inner = rest.partition("/")
    kind, _, file = inner.partition("/")
    if top != COLLECTIONS or not is_name(name) or not inner:
        return None
    return CollectionFile(name, cast("Kind", kind) if file and kind in _KINDS else None)


def list_collections(store: Store) -> list[str]:
    """Return the names of the collections of a store, sorted, including any without a snapshot."""
    return [name for name in store.folders(COLLECTIONS) if is_name(name)]


def list_encoders(store: Store) -> list[str]:
    """Return the IDs of the encoders of a store, sorted."""
    return [name for name in store.folders(ENCODERS) if len(name) == _ID_DIGITS]


def list_encoders_with_vectors(store: Store) -> list[str]:
    """Return the IDs of the encoders whose raw vectors are in a store, sorted."""
    return store.folders(VECTORS)


def list_spaces(store: Store) -> list[str]:
    """Return the IDs of the spaces of a store, sorted."""
    return store.folders(SPACES)


def encoder_folder(encoder_id: str) -> str:
    """Return the folder of one encoder: encoder.json and the files of the model."""
    return f"{ENCODERS}/{encoder_id}"


def encoder_document(encoder_id: str) -> str:
    """Return the path of the sealed description of one encoder."""
    return f"{encoder_folder(encoder_id)}/encoder.json"


def sparse_encoder_document(encoder_id: str) -> str:
    """Return the path of the sealed description of a sparse encoder; it has no encoder.json."""
    return f"{encoder_folder(encoder_id)}/sparse.json"


def encoder_model(encoder_id: str) -> str:
    """Return the folder of the files of the model."""
    return f"{encoder_folder(encoder_id)}/model"


def encoder_export(encoder_id: str, kind: str) -> str:
    """Return the path of the sealed description of an export: tokenizer, graph, or reference vectors."""
    return f"{encoder_folder(encoder_id)}/exports/{kind}.json"


def encoder_export_files(encoder_id: str, kind: str, export_id: str) -> str:
    """Return the folder of the files of one export; `export_id` identifies their content."""
    return f"{encoder_folder(encoder_id)}/exports/{kind}/{export_id[:16]}"


def encoder_lineage(encoder_id: str) -> str:
    """Return the path of the sealed record of a fine-tuned encoder's base model and training data."""
    return f"{encoder_folder(encoder_id)}/lineage.json"


def encoder_languages(encoder_id: str) -> str:
    """Return the path of the languages in the model card; the file exists only if there are any."""
    return f"{encoder_folder(encoder_id)}/languages.json"


def encoder_description(key: str) -> str:
    """Return the path of the encoder ID for a model and a recipe, which avoids loading the model."""
    return f"{ENCODERS}/described/{key}.json"


def encoder_rate(encoder_id: str) -> str:
    """Return the path of the measured encoding rates by device; every run overwrites it."""
    return f"{encoder_folder(encoder_id)}/rates.json"


def encoder_vectors(encoder_id: str) -> str:
    """Return the folder of all raw vectors of one encoder."""
    return f"{VECTORS}/{encoder_id}"


def vectors_folder(encoder_id: str, role: str) -> str:
    """Return the folder of the raw vectors of one encoder and role."""
    return f"{encoder_vectors(encoder_id)}/{role}"


def vector_index(encoder_id: str) -> str:
    """Return the folder of the index of an encoder's raw vectors of documents; it can be made again from them."""
    return f"{encoder_vectors(encoder_id)}/index"


def vector_index_manifests(encoder_id: str) -> str:
    """Return the folder of the manifests of that index, a numbered log; the last one counts."""
    return f"{vector_index(encoder_id)}/manifests"


def vector_index_levels(encoder_id: str) -> str:
    """Return the folder of the files that these manifests name."""
    return f"{vector_index(encoder_id)}/levels"


def vector_index_level(encoder_id: str, sha256: str) -> str:
    """Return the path of one level of that index, which is named by its content."""
    return f"{vector_index_levels(encoder_id)}/{sha256[:32]}.bin"


def vector_index_pending(encoder_id: str) -> str:
    """Return the folder of the lists of parts that may be written and are not in that index yet."""
    return f"{vector_index(encoder_id)}/pending"


def space_folder(space_id: str) -> str:
    """Return the folder of one sealed space."""
    return f"{SPACES}/{space_id}"


def report(run_id: str) -> str:
    """Return the path of the report of one run, as JSON."""
    return f"{REPORTS}/{run_id}/report.json"


def report_page(run_id: str) -> str:
    """Return the path of the report of one run, as HTML."""
    return f"{REPORTS}/{run_id}/report.html"


def report_quotes(run_id: str) -> str:
    """Return the path of the record of the documents that the report of one run quotes or names."""
    return f"{REPORTS}/{run_id}/quotes.json"


def comparison_figures(key: str) -> str:
    """Return the path of the metrics of one variant in a model comparison; `key` identifies its inputs."""
    return f"{COMPARISONS}/{key}.json"


def trash(token: str = "") -> str:
    """Return the folder of the files that one command is removing, or the folder of all such folders."""
    return f"{TRASH}/{token}" if token else TRASH


def removal_order(path: str) -> int:
    """Return the rank of a file among files that are removed together; the lowest goes first.

    Whoever is killed in between must not leave a snapshot with missing files: manifests go first, then records, then
    the files that they name. Documents and chunks come last, since `forget` learns from them what to search for.
    """
    file = parse_collection_path(path)
    kind = file.kind if file is not None else None
    if kind == "snapshots":
        return 0
    return 3 if kind in ("documents", "chunks") else 1 if path.endswith(".json") else 2


def run_leases() -> str:
    """Return the folder of the leases of runs that write."""
    return "leases/runs"


def maintenance_leases() -> str:
    """Return the folder of the leases of commands that delete files."""
    return "leases/upkeep"
