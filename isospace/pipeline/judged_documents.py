"""Whether the gate's evaluation set judges documents of this collection, found out before anything is encoded.

A set of another corpus would cost a whole run: it is embedded, and then every measure is zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from isospace.collection.snapshot import deleted_documents
from isospace.collection.tombstones import forgotten_documents
from isospace.errors import ConfigError
from isospace.evaluation.gate.judge import gate_judgements
from isospace.evaluation.query_sets import EvaluationSet
from isospace.pipeline.chunk import StagedPart
from isospace.pipeline.run import Run
from isospace.pipeline.scan.diff import Scan
from isospace.storage.parquet import read_parquet
from isospace.storage.store import Store

# IDs such as 1, 2, 3 occur in many corpora: a few that agree by chance do not make a set fit. A pilot on a twentieth of
# the corpus is the smallest one whose gate can still say something.
LEAST_SHARE = 0.05
# Documents are removed over the years, and queries that only they answer count as misses on both sides of a comparison.
USUAL_SHARE = 0.9
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class JudgedDocuments:
    """How many documents that a set judges relevant the next snapshot will contain.

    Attributes
    ----------
    name
        Name of the evaluation set.
    judged, found
        Number of documents judged relevant, and of those among them that will be in the snapshot.
    missing
        IDs of some of the others.
    """

    name: str
    judged: int
    found: int
    missing: tuple[str, ...] = ()

    @property
    def is_usual(self) -> bool:
        """Whether no more are missing than are removed from a corpus over time."""
        return self.found >= USUAL_SHARE * self.judged

    def figure(self) -> str:
        """Return how many documents were found."""
        return f"{self.found:,} of {self.judged:,} are in the source (evaluation set {self.name})"

    def describe(self) -> str:
        """Return in a sentence how many documents were found, and some that were not."""
        some = f"; missing are {', '.join(map(repr, self.missing))}" if self.missing else ""
        more = self.judged - self.found - len(self.missing)
        return (
            f"evaluation set {self.name}: {self.found:,} of {self.judged:,} judged documents "
            f"({self.found / self.judged:.0%}) are in the source{some}{f' and {more:,} more' if more > 0 else ''}"
        )


def require_judged(run: Run, scan: Scan, parts: Sequence[StagedPart]) -> JudgedDocuments | None:
    """Look for the documents that the gate's queries are judged by; None if no rule needs judgements.

    Parameters
    ----------
    scan, parts
        What the snapshot will consist of: parts of the base that stay, and new ones.

    Raises
    ------
    ConfigError
        If fewer than `LEAST_SHARE` of them will be in the snapshot.
    """
    spec = run.config.recipe.gate
    query_set = gate_judgements(run.store, run.collection, spec)
    if query_set is None or not query_set.relevant:
        return None
    found = _found(run, scan, parts, query_set)
    # A plan is kept in reports, which must not name what was forgotten.
    missing = sorted(query_set.relevant - found - forgotten_documents(run.store, run.collection))
    result = JudgedDocuments(query_set.name, len(query_set.relevant), len(found), tuple(missing[:_SHOWN]))
    if result.found < LEAST_SHARE * result.judged:
        where = "recipe.gate.queries and recipe.gate.judgements" if spec.queries else "recipe.gate.set"
        raise ConfigError(
            f"{result.describe()}. Expected at least {LEAST_SHARE:.0%}: the set belongs to another corpus, or its "
            f"doc_ids are written differently. Set {where} to a set of this corpus, or remove the rules that need it."
        )
    return result


def _found(run: Run, scan: Scan, parts: Sequence[StagedPart], query_set: EvaluationSet) -> set[str]:
    wanted = pa.array(sorted(query_set.relevant), pa.string())
    deleted = deleted_documents(run.work_store, scan.deletions)
    found: set[str] = set()
    for store, name, path in _documents(run, scan, parts):
        ids = read_parquet(store, path, columns=["doc_id"])["doc_id"].cast(pa.string())
        found |= set(ids.filter(pc.is_in(ids, value_set=wanted)).to_pylist()) - deleted.get(name, set())
        if len(found) == len(wanted):
            break
    return found


def _documents(run: Run, scan: Scan, parts: Sequence[StagedPart]) -> Iterator[tuple[Store, str, str]]:
    """Yield store, name of the part, and path of every documents file of the next snapshot."""
    for part in parts:
        yield run.work_store, part.name, part.documents.path
    kept, base = set(scan.kept), run.base
    for record in base.parts if base is not None else ():
        if record.name in kept:
            yield run.store, record.name, record.documents.path
