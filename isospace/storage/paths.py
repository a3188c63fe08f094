"""Names of everything in a store, relative to its prefix. See docs/format.md."""

from __future__ import annotations

import re

from isospace.errors import ConfigError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_SEQUENCE = re.compile(r"(\d{8})\.json$")


def encoder_folder(encoder_id: str) -> str:
    """Folder of one encoder: encoder.json and the model's files."""
    return f"encoders/{encoder_id}"


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
    return f"encoders/described/{key}.json"


def encoder_rate(encoder_id: str) -> str:
    """Measured encoding rates by device; provenance, overwritten by every run."""
    return f"{encoder_folder(encoder_id)}/rates.json"


def vectors_folder(encoder_id: str, role: str) -> str:
    """Folder of the raw vectors of one encoder and role."""
    return f"vectors/{encoder_id}/{role}"


def space_folder(space_id: str) -> str:
    """Folder of one sealed space."""
    return f"spaces/{space_id}"


def documents_part(collection: str, part: str) -> str:
    """Documents of one part."""
    return f"collections/{collection}/documents/{part}.parquet"


def chunks_part(collection: str, part: str) -> str:
    """Chunks of one part; `part` derives from its documents and from how they were cut."""
    return f"collections/{collection}/chunks/{part}.parquet"


def segment(collection: str, space_id: str, part: str) -> str:
    """Vectors and codes of one part in one space; `part` is that of the chunks, row by row."""
    return f"collections/{collection}/segments/{space_id}/{part}.parquet"


def plan_shards(collection: str, plan_id: str) -> str:
    """Rows of the shards of one plan."""
    return f"collections/{collection}/plans/{plan_id}.parquet"


def deletions(collection: str, digest: str) -> str:
    """Documents of older parts that a snapshot no longer has."""
    return f"collections/{collection}/deletions/{digest}.parquet"


def quarantine(collection: str, digest: str) -> str:
    """Table of inputs that a run set aside, with reasons."""
    return f"collections/{collection}/quarantine/{digest}.parquet"


def snapshots_folder(collection: str) -> str:
    """Folder of the numbered commits of a collection."""
    return f"collections/{checked_name(collection, 'collection')}/snapshots"


def aliases_folder(collection: str) -> str:
    """Folder of the aliases of a collection."""
    return f"collections/{checked_name(collection, 'collection')}/aliases"


def alias_folder(collection: str, alias: str) -> str:
    """Folder of the history of one alias."""
    return f"{aliases_folder(collection)}/{checked_name(alias, 'alias')}"


def is_name(name: str) -> bool:
    """Tell whether a name can be that of a collection or an alias."""
    return _NAME.fullmatch(name) is not None


def checked_name(name: str, what: str) -> str:
    """Return a name that is safe as a folder, or raise ConfigError."""
    if not is_name(name):
        raise ConfigError(f"{what} {name[:60]!r}: expected 1 to 100 letters, digits, dots, dashes and underscores.")
    return name


def numbered(folder: str, sequence: int) -> str:
    """File of one number in an append-only folder."""
    return f"{folder}/{sequence:08d}.json"


def sequence_of(path: str) -> int | None:
    """Return the number of a file made by `numbered`, or None for any other file."""
    match = _SEQUENCE.search(path)
    return int(match.group(1)) if match else None


def serving_database(collection: str, snapshot_id: str, files: str) -> str:
    """DuckDB database of one snapshot in these files: after a compaction, equal content lies in others."""
    return f"collections/{collection}/serving/{snapshot_id}-{files[:16]}.duckdb"


def serving_record(collection: str, snapshot_id: str, files: str) -> str:
    """Size and SHA-256 of the serving database, written after it."""
    return f"collections/{collection}/serving/{snapshot_id}-{files[:16]}.json"


def lexical_index(collection: str, snapshot_id: str, files: str) -> str:
    """BM25 index of one snapshot in these files: equal content in other files has its rows in another order."""
    return f"collections/{collection}/lexical/{snapshot_id}-{files[:16]}.safetensors"


def lexical_record(collection: str, snapshot_id: str, files: str) -> str:
    """Tokenizer, size and SHA-256 of the BM25 index, written after it."""
    return f"collections/{collection}/lexical/{snapshot_id}-{files[:16]}.json"


def report(run_id: str) -> str:
    """Report of one run."""
    return f"reports/{run_id}/report.json"


def evaluations_folder(collection: str) -> str:
    """Folder of the evaluation sets of a collection."""
    return f"collections/{checked_name(collection, 'collection')}/evaluation"


def evaluation_folder(collection: str, name: str) -> str:
    """Folder of the versions of one evaluation set."""
    return f"{evaluations_folder(collection)}/{checked_name(name, 'evaluation set')}"


def evaluation_files(collection: str, name: str, set_id: str) -> str:
    """Folder of the queries and judgements of one version."""
    return f"{evaluation_folder(collection, name)}/{set_id[:32]}"


def verdicts_folder(collection: str, snapshot_id: str) -> str:
    """Folder of the verdicts on one snapshot, numbered."""
    return f"collections/{checked_name(collection, 'collection')}/verdicts/{snapshot_id}"


def answers_folder(collection: str) -> str:
    """Folder of logged answers, a folder a day."""
    return f"collections/{checked_name(collection, 'collection')}/answers"


def reference_record(collection: str, space_id: str) -> str:
    """Record of the sample that audits compare with: what the collection was when its space was fitted."""
    return f"collections/{checked_name(collection, 'collection')}/references/{space_id}.json"


def reference_sample(collection: str, space_id: str, digest: str) -> str:
    """Raw vectors of that sample."""
    return f"collections/{checked_name(collection, 'collection')}/references/{space_id}-{digest[:16]}.parquet"


def audits_folder(collection: str) -> str:
    """Folder of the outcomes of audits of one collection, numbered."""
    return f"collections/{checked_name(collection, 'collection')}/audits"


def report_page(run_id: str) -> str:
    """Report of one run as a page."""
    return f"reports/{run_id}/report.html"


def contest_figures(key: str) -> str:
    """Figures of one variant of a contest, by the fingerprint of what they depend on."""
    return f"contests/{key}.json"


def run_leases() -> str:
    """Folder of the leases of runs that write."""
    return "leases/runs"


def upkeep_leases() -> str:
    """Folder of the leases of what deletes files."""
    return "leases/upkeep"


def forgotten_folder(collection: str) -> str:
    """Folder of the orders to forget documents, numbered."""
    return f"collections/{checked_name(collection, 'collection')}/forgotten"


def replacements_folder(collection: str) -> str:
    """Folder of the notes which snapshot took whose place."""
    return f"{forgotten_folder(collection)}/replaced"


def forgotten_receipts(collection: str) -> str:
    """Folder of the receipts for these orders, numbered alike."""
    return f"{forgotten_folder(collection)}/receipts"
