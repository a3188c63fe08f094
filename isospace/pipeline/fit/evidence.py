"""Evidence from queries for a fit: their mean, and retrieval trials to compare candidates on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from isospace.collection.raw_vectors import read_vectors, write_vectors
from isospace.collection.sampling import bottom_k
from isospace.collection.vector_files import vector_part_path
from isospace.encoding.bits import computed_by
from isospace.encoding.encoder import Encoder
from isospace.encoding.role_encoders import sentence_encoder_of
from isospace.errors import FitError
from isospace.ingest.pseudo_queries import Passage, PseudoQuery, choose_pseudo_kind, make_pseudo_queries
from isospace.ingest.query_files import read_judgements, read_queries
from isospace.pipeline.fit.sample import draw_sample, live_chunks, vectors_of
from isospace.pipeline.fit.trial import Trial
from isospace.pipeline.run import Run
from isospace.storage.hashing import fingerprint, sha256
from isospace.storage.store import Store
from isospace.transform.affine import Role
from isospace.transform.spec import QueriesSpec
from isospace.transform.vectors import Float32

# Chunks to search in a trial. More take longer, and changed the order of candidates in no experiment.
_POOL = 20_000
FEWEST_QUERIES = 20
# A document may give several queries, each another sentence, until there are enough.
_ROUNDS = 3
_COLUMNS = ["chunk_hash", "doc_id", "title", "prefix", "text"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """Raw vectors of queries, and trials.

    Attributes
    ----------
    queries
        (m, d) float32 raw vectors of queries or pseudo-queries, whose mean the fit uses.
    source
        What these queries are, in words.
    trials
        Trials to compare candidates on, each with its own queries; empty if there is nothing to choose.
    trial_source
        What the trials' queries are, in words.
    """

    queries: Float32
    source: str
    trials: tuple[Trial, ...]
    trial_source: str


def gather_evidence(run: Run, chunk_paths: Sequence[str], encoder: Encoder, *, choosing: bool) -> Evidence:
    """Encode queries, and prepare trials if a fit has to be chosen.

    Raises
    ------
    ConfigError
        If a query file cannot be read.
    FitError
        If there are too few queries.
    """
    spec = run.config.recipe.transform.queries
    texts = drawn_queries(spec, run.config.recipe.transform.sample.seed) if spec.file else {}
    if spec.judgements and choosing:
        trial = _judged_trial(run, chunk_paths, encoder, texts, Path(spec.judgements))
        source = f"{len(trial.names)} judged queries of {len(texts)}"
        return Evidence(_stored(run.store, encoder, list(texts.values()), "query"), source, (trial,), source)
    real = _stored(run.store, encoder, list(texts.values()), "query") if texts else None
    if real is not None and not choosing:
        return Evidence(real, f"{len(texts)} queries", (), "")
    passages, raw = _pool(run, chunk_paths, encoder.record.dimension)
    trials, kind = _pseudo_trials(run, encoder, passages, raw)
    count = sum(len(trial.names) for trial in trials)
    source = f"{count} {kind} of the corpus as pseudo-queries"
    if real is None:
        return Evidence(np.concatenate([trial.queries for trial in trials]), source, trials, source)
    return Evidence(real, f"{len(texts)} queries", trials, source)


def drawn_queries(spec: QueriesSpec, seed: int) -> dict[str, str]:
    """Return the sample of the file's queries that the fit uses, texts by ID."""
    texts = read_queries(Path(spec.file or ""))
    keys = {bytes.fromhex(sha256(f"{name}\n{text}".encode())): name for name, text in texts.items()}
    return {keys[key]: texts[keys[key]] for key in bottom_k(keys, spec.size, seed)}


def _pseudo_trials(run: Run, encoder: Encoder, passages: list[Passage], raw: Float32) -> tuple[tuple[Trial, ...], str]:
    spec, seed = run.config.recipe.transform.queries, run.config.recipe.transform.sample.seed
    kind = choose_pseudo_kind(passages, spec.pseudo)
    trials: list[Trial] = []
    wanted, taken = spec.size, set[str]()
    for number in range(_ROUNDS if kind == "sentences" else 1):
        queries = make_pseudo_queries(passages, kind, size=wanted, seed=seed + number, exclude=taken)
        if not queries:
            break
        trials.append(_pseudo_trial(run.store, encoder, passages, raw, queries))
        taken |= {query.text for query in queries}
        wanted -= len(queries)
        if wanted <= 0:
            break
    if (count := len({name for trial in trials for name in trial.names})) < FEWEST_QUERIES:
        raise FitError(
            f"the {kind} of {len(passages)} chunks give pseudo-queries for only {count} documents; expected "
            f"{FEWEST_QUERIES} or more. Provide recipe.transform.queries.file, or use a fit that needs no queries."
        )
    return tuple(trials), kind


