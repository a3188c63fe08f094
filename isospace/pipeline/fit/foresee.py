"""Refuse a fit that cannot work before anything is encoded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from isospace.encoding.registry.record import EncoderRecord
from isospace.errors import FitError
from isospace.ingest.query_files import read_judgements
from isospace.pipeline.chunk import StagedPart
from isospace.pipeline.encode.shards import EncodePlan
from isospace.pipeline.fit.evidence import FEWEST_QUERIES, drawn_queries, too_few_judged
from isospace.pipeline.run import Run
from isospace.storage.parquet import read_parquet
from isospace.transform.cells_spec import cell_count, cell_sample
from isospace.transform.fit import require_sample
from isospace.transform.quantizers.product import require_training_sample
from isospace.transform.representations import PqSpec
from isospace.transform.spec import AutoSpec


def require_fit(run: Run, plan: EncodePlan, parts: Sequence[StagedPart], record: EncoderRecord) -> None:
    """Check that the collection is large enough for the fit, the codebooks, the cells, and the choice among fits.

    A run that fits a space rebuilds every part, so that its plan counts every text of the collection.

    Raises
    ------
    FitError
        If the fit would fail for that reason.
    """
    if run.space_id is not None:
        return
    spec = run.config.recipe.transform
    if not plan.distinct:
        raise FitError("the collection has no chunks to fit a space on. Embed a source with readable text.")
    sampled = min(plan.distinct, spec.sample.size)
    if spec.needs_queries:
        _require_queries(run, parts)
    if not isinstance(spec.fit, AutoSpec):
        require_sample(sampled, spec.truncate or record.dimension, spec.fit, min_ratio=spec.sample.min_ratio)
    for representation in spec.representations:
        if isinstance(representation, PqSpec):
            require_training_sample(representation, sampled)
    if spec.cells is not None:
        wanted = max(spec.sample.size, cell_sample(spec.cells, chunks=plan.chunks))
        cell_count(spec.cells, chunks=plan.chunks, sampled=min(plan.distinct, wanted))


def _require_queries(run: Run, parts: Sequence[StagedPart]) -> None:
    spec = run.config.recipe.transform
    queries, is_automatic = spec.queries, isinstance(spec.fit, AutoSpec)
    if queries.file and not is_automatic:
        # Their mean is all that the fit needs.
        return
    doc_ids = {
        doc_id
        for part in parts
        for doc_id in read_parquet(run.work_store, part.documents.path, columns=["doc_id"])["doc_id"].to_pylist()
    }
    if queries.file and queries.judgements:
        judged = read_judgements(Path(queries.judgements))
        names = drawn_queries(queries, spec.sample.seed)
        useful = sum(any(rel > 0 and doc in doc_ids for doc, rel in judged.get(name, {}).items()) for name in names)
        if useful < FEWEST_QUERIES:
            raise too_few_judged(Path(queries.judgements), useful, len(names))
    elif len(doc_ids) < FEWEST_QUERIES:
        # Pseudo-queries are counted by the document that answers them.
        raise FitError(
            f"recipe.transform.fit needs queries, and the collection has {len(doc_ids)} documents: pseudo-queries from "
            f"at least {FEWEST_QUERIES} documents are needed. Provide recipe.transform.queries.file"
            f"{' with judgements' if is_automatic else ''}, or use a fit that needs no queries, such as kind none."
        )
