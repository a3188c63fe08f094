"""What a fit learns from queries: their mean, and trials on which candidates are compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from isospace.collection.raw_vectors import read_vectors, vector_part_path, write_vectors
from isospace.collection.sampling import bottom_k
from isospace.encoding.encoder import SentenceEncoder
from isospace.errors import FitError
from isospace.ingest.pseudo_queries import Passage, PseudoQuery, choose_pseudo_kind, make_pseudo_queries
from isospace.ingest.query_files import read_judgements, read_queries
from isospace.pipeline.fit.sample import chunk_hashes, live_chunks, vectors_of
from isospace.pipeline.fit.trial import Trial
from isospace.pipeline.run import Run
from isospace.storage.hashing import fingerprint, sha256
from isospace.storage.store import Store
from isospace.transform.affine import Role
from isospace.transform.spec import QueriesSpec
from isospace.transform.vectors import Float32

# Chunks among which the answers have to be found. More cost time, and change no order of the candidates that was seen.
_POOL = 20_000
FEWEST_QUERIES = 20
# A document may ask several times, each time by another sentence, until there are enough queries.
_ROUNDS = 3
_COLUMNS = ["chunk_hash", "doc_id", "title", "prefix", "text"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """Raw vectors of queries, and trials.

    Attributes
    ----------
    queries
        (m, d) float32 raw vectors of what stands for queries; their mean is the queries' mean.
    source
        What they are, in words.
    trials
        Where candidates are compared, each with queries of its own; empty if nothing is to be chosen.
    trial_source
        What the trials' queries are, in words.
    """

    queries: Float32
    source: str
    trials: tuple[Trial, ...]
    trial_source: str


def gather_evidence(run: Run, chunk_paths: Sequence[str], encoder: SentenceEncoder, *, choosing: bool) -> Evidence:
    """Encode queries, and prepare trials if a fit is to be chosen.

    Raises
    ------
    ConfigError
        If a file of queries cannot be read.
    FitError
        If there are too few queries to learn from.
    """
    spec = run.config.recipe.transform.queries
    texts = _drawn_queries(spec, run.config.recipe.transform.sample.seed) if spec.file else {}
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
    found = f"{count} {kind} of the corpus as pseudo-queries"
    if real is None:
        return Evidence(np.concatenate([trial.queries for trial in trials]), found, trials, found)
    return Evidence(real, f"{len(texts)} queries", trials, found)


def _drawn_queries(spec: QueriesSpec, seed: int) -> dict[str, str]:
    texts = read_queries(Path(spec.file or ""))
    keys = {bytes.fromhex(sha256(f"{name}\n{text}".encode())): name for name, text in texts.items()}
    return {keys[key]: texts[keys[key]] for key in bottom_k(keys, spec.size, seed)}


def _pseudo_trials(
    run: Run, encoder: SentenceEncoder, passages: list[Passage], raw: Float32
) -> tuple[tuple[Trial, ...], str]:
    spec, seed = run.config.recipe.transform.queries, run.config.recipe.transform.sample.seed
    kind = choose_pseudo_kind(passages, spec.pseudo)
    trials: list[Trial] = []
    wanted, taken = spec.size, set[str]()
    for number in range(_ROUNDS if kind == "sentences" else 1):
        made = make_pseudo_queries(passages, kind, size=wanted, seed=seed + number, exclude=taken)
        if not made:
            break
        trials.append(_pseudo_trial(run.store, encoder, passages, raw, made))
        taken |= {query.text for query in made}
        wanted -= len(made)
        if wanted <= 0:
            break
    if (count := len({name for trial in trials for name in trial.names})) < FEWEST_QUERIES:
        raise FitError(
            f"only {count} documents of {len(passages)} chunks could be asked for by {kind}; expected "
            f"{FEWEST_QUERIES} or more. Give recipe.transform.queries.file, or a fit that needs no queries."
        )
    return tuple(trials), kind


def _pseudo_trial(
    store: Store, encoder: SentenceEncoder, passages: list[Passage], raw: Float32, made: list[PseudoQuery]
) -> Trial:
    answers = {query.passage for query in made}
    asked = {passages[row].doc_id for row in answers}
    # Other chunks of the document may overlap with the one the query was taken from.
    kept = [row for row, passage in enumerate(passages) if row in answers or passage.doc_id not in asked]
    place = {row: position for position, row in enumerate(kept)}
    documents = raw[kept]
    remainders = _stored(store, encoder, [query.remainder for query in made], "document")
    documents[[place[query.passage] for query in made]] = remainders
    names = tuple(passages[query.passage].doc_id for query in made)
    return Trial(
        documents=documents,
        owners=tuple(passages[row].doc_id for row in kept),
        queries=_stored(store, encoder, [query.text for query in made], "query"),
        names=names,
        judgements={name: {name: 1} for name in names},
    )


def few_judged(path: Path, useful: int, queries: int) -> FitError:
    """Return the error for too few queries with a relevant document in the collection."""
    return FitError(
        f"{path}: only {useful} of {queries} queries have a relevant document in this collection; expected "
        f"{FEWEST_QUERIES} or more. Do its doc_ids belong to this collection?"
    )


def _judged_trial(
    run: Run, chunk_paths: Sequence[str], encoder: SentenceEncoder, texts: dict[str, str], path: Path
) -> Trial:
    judgements = read_judgements(path)
    judged = {doc for name in texts for doc, relevance in judgements.get(name, {}).items() if relevance > 0}
    passages, raw = _pool(run, chunk_paths, encoder.record.dimension, always=judged)
    present = {passage.doc_id for passage in passages}
    useful = [
        name for name in texts if any(rel > 0 and doc in present for doc, rel in judgements.get(name, {}).items())
    ]
    if len(useful) < FEWEST_QUERIES:
        raise few_judged(path, len(useful), len(texts))
    queries = _stored(run.store, encoder, [texts[name] for name in useful], "query")
    owners = tuple(passage.doc_id for passage in passages)
    return Trial(raw, owners, queries, tuple(useful), {name: judgements[name] for name in useful})


def _pool(
    run: Run, chunk_paths: Sequence[str], dimension: int, *, always: Iterable[str] = ()
) -> tuple[list[Passage], Float32]:
    """Return a sample of chunks, and all chunks of the documents that have to be in it, with their raw vectors."""
    seed, wanted = run.config.recipe.transform.sample.seed, set(always)
    drawn = set(bottom_k(chunk_hashes(run, chunk_paths), _POOL, seed))
    found: dict[tuple[str, bytes], Passage] = {}
    # Of documents with the same text the first by name answers for it, in whatever order they were read: another would
    # be an answer that counts as wrong.
    owner: dict[bytes, str] = {}
    for table in live_chunks(run, chunk_paths, _COLUMNS):
        for row in table.select(_COLUMNS).to_pylist():
            key, doc_id = row["chunk_hash"], row["doc_id"]
            if doc_id not in wanted and (key not in drawn or owner.get(key, doc_id) < doc_id):
                continue
            if doc_id not in wanted:
                found.pop((owner.get(key, ""), key), None)
                owner[key] = doc_id
            found[doc_id, key] = Passage(doc_id, row["title"], row["prefix"], row["text"])
    answered = {key for doc_id, key in found if doc_id in wanted}
    order = sorted((doc_id, key) for doc_id, key in found if doc_id in wanted or key not in answered)
    raw = vectors_of(run, [key for _, key in order], dimension=dimension)
    return [found[name] for name in order], raw


def _stored(store: Store, encoder: SentenceEncoder, texts: Sequence[str], role: Role) -> Float32:
    """Return raw vectors of texts, from the store if the very same texts were asked for before."""
    hashes = [bytes.fromhex(sha256(text.encode())) for text in texts]
    encoder_id = encoder.record.encoder_id
    name = f"trial-{fingerprint(sorted(h.hex() for h in set(hashes)))[:32]}"
    path = vector_part_path(encoder_id, name, role)
    unique = list(dict.fromkeys(hashes))
    if not store.exists(path):
        by_hash = dict(zip(hashes, texts, strict=True))
        vectors = encoder.encode([by_hash[key] for key in unique], role)
        write_vectors(store, encoder_id, name, unique, vectors, provenance=encoder.backend.engine(), role=role)
    keys, vectors = read_vectors(store, path, encoder_id)
    rows = {key: row for row, key in enumerate(keys)}
    return vectors[[rows[key] for key in hashes]]
