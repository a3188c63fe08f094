"""Learn how approximate searches of a snapshot reach a declared recall, or take over what was learned before."""

from __future__ import annotations

import random
from collections.abc import Sequence

from isospace.collection.snapshot import Manifest
from isospace.errors import ConfigError, IntegrityError
from isospace.evaluation.gate.judge import gate_set
from isospace.evaluation.norms import sample_rows
from isospace.evaluation.pseudo_query_set import make_set
from isospace.pipeline.resources import driver_engine, run_encoder
from isospace.pipeline.run import Run
from isospace.search.approximate.learn import FEWEST, learn_recall
from isospace.search.approximate.record import (
    LearnedRecall,
    parse_recall,
    read_recall,
    recall_path,
    write_recall,
)
from isospace.search.open_index import open_index
from isospace.search.view import View
from isospace.storage.store import Store
from isospace.transform.space import Space
from isospace.transform.vectors import Float32

QUERIES = 600
"""Queries to learn from and to measure on, together."""
EXCERPT_WORDS = 8
"""Words of a chunk that serve as a query, if the corpus has no sentences to make queries of."""
FEWEST_CHUNKS = 1_000
"""Below, every search is exact."""
# How much a collection may grow or shrink before it is learned again.
_SAME_SIZE = 0.1


def prepare_recall(run: Run, manifest: Manifest, space: Space) -> str:
    """Write the recall record of a snapshot unless it has one; return what was done, empty for nothing.

    What was learned on a snapshot in the same space holds for later ones of nearly the same size: cells and estimates
    depend on the space alone.
    """
    if space.transform.cells is None or manifest.chunks < FEWEST_CHUNKS:
        return ""
    try:
        if read_recall(run.store, manifest) is not None:
            return ""
    except IntegrityError:
        # With a damaged record no index opens: it is learned again.
        run.store.delete(recall_path(manifest))
    earlier = _earlier(run.store, manifest)
    if earlier is not None:
        write_recall(run.store, manifest, earlier)
        return f"approximate searches keep the rules that were learned on snapshot {earlier.snapshot}"
    with open_index(
        run.store, run.collection, str(manifest.sequence), engine=driver_engine(run.config), encoder=run_encoder(run)
    ) as index:
        view = index.view
        if view.approximate is None:
            return "approximate searches are not possible: they need unit vectors and the package faiss-cpu"
        source, queries = _queries(run, view)
        learned = learn_recall(
            view.approximate,
            view.copy.codes[index.representation],
            view.finest,
            queries,
            source=source,
            space_id=manifest.space_id,
            snapshot=manifest.sequence,
        )
    write_recall(run.store, manifest, learned)
    return describe(learned)


def describe(learned: LearnedRecall) -> str:
    """Say in a sentence what was learned."""
    best = [one for one in learned.measured if one.neighbors == 10 and one.declared == 0.99]
    figures = "".join(
        f": for a recall@10 of {one.declared:g}, {one.cells:.0f} cells with {one.rows:,.0f} rows; measured "
        f"{one.recall:.4f} ({one.low:.4f} to {one.high:.4f})"
        for one in best
    )
    return f"learned {len(learned.rules)} rules for approximate searches from {learned.learned_from} queries{figures}"


def _queries(run: Run, view: View) -> tuple[str, Float32]:
    """Return where queries are from, and their vectors: judged ones, else pseudo-queries, else words of chunks.

    The vectors of chunks would not do: their neighbors are nearer than those of queries, and easier to find.
    """
    spec = run.config.recipe.gate
    judged = gate_set(run.store, run.collection, spec) if spec.rules else None
    if judged is not None and judged.kind != "pseudo" and len(judged.queries) >= 2 * FEWEST:
        texts = list(judged.queries.values())[:QUERIES]
        return "judged queries", view.space.embed(texts, "query")
    try:
        made = make_set(view, "recall", size=QUERIES)
    except ConfigError:
        made = None
    if made is not None and len(made.queries) >= 2 * FEWEST:
        return "pseudo-queries", view.space.embed(list(made.queries.values()), "query")
    chance = random.Random(0)
    words = [text.split() for text in view.texts(sample_rows(view, QUERIES, seed=0).tolist())]
    return "excerpts", view.space.embed([_excerpt(own, chance) for own in words if own], "query")


def _excerpt(words: Sequence[str], chance: random.Random) -> str:
    first = chance.randint(0, max(0, len(words) - EXCERPT_WORDS))
    return " ".join(words[first : first + EXCERPT_WORDS])


def _earlier(store: Store, manifest: Manifest) -> LearnedRecall | None:
    """Return what was learned last in the same space, on a snapshot of about the same size."""
    stats = sorted(store.walk(manifest.paths.folder("recall")), key=lambda one: -one.modified)
    for stat in stats:
        try:
            learned = parse_recall(store.read(stat.path), stat.path)
        except IntegrityError:
            continue
        is_near = abs(learned.chunks - manifest.chunks) <= _SAME_SIZE * learned.chunks
        if learned.space_id == manifest.space_id and is_near:
            return learned
    return None
