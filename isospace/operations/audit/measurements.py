"""Measure an opened snapshot: everything that alarms and reports are based on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from isospace.collection.cell_sizes import CellSizes, measure_cells
from isospace.collection.live_rows import live_rows
from isospace.collection.snapshot import Manifest, read_manifest
from isospace.encoding.registry.model_card import stored_card_languages
from isospace.errors import NotFoundError
from isospace.evaluation.baseline_sample import Reference
from isospace.evaluation.drift import FEWEST_SHIFTED
from isospace.evaluation.languages import language_shares
from isospace.evaluation.neighbours import nearest_cosines
from isospace.evaluation.norms import sample_rows
from isospace.evaluation.query_sets import list_sets, read_set
from isospace.evaluation.stored_vectors import StoredVectors, measure_stored
from isospace.operations.audit.frozen_queries import Baseline, FrozenResults, measure_frozen
from isospace.operations.audit.logged_queries import LogResults, measure_logged
from isospace.operations.audit.metrics import (
    CorpusChange,
    ReproducedVectors,
    StoredCodes,
    measure_corpus_change,
    measure_representations,
    measure_reproduced,
)
from isospace.operations.audit.query_log import read_answers
from isospace.search.view import View
from isospace.storage.store import Store
from isospace.transform.representations import PqSpec
from isospace.transform.space import SpaceRecord
from isospace.transform.vectors import Float64

_LANGUAGE_SAMPLE = 2_000
FEWEST_FITTED = 100
"""Documents in a fit's sample from which on a change of the corpus is called drift."""


