"""Measures of retrieval, by the standard library of the field.

They are those of trec_eval (by way of ir-measures), whose tie rule is fixed: equal scores rank by document id, falling,
so that a run has one value and not several.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from isospace.errors import ConfigError
from isospace.ingest.query_files import Judgements

Run: TypeAlias = dict[str, dict[str, float]]
MEASURES = ("nDCG@10", "R@10", "R@100", "RR@10", "AP")
# As people write them, and as ir-measures does.
_NAMES = {
    "ndcg": "nDCG", "recall": "R", "r": "R", "mrr": "RR", "rr": "RR", "map": "AP", "ap": "AP", "precision": "P", "p": "P",
    "success": "Success",
}  # fmt: skip
_WRITTEN = re.compile(r"(?P<name>[a-z]+)(?:@(?P<depth>[1-9]\d{0,3}))?", re.IGNORECASE)


def measure_name(written: str) -> str:
    """Return the name that ir-measures has for a measure.

    Parameters
    ----------
    written
        Such as `ndcg@10`, `recall@100`, `mrr`, `map`, `precision@5`.

    Raises
    ------
    ConfigError
        For a measure that is not known.
    """
    match = _WRITTEN.fullmatch(written.strip())
    name = _NAMES.get(match["name"].lower()) if match else None
    if match is None or name is None or (name in ("P", "R", "Success") and not match["depth"]):
        raise ConfigError(
            f"measure {written!r}: expected ndcg, recall, mrr, map, precision or success, with a depth such as @10."
        )
    return f"{name}@{match['depth']}" if match["depth"] else name


def per_query(run: Run, judgements: Judgements, measures: Sequence[str] = MEASURES) -> dict[str, dict[str, float]]:
    """Compute measures query by query.

    Parameters
    ----------
    run
        Scores by query_id and doc_id.
    judgements
        Relevance by query_id and doc_id.
    measures
        Names as ir-measures has them.

    Returns
    -------
    dict
        By measure and query_id; every judged query is there, with 0 for one that found nothing.
    """
    import ir_measures

    parsed = {_parse(name): name for name in measures}
    values: dict[str, dict[str, float]] = {name: dict.fromkeys(judgements, 0.0) for name in measures}
    for found in ir_measures.iter_calc(list(parsed), judgements, _asked(run, judgements)):
        values[parsed[found.measure]][found.query_id] = float(found.value)
    return values


def measure(run: Run, judgements: Judgements, measures: Sequence[str] = MEASURES) -> dict[str, float]:
    """Compute means over the judged queries; parameters as `per_query` has them, in the order asked for."""
    values = per_query(run, judgements, measures)
    return {name: sum(found.values()) / max(len(found), 1) for name, found in values.items()}


def _asked(run: Run, judgements: Mapping[str, Any]) -> Run:
    return {name: found for name, found in run.items() if name in judgements}


def _parse(name: str) -> Any:
    import ir_measures

    return ir_measures.parse_measure(name)
