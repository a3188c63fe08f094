"""The demo: embed the bundled corpus, measure search quality, and search for three questions.

python -m flows.demo
"""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from flows.command import one_line_errors
from flows.embed_corpus import embed_corpus
from isospace.cli.terminal import printable
from isospace.evaluation.metrics import measure
from isospace.evaluation.ranking import document_run, plain_vectors, rank_documents
from isospace.ingest.query_files import read_judgements, read_queries
from isospace.pipeline.config_files import load_config
from isospace.pipeline.outcome import outcome
from isospace.search.index import Index
from isospace.search.open_index import open_index
from isospace.storage.store import open_store
from isospace.transform.vectors import unit
from tasks.server import require_server

FOLDER = Path("configs/demo")
QUESTIONS = (
    "Does a lack of vitamin B12 raise homocysteine in the blood?",
    "How do stem cells decide which daughter keeps the old DNA strands?",
    "Is breast cancer prognosis related to ALDH1?",
)


def main() -> None:
    """Run the demo."""
    console = Console(width=110, highlight=False)
    with one_line_errors():
        config = load_config("configs/demo.yaml")
        require_server()
        report = embed_corpus(config)
        console.rule("Run")
        console.print(outcome(report, open_store(config.runtime.store), config.runtime.report_url))
        index = open_index(config.runtime.store, config.runtime.collection)
        console.rule("Search quality")
        console.print(_quality_table(config.runtime.store, index))
        console.rule("Top hits")
        for question, hits in zip(QUESTIONS, index.search(list(QUESTIONS), k=1), strict=True):
            console.print(f"[bold]{question}[/bold]\n  {hits[0].score:.3f}  {printable(hits[0].title)}\n")
    store, name = config.runtime.store, config.runtime.collection
    console.print(f'Search yourself: .venv/bin/isospace search {store} {name} "your question"', markup=False)


def _quality_table(url: str, index: Index) -> str:
    store = open_store(url)
    queries, judgements = read_queries(FOLDER / "queries.parquet"), read_judgements(FOLDER / "qrels.parquet")
    raw = index.space.encode(list(queries.values()), "query")
    plain = rank_documents(index, list(queries), unit(raw), vectors=plain_vectors(store, index))
    rows = {"plain (raw vectors, L2)": measure(plain, judgements)}
    for name in index.space.space.record.representations:
        opened = open_index(store, index.manifest.collection, representation=name, encoder=index.space.encoder)
        rows[f"sealed space, {name}"] = measure(document_run(opened, queries), judgements)
    names = "  ".join(f"{name:>8}" for name in next(iter(rows.values())))
    lines = [f"{row:26}" + "  ".join(f"{value:8.4f}" for value in figures.values()) for row, figures in rows.items()]
    return "\n".join([f"{len(queries)} claims; a document ranks by its best chunk", f"{'':26}{names}", *lines])


if __name__ == "__main__":
    main()
