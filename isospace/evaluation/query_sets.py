"""Evaluation sets: frozen queries of a collection, with or without judgements; versioned and immutable.

A set is identified by a hash of its content. A name has numbered versions, the highest of which is current.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from isospace.collection.tombstones import forgotten_documents
from isospace.errors import ConfigError, NotFoundError
from isospace.ingest.query_files import Judgements
from isospace.storage.hashing import fingerprint, seal
from isospace.storage.numbered_log import append, read_all
from isospace.storage.parquet import FileRef, parse_parquet, read_verified, write_parquet
from isospace.storage.paths import CollectionPaths, is_name, numbered
from isospace.storage.store import Store

Kind = Literal["judged", "unjudged", "pseudo"]
_OWN_COLUMNS = ("query_id", "text", "remainder")


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """Frozen queries.

    Attributes
    ----------
    kind
        `judged`; `unjudged`, which only shows agreement; or `pseudo`, made from the corpus, with easier queries.
    queries
        Texts by query_id.
    judgements
        Relevance by query_id and doc_id; may be empty.
    attributes
        Other columns of the queries, such as their language: values by column and query_id.
    remainders
        For pseudo-queries: by query_id, the text of its chunk without the query.
    """

    name: str
    kind: Kind
    queries: dict[str, str]
    judgements: Judgements = field(default_factory=dict)
    attributes: dict[str, dict[str, str]] = field(default_factory=dict)
    remainders: dict[str, str] = field(default_factory=dict)

    @property
    def set_id(self) -> str:
        """Fingerprint of everything but the name."""
        return fingerprint(
            {
                "kind": self.kind,
                "queries": self.queries,
                "judgements": self.judgements,
                "attributes": self.attributes,
                "remainders": self.remainders,
            }
        )

    @property
    def judged(self) -> Judgements:
        """Judgements of the set's queries that have a relevant document."""
        return {name: docs for name, docs in self.judgements.items() if name in self.queries and any(docs.values())}

    @property
    def relevant(self) -> set[str]:
        """Documents that answer a query of the set."""
        return {doc for docs in self.judged.values() for doc, value in docs.items() if value > 0}

    def answers(self, query_id: str) -> tuple[str, ...]:
        """Return the documents that answer a query, sorted; the text of a pseudo-query is taken from them."""
        return tuple(sorted(doc for doc, value in self.judgements.get(query_id, {}).items() if value > 0))

    def without_answers(self, doc_ids: Set[str]) -> EvaluationSet:
        """Return the set without the queries that only these documents answer.

        A pseudo-query is a sentence of the document that answers it: it goes if any of them is judged.
        """

        def goes(name: str) -> bool:
            found = set(self.judgements.get(name, ())) if self.kind == "pseudo" else set(self.answers(name))
            return bool(found & doc_ids) if self.kind == "pseudo" else bool(found) and found <= doc_ids

        return self.without({name for name in self.queries if goes(name)})

    def without(self, query_ids: Set[str]) -> EvaluationSet:
        """Return the set without these queries."""

        def left(by_query: Mapping[str, Any]) -> dict[str, Any]:
            return {name: value for name, value in by_query.items() if name not in query_ids}

        return replace(
            self,
            queries=left(self.queries),
            judgements=left(self.judgements),
            attributes={column: left(values) for column, values in self.attributes.items()},
            remainders=left(self.remainders),
        )


