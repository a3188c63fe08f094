"""Read evaluation sets from files: tables of queries and judgements, or a folder in the layout of BEIR."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from isospace.errors import ConfigError
from isospace.evaluation.query_sets import EvaluationSet
from isospace.ingest.query_files import name_texts, read_columns, read_ids, read_judgements, read_queries

_MOST_VALUES = 50


def load_set(name: str, queries: Path, judgements: Path | None = None, *, split: str = "test") -> EvaluationSet:
    """Read an evaluation set.

    Parameters
    ----------
    name
        Name of the set.
    queries
        A file with the columns text and query_id, a text file with one query per line, or a folder: of BEIR
        (`queries.jsonl`, `qrels/SPLIT.tsv`), or with `queries.parquet` and `qrels.parquet`.
    judgements
        A file with query_id, doc_id, and relevance.
    split
        Name of the judgements in a BEIR folder.

    Raises
    ------
    ConfigError
        If a file cannot be read or lacks a column.
    """
    if queries.is_dir():
        return _from_folder(name, queries, judgements, split)
    texts = read_queries(queries)
    relevance = read_judgements(judgements) if judgements else {}
    return EvaluationSet(name, "judged" if judgements else "unjudged", texts, relevance, _attributes(queries, texts))


def _from_folder(name: str, folder: Path, judgements: Path | None, split: str) -> EvaluationSet:
    if (folder / "queries.parquet").is_file():
        qrels = judgements or folder / "qrels.parquet"
        return load_set(name, folder / "queries.parquet", qrels if qrels.is_file() else None)
    if not (folder / "queries.jsonl").is_file():
        raise ConfigError(
            f"{folder}: contains neither queries.parquet nor BEIR's queries.jsonl. Give the path of a file instead."
        )
    path = folder / "queries.jsonl"
    rows = read_columns(path, ["_id", "text"], optional=["metadata"])
    texts = name_texts(path, rows["text"], rows["_id"], "_id")
    tsv = judgements or folder / "qrels" / f"{split}.tsv"
    if not tsv.is_file():
        return EvaluationSet(name, "unjudged", texts)
    relevance = read_judgements(tsv, ("query-id", "corpus-id", "score"))
    # The judgements of a split determine its queries.
    return EvaluationSet(name, "judged", {key: text for key, text in texts.items() if key in relevance}, relevance)


def _attributes(path: Path, texts: dict[str, str]) -> dict[str, dict[str, str]]:
    """Return the columns with few different values, by which results can be sliced."""
    if path.suffix == ".txt":
        return {}
    rows = read_columns(path, ["text"], every=True)
    names = list(read_ids(path, rows.get("query_id", range(1, len(rows["text"]) + 1)), "query_id"))
    attributes = {}
    for column, values in rows.items():
        if column in ("query_id", "text", "remainder") or not _are_few(values):
            continue
        by_query = {
            name: str(value) for name, value in zip(names, values, strict=True) if value is not None and name in texts
        }
        if by_query:
            attributes[column] = by_query
    return attributes


def _are_few(values: list[Any]) -> bool:
    present = [value for value in values if value is not None]
    return all(isinstance(value, str | int | bool) for value in present) and 0 < len(set(present)) <= _MOST_VALUES