def _pseudo_trial(
    store: Store, encoder: Encoder, passages: list[Passage], raw: Float32, queries: list[PseudoQuery]
) -> Trial:
    answers = {query.passage for query in queries}
    answering = {passages[row].doc_id for row in answers}
    # Other chunks of an answering document may overlap with the one that the query was taken from.
    rows = [row for row, passage in enumerate(passages) if row in answers or passage.doc_id not in answering]
    place = {row: position for position, row in enumerate(rows)}
    documents = raw[rows]
    remainders = _stored(store, encoder, [query.remainder for query in queries], "document")
    documents[[place[query.passage] for query in queries]] = remainders
    names = tuple(passages[query.passage].doc_id for query in queries)
    return Trial(
        documents=documents,
        owners=tuple(passages[row].doc_id for row in rows),
        queries=_stored(store, encoder, [query.text for query in queries], "query"),
        names=names,
        judgements={name: {name: 1} for name in names},
    )


def too_few_judged(path: Path, useful: int, queries: int) -> FitError:
    """Return the error for too few queries with a relevant document in the collection."""
    return FitError(
        f"{path}: only {useful} of {queries} queries have a relevant document in this collection; expected "
        f"{FEWEST_QUERIES} or more. Check that its doc_ids are those of this collection."
    )


def _judged_trial(run: Run, chunk_paths: Sequence[str], encoder: Encoder, texts: dict[str, str], path: Path) -> Trial:
    judgements = read_judgements(path)
    judged = {doc for name in texts for doc, relevance in judgements.get(name, {}).items() if relevance > 0}
    passages, raw = _pool(run, chunk_paths, encoder.record.dimension, always=judged)
    present = {passage.doc_id for passage in passages}
    useful = [
        name for name in texts if any(rel > 0 and doc in present for doc, rel in judgements.get(name, {}).items())
    ]
    if len(useful) < FEWEST_QUERIES:
        raise too_few_judged(path, len(useful), len(texts))
    queries = _stored(run.store, encoder, [texts[name] for name in useful], "query")
    owners = tuple(passage.doc_id for passage in passages)
    return Trial(raw, owners, queries, tuple(useful), {name: judgements[name] for name in useful})


def _pool(
    run: Run, chunk_paths: Sequence[str], dimension: int, *, always: Iterable[str] = ()
) -> tuple[list[Passage], Float32]:
    """Return a sample of chunks, and all chunks of the documents in `always`, with their raw vectors."""
    wanted = set(always)
    drawn = set(draw_sample(run, chunk_paths, _POOL))
    pool: dict[tuple[str, bytes], Passage] = {}
    # If documents share a text, only the first by name is in the pool, whatever the order of reading: a hit on another
    # would count as wrong.
    owner: dict[bytes, str] = {}
    for table in live_chunks(run, chunk_paths, _COLUMNS):
        for row in table.select(_COLUMNS).to_pylist():
            key, doc_id = row["chunk_hash"], row["doc_id"]
            if doc_id not in wanted and (key not in drawn or owner.get(key, doc_id) < doc_id):
                continue
            if doc_id not in wanted:
                pool.pop((owner.get(key, ""), key), None)
                owner[key] = doc_id
            pool[doc_id, key] = Passage(doc_id, row["title"], row["prefix"], row["text"])
    answered = {key for doc_id, key in pool if doc_id in wanted}
    order = sorted((doc_id, key) for doc_id, key in pool if doc_id in wanted or key not in answered)
    raw = vectors_of(run, [key for _, key in order], dimension=dimension)
    return [pool[name] for name in order], raw


def _stored(store: Store, encoder: Encoder, texts: Sequence[str], role: Role) -> Float32:
    """Return raw vectors of texts, from the store if the same texts were encoded before."""
    hashes = [bytes.fromhex(sha256(text.encode())) for text in texts]
    # The encoder of the role alone: raw vectors are stored under what computed them.
    own = sentence_encoder_of(encoder, role)
    encoder_id = own.record.encoder_id
    name = f"trial-{fingerprint(sorted(h.hex() for h in set(hashes)))[:32]}"
    path = vector_part_path(encoder_id, name, role)
    unique = list(dict.fromkeys(hashes))
    if not store.exists(path):
        by_hash = dict(zip(hashes, texts, strict=True))
        vectors = own.encode([by_hash[key] for key in unique], role)
        write_vectors(store, encoder_id, name, unique, vectors, provenance=computed_by(own), role=role)
    keys, vectors = read_vectors(store, path, encoder_id)
    rows = {key: row for row, key in enumerate(keys)}
    return vectors[[rows[key] for key in hashes]]
