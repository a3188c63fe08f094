"""Group queries, so that a mean does not hide that one kind of them got worse."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from isospace.evaluation.languages import detect_languages
from isospace.evaluation.query_sets import EvaluationSet
from isospace.search.metadata import parse_metadata
from isospace.search.view import View

_FEWEST, _MOST_VALUES = 5, 20
_LENGTHS = ((5, "up to 5"), (10, "6 to 10"), (20, "11 to 20"))


def slices_of(query_set: EvaluationSet, *views: View) -> dict[str, dict[str, list[str]]]:
    """Group the queries of a set.

    Parameters
    ----------
    query_set
        The evaluation set.
    *views
        Snapshots whose metadata is used; if a document is in several, that of the first. Production comes first, so
        that a group does not shrink to the documents that a candidate has kept.

    Returns
    -------
    dict
        Query IDs by column and value: the columns of the set's own file, `words` and detected `language` of the query,
        `languages` for queries that documents in another language answer (such as `de to en`), and metadata and folder
        (`source`) of the relevant documents. Groups with fewer than five queries, and columns with more than twenty
        values, are left out.
    """
    columns: dict[str, dict[str, list[str]]] = {"words": defaultdict(list)}
    for name, text in query_set.queries.items():
        columns["words"][_length(len(text.split()))].append(name)
    for column, values in query_set.attributes.items():
        for name, value in values.items():
            columns.setdefault(column, defaultdict(list))[value].append(name)
    for column, values in _languages(query_set, views).items():
        if column not in query_set.attributes:
            columns[column] = defaultdict(list)
            for name, value in values.items():
                columns[column][value].append(name)
    for name, attributes in _of_documents(query_set, views).items():
        for column, value in attributes.items():
            if column not in query_set.attributes:
                columns.setdefault(column, defaultdict(list))[value].append(name)
    return {column: usable for column, groups in columns.items() if (usable := _usable(groups))}


def _languages(query_set: EvaluationSet, views: Sequence[View]) -> dict[str, dict[str, str]]:
    """Return the language of each query, and of query and answer if they differ; nothing for a single language."""
    names = list(query_set.queries)
    own = {
        name: code for name, code in zip(names, detect_languages(list(query_set.queries.values())), strict=True) if code
    }
    across = {
        name: f"{own[name]} to {code}"
        for name, code in _answer_languages(query_set, views).items()
        if name in own and own[name] != code
    }
    columns = {"language": own, "languages": across}
    return {column: values for column, values in columns.items() if len(set(values.values())) > (column == "language")}


def _answer_languages(query_set: EvaluationSet, views: Sequence[View]) -> dict[str, str]:
    """Return by query the language in which most of its relevant documents begin."""
    wanted = query_set.relevant
    spoken: dict[str, str | None] = {}
    for view in views:
        documents = view.copy.documents["doc_id"].to_pylist()
        first: dict[str, int] = {}
        for row in view.copy.rows:
            owner = view.copy.owners[row]
            if documents[owner] in wanted and documents[owner] not in spoken:
                first.setdefault(documents[owner], int(row))
        spoken.update(zip(first, detect_languages(view.texts(first.values())), strict=True))
    languages = {}
    for name, judged in query_set.judged.items():
        counts = Counter(code for doc, value in judged.items() if value > 0 and (code := spoken.get(doc)))
        if counts:
            languages[name] = counts.most_common(1)[0][0]
    return languages


def _usable(groups: dict[str, list[str]]) -> dict[str, list[str]]:
    if len(groups) > _MOST_VALUES:
        return {}
    return {value: names for value, names in sorted(groups.items()) if len(names) >= _FEWEST}


def _length(words: int) -> str:
    return next((label for most, label in _LENGTHS if words <= most), "more than 20")


def _of_documents(query_set: EvaluationSet, views: Sequence[View]) -> dict[str, dict[str, str]]:
    """Return by query the most common metadata values of its relevant documents."""
    wanted = query_set.relevant
    described: dict[str, dict[str, str]] = {}
    for view in views:
        table = view.copy.live_documents.select(["doc_id", "uri", "metadata"])
        for row in (row for batch in table.to_batches(max_chunksize=4096) for row in batch.to_pylist()):
            if row["doc_id"] in wanted and row["doc_id"] not in described:
                described[row["doc_id"]] = {"source": source_of(row["uri"]), **_simple(row["metadata"])}
    attributes = {}
    for name, documents in query_set.judged.items():
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for doc, value in documents.items():
            for column, text in described.get(doc, {}).items() if value > 0 else ():
                counts[column][text] += 1
        attributes[name] = {column: count.most_common(1)[0][0] for column, count in counts.items()}
    return attributes


def source_of(uri: str) -> str:
    """Return the source of a document: the folder of a file, or the table of a row."""
    place = uri.split("#", 1)[0]
    folders = place.rstrip("/").split("/")
    return folders[-1] if "#" in uri or len(folders) < 2 else folders[-2]


def _simple(metadata: str) -> dict[str, str]:
    return {name: str(value) for name, value in parse_metadata(metadata).items() if isinstance(value, str | int | bool)}