@dataclass(frozen=True, slots=True)
class Measurements:
    """The measurements of one snapshot, with their arrays."""

    view: View
    reference: Reference
    """The sample from the time of the fit, which the snapshot is compared with."""
    tolerance: float
    """Least cosine at which a vector counts as reproduced."""
    query_tolerance: float
    """Least cosine at which a logged query counts as reproduced: queries may have another encoder."""
    stored: StoredVectors
    reproduced: ReproducedVectors
    corpus: CorpusChange
    languages: dict[str, float]
    """Share of each language in a sample of chunks, largest first."""
    model_languages: tuple[str, ...] | None
    """The languages on the model's card; None if it names none."""
    frozen: FrozenResults | None
    """None if the collection has no evaluation set."""
    lost_baseline: int | None
    """Number of the baseline's snapshot if its files are gone; else None."""
    logged: LogResults | None
    """None if no answers were logged."""
    codes: tuple[StoredCodes, ...]
    """Each stored representation, searched for the frozen queries."""
    nearest: Float64
    """(m,) cosines of a sample of chunks with their nearest neighbors."""
    cells: CellSizes | None = None
    """How evenly cells divide the snapshot; None if its space has none."""
    drift_problem: str = ""
    """Why drift since the fit means nothing here; empty if it means something."""

    def notes(self) -> list[str]:
        """List what could not be measured, and why."""
        few = min(self.stored.sampled)
        new = self.corpus.new_chunks
        notes = []
        if self.drift_problem:
            notes.append(f"drift since the fit was not measured: {self.drift_problem}")
        elif self.corpus.drift is None:
            notes.append(f"{new} chunks were added since the fit: too few, or from too few documents, to measure drift")
        if few < FEWEST_SHIFTED:
            notes.append(f"{few} different texts are too few to measure shifts of dimensions")
        if self.frozen is None:
            notes.append("there is no evaluation set: freeze queries with `isospace sets add` or `isospace sets make`")
        if self.lost_baseline is not None:
            lost = f"the files of snapshot {self.lost_baseline}, the baseline of the frozen queries, are gone"
            notes.append(f"{lost}: their agreement was not measured")
        if self.logged is None:
            notes.append("no answers were logged: serve with --log to audit queries too")
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
    reference
        The sample from the time of the fit.
    alias, since
        Logged answers are read if they were given under this alias, at or after this time.
    set_name
        Evaluation set whose queries are searched; by default `default`, or else the first one.
    baselines
        Baselines of earlier audits, oldest first.
    tolerance
        Least cosine at which a vector counts as reproduced; by default that of the space.
    seed
        Seed of the samples.
    on_progress
        Called with the name of each measurement before it begins.
    """
    least, of_queries = tolerances_of(view.space.space.record, tolerance)
    on_progress("lengths, isotropy, and shifts of stored vectors")
    stored = measure_stored(store, view, reference, seed=seed)
    on_progress("re-encoding a sample of chunks")
    reproduced = measure_reproduced(view, tolerance=least, seed=seed)
    on_progress("drift of the corpus since the fit")
    problem = drift_problem(view.space.space.record, reference)
    corpus = measure_corpus_change(store, view, reference, seed=seed, drifts=not problem)
    on_progress("languages of a sample")
    languages = language_shares(view, sample_rows(view, _LANGUAGE_SAMPLE, seed).tolist())
    on_progress("frozen queries")
    frozen, lost_baseline = _frozen(store, view, set_name, baselines)
    on_progress("logged queries")
    logged = _logged(store, view, alias, since, frozen, tolerance=of_queries, seed=seed)
    on_progress("stored representations")
    codes = measure_representations(view, frozen.vectors) if frozen is not None else ()
    return Measurements(
        view=view,
        reference=reference,
        tolerance=least,
        query_tolerance=of_queries,
        stored=stored,
        reproduced=reproduced,
        corpus=corpus,
        languages=languages,
        model_languages=stored_card_languages(store, view.manifest.encoder_id),
        frozen=frozen,
        lost_baseline=lost_baseline,
        logged=logged,
        codes=codes,
        nearest=nearest_cosines(view, seed=seed),
        cells=_cells(store, view),
        drift_problem=problem,
    )


def tolerances_of(space: SpaceRecord, given: float | None) -> tuple[float, float]:
    """Return the least cosines at which a stored vector and a logged query count as reproduced."""
    return (given, given) if given else (space.tolerances["document"], space.tolerances["query"])


def _cells(store: Store, view: View) -> CellSizes | None:
    cells, manifest = view.space.space.transform.cells, view.manifest
    return None if cells is None else measure_cells(store, manifest.parts, manifest.deletions, cells.count)


def drift_problem(space: SpaceRecord, reference: Reference) -> str:
    """Return why drift since the fit means nothing for a space; empty if it does.

    Drift is a reason to fit again. Where nothing was fitted, a corpus may change as it likes, and a collection that
    was small at the fit mostly grows.
    """
    learned = [spec.name for spec in space.spec.representations if isinstance(spec, PqSpec)]
    if space.fitted.kind == "none" and not learned:
        return "nothing was fitted, so that a refit would change nothing"
    documents = len(set(reference.owners))
    if documents < FEWEST_FITTED:
        return (
            f"the space was fitted on {documents} documents, and how so small a collection grows is no drift; refit "
            f"once there are {FEWEST_FITTED}"
        )
    return ""


def _frozen(
    store: Store, view: View, set_name: str | None, baselines: Sequence[Baseline]
) -> tuple[FrozenResults | None, int | None]:
    """Return the frozen queries, and the number of their baseline's snapshot if its files are gone."""
    collection = view.manifest.collection
    known = [record.name for record in list_sets(store, collection)]
    name = set_name or ("default" if "default" in known else next(iter(known), None))
    if name is None:
        return None, None
    queries = read_set(store, collection, name)
    same = (queries.set_id, view.manifest.space_id)
    before = next((baseline for baseline in baselines if (baseline.set_id, baseline.space_id) == same), None)
    unchanged = _unchanged(store, view.manifest, before.snapshot) if before is not None else None
    lost = before.snapshot if before is not None and unchanged is None else None
    return measure_frozen(view, queries, before, unchanged), lost


def _logged(
    store: Store, view: View, alias: str, since: datetime, frozen: FrozenResults | None, *, tolerance: float, seed: int
) -> LogResults | None:
    logged = read_answers(store, view.manifest.collection, since=since)
    answers = [answer for answer in logged if answer.alias == alias]
    if not answers:
        return None
    # Pseudo-queries are sentences of the corpus, which say nothing about what users ask.
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
