"""Retrieval metrics, computed by trec_eval through ir-measures.

Its rule for ties is fixed: equal scores rank by document ID in descending order, so that a run has a unique value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from isospace.errors import ConfigError
from isospace.ingest.query_files import Judgements

Run: TypeAlias = dict[str, dict[str, float]]
MEASURES = ("nDCG@10", "R@10", "R@100", "RR@10", "AP")
# Names that people use, and those of ir-measures.
_NAMES = {
    "ndcg": "nDCG", "recall": "R", "r": "R", "mrr": "RR", "rr": "RR", "map": "AP", "ap": "AP", "precision": "P",
    "p": "P", "success": "Success",
}  # fmt: skip
_WRITTEN = re.compile(r"(?P<name>[a-z]+)(?:@(?P<depth>[1-9]\d{0,3}))?", re.IGNORECASE)


def measure_name(written: str) -> str:
    """Return the name of a metric in ir-measures.

    Parameters
    ----------
    written
        Such as `ndcg@10`, `recall@100`, `mrr`, `map`, or `precision@5`.

    Raises
    ------
    ConfigError
        If the metric is unknown.
    """
    match = _WRITTEN.fullmatch(written.strip())
    name = _NAMES.get(match["name"].lower()) if match else None
    if match is None or name is None or (name in ("P", "R", "Success") and not match["depth"]):
        raise ConfigError(
            f"metric {written!r}: expected ndcg, recall, mrr, map, precision, or success, with a depth such as @10."
        )
    return f"{name}@{match['depth']}" if match["depth"] else name


def per_query(run: Run, judgements: Judgements, measures: Sequence[str] = MEASURES) -> dict[str, dict[str, float]]:
    """Compute metrics for each query.

    Parameters
    ----------
    run
        Scores by query_id and doc_id.
    judgements
        Relevance by query_id and doc_id.
    measures
        Metrics as ir-measures names them.

    Returns
    -------
    dict
        Values by metric and query_id, for every judged query; 0 without hits.
    """
    import ir_measures

    parsed = {_parse(name): name for name in measures}
    values: dict[str, dict[str, float]] = {name: dict.fromkeys(judgements, 0.0) for name in measures}
    for result in ir_measures.iter_calc(list(parsed), judgements, _judged_only(run, judgements)):
        values[parsed[result.measure]][result.query_id] = float(result.value)
    return values


def measure(run: Run, judgements: Judgements, measures: Sequence[str] = MEASURES) -> dict[str, float]:
    """Compute the means of metrics over the judged queries; see `per_query`."""
    values = per_query(run, judgements, measures)
    return {name: sum(by_query.values()) / max(len(by_query), 1) for name, by_query in values.items()}


def _judged_only(run: Run, judgements: Mapping[str, Any]) -> Run:
    return {query: scores for query, scores in run.items() if query in judgements}


def _parse(name: str) -> Any:
    import ir_measures

    return ir_measures.parse_measure(name)
