"""Train a small reranker on the shipped corpus alone, and measure its effect there.

    python -m benchmarks.train_reranker OUT [--store STORE --collection NAME] [--layers 3] [--pairs 4000] [--seed 0]

A pseudo-query is a sentence; its answer is the chunk it was taken from, without that sentence. Negatives are chunks of
other documents: some found by the index, some drawn at random. Held-out documents are in no pair. Training takes some
ten minutes on one CPU thread, and is followed by the measurement; `OMP_NUM_THREADS` sets the number of threads.
"""

from __future__ import annotations

import argparse
import logging
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.rerank import DEPTH, MEASURES, compare, judged_queries
from benchmarks.retrieval import print_row
from flows.embed_corpus import embed_corpus
from isospace.encoding.registry.model_loading import locate_model
from isospace.evaluation.metrics import measure
from isospace.finetuning.reranker_training import Pair, Stage, train_reranker
from isospace.ingest.pseudo_queries import Passage, PseudoQuery, make_pseudo_queries
from isospace.pipeline.config_files import load_config
from isospace.search.index import Index
from isospace.search.open_index import open_index
from isospace.search.reranker import Reranker, open_reranker

CONFIG = "configs/demo.yaml"
JUDGED = Path("configs/demo")
HELD_OUT = 100
MOST_ROUNDS = 10
# Negatives per query: some found by the index, some from random documents.
HARD, EASY = 2, 1
HARD_RANKS = 50
WORD_PAIRS, WORD_TOKENS, WORDS = 1_600, 40, 16
# Title and first sentences: a quarter of the cost, and enough to distinguish most texts.
SHORT_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Example:
    """A pseudo-query with its answer.

    Attributes
    ----------
    query
        A sentence.
    answer
        The text of its chunk without that sentence.
    doc_id
        The document of the chunk.
    others
        Texts of chunks of other documents, best first.
    owners, scores
        The documents of `others`, and their scores in the index.
    """

    query: str
    answer: str
    doc_id: str
    others: list[str]
    owners: list[str]
    scores: list[float]


def make_examples(index: Index, documents: set[str], *, others: set[str], size: int, seed: int) -> list[Example]:
    """Make pseudo-queries from sentences, with chunks of `others` that the index finds for them."""
    chunks = index.chunks.select(["chunk_id", "doc_id", "title", "prefix", "text"]).to_pylist()
    row = {chunk.pop("chunk_id"): number for number, chunk in enumerate(chunks)}
    passages = [Passage(**chunk) for chunk in chunks if chunk["doc_id"] in documents]
    asked: list[PseudoQuery] = []
    taken: set[str] = set()
    for number in range(MOST_ROUNDS):
        made = make_pseudo_queries(passages, "sentences", size=size - len(asked), seed=seed + number, exclude=taken)
        asked += made
        taken |= {query.text for query in made}
        if not made or len(asked) == size:
            break
    examples = []
    # Search for more, since hits in the same document and in excluded documents are dropped.
    for query, hits in zip(asked, index.search([query.text for query in asked], 2 * DEPTH), strict=True):
        doc_id = passages[query.passage].doc_id
        kept = [hit for hit in hits if hit.doc_id != doc_id and hit.doc_id in others][:DEPTH]
        texts = index.view.texts(row[hit.chunk_id] for hit in kept)
        owners, scores = [hit.doc_id for hit in kept], [hit.score for hit in kept]
        examples.append(Example(query.text, query.remainder, doc_id, texts, owners, scores))
    return examples