class SetRecord(BaseModel):
    """One version of an evaluation set."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    number: int
    set_id: str
    kind: Kind
    queries: int
    judged: int
    source: str
    created_at: str
    queries_file: FileRef
    judgements_file: FileRef | None

    @property
    def files(self) -> tuple[FileRef, ...]:
        """The files of its queries and judgements."""
        return (self.queries_file,) if self.judgements_file is None else (self.queries_file, self.judgements_file)


def freeze_set(store: Store, collection: str, query_set: EvaluationSet, *, source: str) -> SetRecord:
    """Write a set as the next version of its name, unless it equals the current version.

    Queries that only forgotten documents answer are left out.

    Parameters
    ----------
    store, collection
        The collection that the set belongs to.
    query_set
        The set.
    source
        Where it comes from, for people.

    Raises
    ------
    ConfigError
        If it has no queries, or if it is judged and no query has a relevant document.
    """
    query_set = without_forgotten(store, collection, query_set)
    if not query_set.queries:
        raise ConfigError(f"evaluation set {query_set.name!r}: has no queries. Give a file with the column text.")
    if query_set.kind == "judged" and not query_set.judged:
        raise ConfigError(
            f"evaluation set {query_set.name!r}: none of its {len(query_set.queries)} queries has a relevant "
            "document in the judgements. Check that both files use the same query_ids."
        )

    def make(number: int) -> SetRecord | None:
        versions = set_versions(store, collection, query_set.name)
        if versions and versions[-1].set_id == query_set.set_id:
            return None
        return _written(store, collection, query_set, source, number=number)

    written = append(store, CollectionPaths(collection).evaluation_set(query_set.name), make)
    record = written or set_versions(store, collection, query_set.name)[-1]
    if any(not store.exists(ref.path) for ref in record.files):
        # An erasure removed them as files that no version named yet.
        record = replace_version(store, collection, record, query_set)
    # An erasure records its request before it looks for sets, so that one of the two sees the other.
    left = without_forgotten(store, collection, query_set)
    return record if left.set_id == query_set.set_id else replace_version(store, collection, record, left)


def without_forgotten(store: Store, collection: str, query_set: EvaluationSet) -> EvaluationSet:
    """Return a set without the queries that only forgotten documents of a collection answer."""
    forgotten = forgotten_documents(store, collection)
    return query_set.without_answers(forgotten) if forgotten else query_set


def replace_version(store: Store, collection: str, old: SetRecord, query_set: EvaluationSet) -> SetRecord:
    """Rewrite a version of a set in place. Versions never change otherwise: only `forget` needs this."""
    record = _written(store, collection, query_set, old.source, number=old.number)
    rewritten = record.model_copy(update={"created_at": old.created_at})
    store.write(
        numbered(CollectionPaths(collection).evaluation_set(query_set.name), old.number),
        seal(rewritten.model_dump(mode="json")),
    )
    named = {ref.path for version in set_versions(store, collection, query_set.name) for ref in version.files}
    for ref in old.files:
        if ref.path not in named:
            store.delete(ref.path)
    return rewritten


def set_versions(store: Store, collection: str, name: str) -> list[SetRecord]:
    """Return the versions of a set, oldest first; empty if there is no such set."""
    return read_all(store, CollectionPaths(collection).evaluation_set(name), SetRecord)


def list_sets(store: Store, collection: str) -> list[SetRecord]:
    """Return the current version of every set of a collection."""
    names = [name for name in store.folders(CollectionPaths(collection).folder("evaluation")) if is_name(name)]
    return [versions[-1] for name in names if (versions := set_versions(store, collection, name))]


def read_set(store: Store, collection: str, name: str, *, set_id: str | None = None) -> EvaluationSet:
    """Read the current version of a set, or the one with a set_id.

    Raises
    ------
    NotFoundError
        If there is no such set or version; the message lists the sets that exist.
    IntegrityError
        If a file differs from what was frozen.
    """
    versions = set_versions(store, collection, name)
    fitting = [record for record in versions if set_id in (None, record.set_id)]
    if not fitting:
        known = ", ".join(record.name for record in list_sets(store, collection)) or "none"
        which = f"version {set_id[:16]}… of " if set_id and versions else ""
        raise NotFoundError(
            f"{which}evaluation set {name!r} of collection {collection!r}: not found. Sets: {known}. Freeze one with "
            "`isospace sets add`, or make one from the corpus with `isospace sets make`."
        )
    return read_version(store, fitting[-1])


def _written(store: Store, collection: str, query_set: EvaluationSet, source: str, *, number: int) -> SetRecord:
    folder = CollectionPaths(collection).evaluation_files(query_set.name, query_set.set_id)
    names = list(query_set.queries)
    columns: dict[str, Any] = {
        "query_id": pa.array(names, pa.string()),
        "text": pa.array(query_set.queries.values(), pa.string()),
    }
    if query_set.remainders:
        columns["remainder"] = pa.array([query_set.remainders.get(name) for name in names], pa.string())
    for column, values in query_set.attributes.items():
        columns[column] = pa.array([values.get(name) for name in names], pa.string())
    queries = write_parquet(
        store, f"{folder}/queries.parquet", pa.table(columns), metadata={"set_id": query_set.set_id}
    )
    judgements = None
    if query_set.judgements:
        rows = [(query, doc, value) for query, docs in query_set.judgements.items() for doc, value in docs.items()]
        table = pa.table(
            {
                "query_id": pa.array([row[0] for row in rows], pa.string()),
                "doc_id": pa.array([row[1] for row in rows], pa.string()),
                "relevance": pa.array([row[2] for row in rows], pa.int64()),
            }
        )
        judgements = write_parquet(store, f"{folder}/qrels.parquet", table, metadata={"set_id": query_set.set_id})
    return SetRecord(
        name=query_set.name,
        number=number,
        set_id=query_set.set_id,
        kind=query_set.kind,
        queries=len(query_set.queries),
        judged=len(query_set.judged),
        source=source,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        queries_file=queries,
        judgements_file=judgements,
    )


def read_version(store: Store, record: SetRecord) -> EvaluationSet:
    """Read one version of a set; IntegrityError if a file differs from what was frozen."""
    table = parse_parquet(read_verified(store, record.queries_file), record.queries_file.path)
    rows = table.to_pydict()
    names = rows["query_id"]
    judgements: Judgements = {}
    if record.judgements_file is not None:
        file = record.judgements_file
        judged = parse_parquet(read_verified(store, file), file.path).to_pydict()
        for query, doc, value in zip(judged["query_id"], judged["doc_id"], judged["relevance"], strict=True):
            judgements.setdefault(query, {})[doc] = value
    return EvaluationSet(
        name=record.name,
        kind=record.kind,
        queries=dict(zip(names, rows["text"], strict=True)),
        judgements=judgements,
        attributes={column: _present(names, rows[column]) for column in rows if column not in _OWN_COLUMNS},
        remainders=_present(names, rows.get("remainder", [None] * len(names))),
    )


def _present(names: list[str], values: list[str | None]) -> dict[str, str]:
    return {name: value for name, value in zip(names, values, strict=True) if value is not None}
