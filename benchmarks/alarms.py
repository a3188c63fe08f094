"""Every alarm on real data: faults injected into a snapshot of SciFact, and 20 clean reruns.

    python -m benchmarks.alarms FOLDER_WITH_COLLECTIONS [--work FOLDER]

The space is fitted on 4,000 abstracts; the other 1,183 are added later, without a fault. Half of the queries are
frozen, the other half are logged. The foreign domain is software documentation.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.retrieval import CHUNKING_NONE, MODEL
from flows.embed_corpus import embed_corpus
from isospace.collection.alias import promote
from isospace.collection.snapshot import latest_manifest, read_manifest
from isospace.evaluation.query_sets import EvaluationSet, freeze_set
from isospace.ingest.query_files import read_judgements, read_queries
from isospace.operations.audit.audit import Audit, audit_alias, write_audit
from isospace.operations.audit.query_log import AnswerLog, LoggedAnswer
from isospace.operations.audit.thresholds import Thresholds
from isospace.pipeline.config import PipelineConfig
from isospace.search.index import Index
from isospace.search.open_index import open_index
from isospace.search.options import SearchOptions
from isospace.service.query_logging import Watcher
from isospace.storage.store import Store, open_store
from tests.helpers.forging import forge_vectors

FITTED, RERUNS, FOREIGN = 4_000, 20, 150
PROMPTS = {"query": "question: ", "document": ""}
Change = Callable[[LoggedAnswer], LoggedAnswer]


class Rehearsal:
    """A store with its logged queries: one per fault, with links to shared raw vectors and encoders."""

    def __init__(self, work: Path, scifact: Path, foreign: Path) -> None:
        self.work, self.corpus = work, pq.read_table(scifact / "corpus.parquet").select(["doc_id", "title", "text"])
        self.foreign = foreign_rows(foreign)
        queries, judged = read_queries(scifact / "queries.parquet"), read_judgements(scifact / "qrels.parquet")
        names = sorted(name for name in queries if name in judged)
        self.frozen = EvaluationSet(
            "default", "judged", {n: queries[n] for n in names[::2]}, {n: judged[n] for n in names[::2]}
        )
        self.asked = [queries[name] for name in names[1::2]]

    def embed(self, store: Path, rows: pa.Table) -> None:
        source = store.parent / "source.parquet"
        pq.write_table(rows, source)
        recipe = {
            "documents": {"title_column": "title"},
            "encoder": {"model": MODEL, "prompts": PROMPTS},
            "chunking": CHUNKING_NONE,
            "transform": {"representations": ["float32", "int8"], "fit": {"kind": "none"}},
            "lexical": {"kind": "none"},
        }
        runtime = {"store": str(store), "collection": "c", "source": str(source), "report_chunks": 0}
        embed_corpus(PipelineConfig.model_validate({"recipe": recipe, "runtime": runtime}))

    def begin(self) -> None:
        """Embed the documents of the fit, audit them for the baseline, and embed the new ones."""
        store = self.work / "clean" / "store"
        store.parent.mkdir(parents=True, exist_ok=True)
        self.embed(store, self.corpus.slice(0, FITTED))
        freeze_set(open_store(store), "c", self.frozen, source="SciFact")
        write_audit(open_store(store), self.audit(open_store(store)).record)
        self.embed(store, self.corpus)

    def copy(self, name: str) -> Store:
        target = self.work / name / "store"
        shutil.rmtree(target.parent, ignore_errors=True)
        shutil.copytree(self.work / "clean" / "store", target)
        return open_store(target)

    def ask(self, store: Store, texts: list[str], change: Change = lambda one: one) -> None:
        class Changing(AnswerLog):
            def add(self, answered: LoggedAnswer) -> None:
                super().add(change(answered))

        with open_index(store, "c") as index:
            watcher = Watcher(index, Changing(store, "c"))
            watcher.submit(index.view, texts, SearchOptions(), index.search(texts))
            watcher.close(600)

    def audit(self, store: Store, **given: object) -> Audit:
        return audit_alias(store, "c", "production", Thresholds(), run_id="rehearsal", **given)  # type: ignore[arg-type]


def foreign_rows(folder: Path) -> pa.Table:
    """Return the beginnings of documentation files as documents."""
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".md", ".txt"))[:FOREIGN]
    texts = [path.read_text(encoding="utf-8", errors="replace")[:1_200] for path in files]
    names = [f"docs-{n:03d}" for n in range(len(texts))]
    return pa.table({"doc_id": names, "title": [path.stem for path in files], "text": texts})


def stretch(vectors: np.ndarray) -> np.ndarray:
    vectors[::40] *= 1.5
    return vectors


def collapse(vectors: np.ndarray) -> np.ndarray:
    vectors[:, :40] = 0.01
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def cone(vectors: np.ndarray) -> np.ndarray:
    vectors = vectors + 1.5 * np.eye(vectors.shape[1], dtype=np.float32)[0]
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def other_checkpoint(index: Index, count: int) -> np.ndarray:
    """Return vectors with noise added, which to an audit look like those of another checkpoint."""
    texts = [
        prefix + text
        for prefix, text in zip(*(index.chunks[n].to_pylist()[:count] for n in ("prefix", "text")), strict=True)
    ]
    raw = index.space.encode(texts, "query")
    return index.space.transform(
        raw + 0.02 * np.random.default_rng(0).standard_normal(raw.shape).astype(np.float32), "document"
    )


def shown(name: str, audit: Audit, expected: str) -> None:
    names = [alarm.name for alarm in audit.record.alarms]
    others = ", ".join(one for one in names if one != expected) or "–"
    figure = next((alarm.figure for alarm in audit.record.alarms if alarm.name == expected), None)
    fired = "fires" if expected in names else "SILENT"
    print(f"| {name} | {expected} | {fired} | {'–' if figure is None else f'{figure:.4g}'} | {others} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--work", type=Path, default=None)
    arguments = parser.parse_args()
    work = arguments.work or Path(tempfile.mkdtemp(prefix="isospace-alarms-"))
    world = Rehearsal(work, arguments.folder / "scifact", arguments.folder / "docs-corpus")
    world.begin()
    clean = world.copy("reruns")
    world.ask(clean, world.asked)
    loudest = dict.fromkeys(("corpus drift", "query drift", "PSI", "norms", "agreement lost"), 0.0)
    raised = 0
    for seed in range(RERUNS):
        audit = world.audit(clean, seed=seed)
        raised += len(audit.record.alarms)
        for alarm in audit.record.alarms:
            print(f"clean rerun {seed}: {alarm.describe()}", flush=True)
        measured = audit.measurements
        if measured and measured.corpus.drift and measured.logged and measured.logged.drift and measured.frozen:
            seen = (
                measured.corpus.drift.auc,
                measured.logged.drift.auc,
                float(measured.stored.shifts.psi.max()),
                measured.stored.norms.largest_error,
                1.0 - measured.frozen.overlap,
            )
            loudest = {name: max(value, new) for (name, value), new in zip(loudest.items(), seen, strict=True)}
    print(f"{RERUNS} clean reruns: {raised} alarms; largest figures {loudest}\n", flush=True)
    print("| fault | alarm | | figure | others |\n| --- | --- | --- | ---: | --- |", flush=True)
    faults(world)


def faults(world: Rehearsal) -> None:
    for name, change, expected in (
        ("one vector in 40 is not normalized", stretch, "norms"),
        ("40 of 384 dimensions collapse", collapse, "collapsed dimensions"),
        ("all vectors drawn towards one direction", cone, "anisotropy"),
    ):
        store = world.copy("fault")
        for part in range(len(read_manifest(store, "c", 2).parts)):
            forge_vectors(store, "c", change, part=part)
        shown(name, world.audit(store), expected)
    store = world.copy("fault")
    with open_index(store, "c") as index:
        wrong = other_checkpoint(index, 2_000)
    forge_vectors(store, "c", lambda vectors: wrong[: len(vectors)])
    shown("another checkpoint made one part", world.audit(store), "stored vectors")
    store = world.copy("fault")
    with open_index(store, "c") as index:
        unprompted = dict(zip(world.asked, index.space.embed(world.asked, "document"), strict=True))
    world.ask(store, world.asked, lambda answer: replace(answer, vector=unprompted[answer.text or ""]))
    shown("the query prompt is dropped", world.audit(store), "query vectors")
    store = world.copy("fault")
    world.ask(store, [text[:200].replace("\n", " ") for text in world.foreign["text"].to_pylist()])
    shown("questions about software", world.audit(store), "query drift")
    store = world.copy("fault")
    world.embed(store.root, pa.concat_tables([world.corpus.slice(0, FITTED), world.foreign.cast(world.corpus.schema)]))
    audit = world.audit(store)
    shown("documents about software", audit, "corpus drift")
    drift = audit.measurements.corpus.drift if audit.measurements else None
    most = [name for name, _ in drift.most] if drift else []
    print(f"most unusual: {most}", flush=True)
    store = world.copy("fault")
    copies = world.corpus.slice(0, 500)
    copies = copies.set_column(0, "doc_id", pa.array([f"copy-{n}" for n in range(500)]))
    world.embed(store.root, pa.concat_tables([world.corpus, copies]))
    shown("500 documents come twice", world.audit(store), "duplicates")
    store = world.copy("fault")
    promote(store, "c", "production", read_manifest(store, "c", 1), reason="left behind")
    shown("the alias is left behind", world.audit(store, now=datetime.now(UTC) + timedelta(hours=30)), "stale alias")
    store = world.copy("fault")
    old = read_manifest(store, "c", 1)
    later = datetime.now(UTC) + timedelta(minutes=30)
    world.ask(store, world.asked, lambda answer: replace(answer, snapshot=1, snapshot_id=old.snapshot_id, at=later))
    shown("a service does not follow the alias", world.audit(store, now=later + timedelta(minutes=1)), "stale answers")
    store = world.copy("fault")
    manifest = latest_manifest(store, "c")
    document = store.root / "encoders" / manifest.encoder_id / "encoder.json"
    document.write_text(document.read_text().replace("question: ", "query: "))
    shown("the encoder's description is edited", world.audit(store), "files")


if __name__ == "__main__":
    main()