def stages(examples: Sequence[Example], max_tokens: int, seed: int) -> list[Stage]:
    """Build the training stages: shared words first, then answers in short, then in full texts."""
    chance = random.Random(seed)
    words = [pair for _ in range(WORD_PAIRS // 2) for pair in _word_pairs(examples, chance)]
    half = len(examples) // 2
    short, whole = (
        [pair for example in some for pair in _pairs(example, examples, chance)]
        for some in (examples[:half], examples[half:])
    )
    return [Stage(words, WORD_TOKENS), Stage(short, SHORT_TOKENS), Stage(whole, max_tokens)]


def _word_pairs(examples: Sequence[Example], chance: random.Random) -> list[Pair]:
    one, other = chance.sample(examples, 2)
    span = _span(one.query, chance)
    query = " ".join(word for word in span.split() if chance.random() < 0.5) or span
    return [Pair(query, span, True), Pair(query, _span(other.query, chance), False)]


def _span(text: str, chance: random.Random) -> str:
    words = text.split()
    first = chance.randrange(max(1, len(words) - WORDS))
    return " ".join(words[first : first + WORDS])


def _pairs(example: Example, examples: Sequence[Example], chance: random.Random) -> list[Pair]:
    near = example.others[:HARD_RANKS]
    hard = chance.sample(near, min(HARD, len(near)))
    easy = [other.answer for other in chance.sample(examples, EASY + 1) if other.doc_id != example.doc_id][:EASY]
    others = [Pair(example.query, text, False) for text in [*hard, *easy]]
    return [Pair(example.query, example.answer, True), *others]


def measure_examples(index: Index, examples: Sequence[Example], reranker: Reranker) -> None:
    """Print metrics of held-out pseudo-queries: where the answer ranks among the other chunks."""
    asked = index.space.embed([example.query for example in examples], "query")
    answers = index.space.embed([example.answer for example in examples], "document")
    alone, reranked = {}, {}
    for number, example in enumerate(examples):
        own = float(asked[number] @ answers[number])
        scores = [*example.scores, own]
        best = np.argsort([-score for score in scores], kind="stable")[:DEPTH]
        texts, owners = [*example.others, example.answer], [*example.owners, example.doc_id]
        read = reranker.scores(example.query, [texts[place] for place in best])
        alone[str(number)] = _best_by_document([owners[place] for place in best], [scores[place] for place in best])
        reranked[str(number)] = _best_by_document([owners[place] for place in best], read.tolist())
    judgements = {str(number): {example.doc_id: 1} for number, example in enumerate(examples)}
    for name, run in (("exact", alone), (f"exact, best {DEPTH} reranked", reranked)):
        print_row(name, measure(run, judgements, MEASURES))


def _best_by_document(owners: Sequence[str], scores: Sequence[float]) -> dict[str, float]:
    best: dict[str, float] = {}
    for owner, score in zip(owners, scores, strict=True):
        best[owner] = max(score, best.get(owner, score))
    return best


def _embedded(store: str | None, collection: str | None) -> tuple[str, str]:
    """Return the store and collection of the embedded corpus; embed it first if no store is given."""
    config = load_config(CONFIG, [f"runtime.store={store or tempfile.mkdtemp(prefix='isospace-reranker-')}"])
    if store is None:
        embed_corpus(config)
    return config.runtime.store, collection or config.runtime.collection


def learn(index: Index, documents: set[str], given: argparse.Namespace) -> None:
    """Train on pairs from some documents, and print how long it took."""
    # The same number of queries again, for the short texts.
    size = 2 * (given.pairs // (1 + HARD + EASY))
    examples = make_examples(index, documents, others=documents, size=size, seed=given.seed)
    planned = stages(examples, given.max_tokens, given.seed)
    start = locate_model(load_config(CONFIG).recipe.encoder)
    begun, used = time.perf_counter(), time.process_time()
    train_reranker(start, planned, given.out, layers=given.layers, max_tokens=given.max_tokens, seed=given.seed)
    took, computing = time.perf_counter() - begun, time.process_time() - used
    counts = ", ".join(str(len(stage.pairs)) for stage in planned)
    print(f"{counts} pairs of {len(examples)} sentences: {took:.0f} s, {computing:.0f} s of CPU time", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--store", default=None, help="where the shipped corpus is embedded; embedded again by default")
    parser.add_argument("--collection", default=None)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument(
        "--pairs", type=int, default=4_000, help="pairs of whole texts; the same number of short ones is added"
    )
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--queries", type=int, default=0, help="maximum number of judged queries to measure on; 0 for all"
    )
    return parser.parse_args()


def main() -> None:
    given = _arguments()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("isospace.search").setLevel(logging.INFO)
    store, collection = _embedded(given.store, given.collection)
    index = open_index(store, collection)
    documents = set(index.chunks["doc_id"].to_pylist())
    held_out = set(random.Random(given.seed).sample(sorted(documents), HELD_OUT))
    learn(index, documents - held_out, given)
    reranker = open_reranker(given.out)
    asked = make_examples(index, held_out, others=documents, size=HELD_OUT, seed=given.seed)
    print(f"reranker {reranker.reranker_id}\n\n{len(asked)} held-out pseudo-queries: {', '.join(MEASURES)}\n")
    measure_examples(index, asked, reranker)
    queries, judgements = judged_queries(JUDGED, given.queries)
    if documents >= {doc_id for name in queries for doc_id in judgements[name]}:
        print(f"\n{len(queries)} judged queries\n", flush=True)
        compare(open_index(store, collection, encoder=index.space.encoder, reranker=reranker), queries, judgements)


if __name__ == "__main__":
    main()
