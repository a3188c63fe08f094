"""Measure a snapshot that could be opened: everything that alarms are raised from and reports are drawn from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from isospace.collection.live_rows import live_rows
from isospace.collection.snapshot import Manifest, read_manifest
from isospace.encoding.registry.model_card import stored_card_languages
from isospace.errors import NotFoundError
from isospace.evaluation.baseline_sample import Reference
from isospace.evaluation.drift import FEWEST_SHIFTED
from isospace.evaluation.languages import language_shares
from isospace.evaluation.norms import sample_rows
from isospace.evaluation.query_sets import list_sets, read_set
from isospace.evaluation.stored_vectors import StoredVectors, measure_stored
from isospace.operations.audit.frozen_queries import Baseline, Frozen, measure_frozen
from isospace.operations.audit.logged_queries import Logged, measure_logged
from isospace.operations.audit.metrics import (
    CorpusChange,
    Reproduced,
    StoredCodes,
    measure_new,
    measure_representations,
    measure_reproduced,
)
from isospace.operations.audit.query_log import read_answers
from isospace.search.view import View
from isospace.storage.store import Store

_LANGUAGE_SAMPLE = 2_000


@dataclass(frozen=True, slots=True)
class Measurements:
    """What was measured of one snapshot, with its arrays.

    Attributes
    ----------
    view
        The snapshot.
    reference
        The sample from the time of the fit that it was compared with.
    tolerance
        Least cosine at which a vector counts as reproduced.
    stored
        Its vectors.
    reproduced
        Some of them against the same texts encoded again.
    corpus
        What came since the fit.
    languages, model_languages
        Share of each language in a sample, largest first; the languages on the model's card, None if it names none.
    frozen
        The frozen queries; None if the collection has no evaluation set.
    lost_baseline
        Number of the snapshot that the frozen queries would be compared with, if its files are gone.
    logged
        Logged queries; None if no answers were logged.
    codes
        Each stored representation, searched for the frozen queries.
    """

    view: View
    reference: Reference
    tolerance: float
    stored: StoredVectors
    reproduced: Reproduced
    corpus: CorpusChange
    languages: dict[str, float]
    model_languages: tuple[str, ...] | None
    frozen: Frozen | None
    lost_baseline: int | None
    logged: Logged | None
    codes: tuple[StoredCodes, ...]

    def notes(self) -> list[str]:
        """Return what could not be measured, and why."""
        few = min(self.stored.sampled)
        new = self.corpus.new_chunks
        notes = []
        if self.corpus.drift is None:
            notes.append(f"{new} chunks came since the fit: too few, or of too few documents, to tell a drift")
        if few < FEWEST_SHIFTED:
            notes.append(f"{few} different texts are too few to tell whether dimensions have shifted")
        if self.frozen is None:
            notes.append("there is no evaluation set: freeze queries with `isospace sets add`, or `isospace sets make`")
        if self.lost_baseline is not None:
            lost = f"the files of snapshot {self.lost_baseline}, the baseline of the frozen queries, are gone"
            notes.append(f"{lost}: no agreement")
        if self.logged is None:
            notes.append("no answers were logged: serve with --log to watch queries too")
        return notes


def measure(
    store: Store,
    view: View,
    reference: Reference,
    *,
    alias: str,
    since: datetime,
    set_name: str | None = None,
    baselines: Sequence[Baseline] = (),
    tolerance: float | None = None,
    seed: int = 0,
    on_progress: Callable[[str], None] = lambda _: None,
) -> Measurements:
    """Measure an opened snapshot.

    Parameters
    ----------
    store, view
        The snapshot.
    reference
        From the time of the fit.
    alias
        Whose logged answers are read.
    since
        Logged answers before it are not read.
    set_name
        Evaluation set whose queries are asked; `default`, or else the first there is, if not given.
    baselines
        What frozen queries found in earlier audits, oldest first.
    tolerance
        Least cosine at which a vector counts as reproduced; that of the space if not given.
    seed
        Of the samples.
    on_progress
        Is called with the name of each measurement before it begins.
    """
    least = tolerance or view.space.space.record.min_cosine
    on_progress("lengths, isotropy, and shifts of stored vectors")
    stored = measure_stored(store, view, reference, seed=seed)
    on_progress("encoding a sample of chunks again")
    reproduced = measure_reproduced(view, tolerance=least, seed=seed)
    on_progress("drift of the corpus since the fit")
    corpus = measure_new(store, view, reference, seed=seed)
    on_progress("languages of a sample")
    languages = language_shares(view, sample_rows(view, _LANGUAGE_SAMPLE, seed).tolist())
    on_progress("frozen queries")
    frozen, lost_baseline = _frozen(store, view, set_name, baselines)
    on_progress("logged queries")
    logged = _logged(store, view, alias, since, frozen, tolerance=least, seed=seed)
    on_progress("stored representations")
    codes = measure_representations(view, frozen.vectors) if frozen is not None else ()
    return Measurements(
        view=view,
        reference=reference,
        tolerance=least,
        stored=stored,
        reproduced=reproduced,
        corpus=corpus,
        languages=languages,
        model_languages=stored_card_languages(store, view.manifest.encoder_id),
        frozen=frozen,
        lost_baseline=lost_baseline,
        logged=logged,
        codes=codes,
    )


def _frozen(
    store: Store, view: View, set_name: str | None, baselines: Sequence[Baseline]
) -> tuple[Frozen | None, int | None]:
    """Return the frozen queries, and the number of their baseline's snapshot if its files are gone."""
    collection = view.manifest.collection
    known = [record.name for record in list_sets(store, collection)]
    name = set_name or ("default" if "default" in known else next(iter(known), None))
    if name is None:
        return None, None
    queries = read_set(store, collection, name)
    same = (queries.set_id, view.manifest.space_id)
    before = next((one for one in baselines if (one.set_id, one.space_id) == same), None)
    unchanged = _unchanged(store, view.manifest, before.snapshot) if before is not None else None
    lost = before.snapshot if before is not None and unchanged is None else None
    return measure_frozen(view, queries, before, unchanged), lost


def _logged(
    store: Store, view: View, alias: str, since: datetime, frozen: Frozen | None, *, tolerance: float, seed: int
) -> Logged | None:
    logged = read_answers(store, view.manifest.collection, since=since)
    answers = [answer for answer in logged if answer.alias == alias]
    if not answers:
        return None
    # Sentences of the corpus are no measure of what people ask.
    vectors = frozen.vectors if frozen is not None and frozen.kind != "pseudo" else None
    return measure_logged(store, view, alias, answers, vectors, tolerance=tolerance, seed=seed)


def _unchanged(store: Store, manifest: Manifest, other: int) -> frozenset[str] | None:
    """Return the documents that are the same in another snapshot; None if its files are gone."""
    if other == manifest.sequence:
        return frozenset(name for name, _ in _contents(store, manifest))
    try:
        then = frozenset(_contents(store, read_manifest(store, manifest.collection, other)))
    except NotFoundError:
        return None
    return frozenset(name for name, content in _contents(store, manifest) if (name, content) in then)


def _contents(store: Store, manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Yield doc_id and doc_hash of every live document."""
    for table in live_rows(store, manifest, "documents", ["doc_id", "doc_hash"]):
        yield from zip(table["doc_id"].to_pylist(), table["doc_hash"].to_pylist(), strict=True)
