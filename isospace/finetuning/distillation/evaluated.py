"""Which queries of an evaluation set a static model is measured on, and which documents its fit leaves out for them.

A model is measured on documents that it was not fitted to. People judge a few documents of a collection, which are all
left out. A set of pseudo-queries has a sentence of every document, if it can: of these, a sample is measured.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from isospace.collection.live_rows import live_rows
from isospace.collection.snapshot import Manifest
from isospace.errors import ConfigError, NotFoundError
from isospace.evaluation.query_sets import EvaluationSet, read_set
from isospace.finetuning.distillation.settings import DistillSettings
from isospace.storage.hashing import sha256
from isospace.storage.store import Store

# As many as are held out to measure the nearest texts.
_SHARE = 0.1
# A set of pseudo-queries has no fewer.
_FEW = 20


@dataclass(frozen=True, slots=True)
class Evaluated:
    """The queries to measure a static model on.

    Attributes
    ----------
    query_set
        The set, with these queries alone.
    judged
        Number of judged queries of the whole set.
    left_out
        Documents that the fit leaves out; empty if it is to include them.
    """

    query_set: EvaluationSet
    judged: int
    left_out: frozenset[str]

    def describe(self) -> str:
        """Say in words what is measured, on what."""
        count = len(self.query_set.judged)
        some = f"{count:,}" if count == self.judged else f"{count:,} of {self.judged:,}"
        kind = "pseudo-queries" if self.query_set.kind == "pseudo" else "queries"
        answers = f"the {len(self.query_set.relevant):,} documents that answer them"
        fitted = f"{answers} were left out of the fit" if self.left_out else f"{answers} were fitted"
        few = "" if count >= _FEW or count == self.judged else f"; {count} say little: --fit-evaluated measures all"
        return f"{some} {kind} of set {self.query_set.name!r}; {fitted}{few}"


def choose_evaluated(
    store: Store, manifest: Manifest, settings: DistillSettings, inform: Callable[[str], object]
) -> Evaluated | None:
    """Choose the queries to measure on; without the name of a set, of the one named default if it is judged.

    Parameters
    ----------
    inform
        Called with a line if there are none, though there is a set.

    Raises
    ------
    ConfigError
        If the named set has no judgements.
    NotFoundError
        If there is no set of that name.
    """
    query_set = _judged_set(store, manifest.collection, settings.evaluation)
    if query_set is None:
        return None
    judged = len(query_set.judged)
    if settings.fit_evaluated:
        return Evaluated(query_set, judged, frozenset())
    if query_set.kind == "pseudo":
        query_set = sampled(query_set, _texts_of(store, manifest))
        if not query_set.judged:
            inform(
                f"set {query_set.name!r}: no document of snapshot {manifest.sequence} that answers one of its {judged} "
                f"pseudo-queries has at most {_SHARE:.0%} of the texts; nDCG@10 is not measured"
            )
            return None
    return Evaluated(query_set, judged, frozenset(query_set.relevant))


def sampled(query_set: EvaluationSet, texts_of: Mapping[str, int]) -> EvaluationSet:
    """Return a set with some of its queries, whose documents have at most a tenth of the texts.

    The sample depends on the texts of the queries, and not on their names or order.

    Parameters
    ----------
    texts_of
        Number of texts by document. Queries that only other documents answer are not drawn.
    """
    room = int(_SHARE * sum(texts_of.values()))
    taken: set[str] = set()
    drawn: set[str] = set()
    for name in sorted(query_set.judged, key=lambda name: sha256(query_set.queries[name].encode())):
        answers = {doc for doc in query_set.answers(name) if doc in texts_of}
        needed = sum(texts_of[doc] for doc in answers - taken)
        if answers and needed <= room:
            room -= needed
            taken |= answers
            drawn.add(name)
    return query_set.without(set(query_set.queries) - drawn)


def _judged_set(store: Store, collection: str, name: str | None) -> EvaluationSet | None:
    try:
        query_set = read_set(store, collection, name or "default")
    except NotFoundError:
        if name is not None:
            raise
        return None
    if name is not None and not query_set.judged:
        raise ConfigError(
            f"evaluation set {name!r}: has no judgements, so that nDCG@10 cannot be measured. Name another one, or add "
            "judgements with `isospace sets add --judgements FILE`."
        )
    return query_set if query_set.judged else None


def _texts_of(store: Store, manifest: Manifest) -> Counter[str]:
    counts: Counter[str] = Counter()
    for table in live_rows(store, manifest, "chunks", ["doc_id"]):
        counts.update(table["doc_id"].to_pylist())
    return counts
