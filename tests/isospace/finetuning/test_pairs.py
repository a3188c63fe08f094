"""Pairs made from a collection, negatives found in it, and questions that a model asks of it."""

from __future__ import annotations

import json
import stat
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from pydantic import TypeAdapter

from isospace.errors import ConfigError, EncoderError
from isospace.evaluation.query_sets import EvaluationSet
from isospace.finetuning.benchmark import benchmark_from_view, compare_encoders
from isospace.finetuning.config import CorpusPairs, GeneratedPairs, JudgedPairs, NegativesSpec, PairsSpec
from isospace.finetuning.examples import Example
from isospace.finetuning.hard_negatives import mine_negatives, mining_key
from isospace.finetuning.pairs import collect_pairs, judged_examples, passages_of
from isospace.finetuning.synthetic_pairs import generate_pairs, open_generator
from isospace.finetuning.tokenizer_fertility import report_tokenization
from isospace.finetuning.workdir import forget_work
from isospace.search.index import Index
from isospace.search.open_index import open_index
from isospace.search.view import View
from tests.conftest import Configure, sentences, write_jsonl
from tests.helpers.inline import embed_inline

EASY = NegativesSpec(ranks=(2, 60), margin=0.0, duplicate=1.0, count=2)


def view_of(index: Index) -> View:
    return index.view


def test_a_sentence_asks_for_the_rest_of_its_chunk(index: Index) -> None:
    pairs = collect_pairs(index.view, CorpusPairs(kind="sentences"), seed=0)
    assert len(pairs) > 30
    assert len({pair.doc_id for pair in pairs}) == len(pairs)
    for pair in pairs:
        assert pair.anchor not in pair.positive
        assert pair.origin == "sentences"
    assert collect_pairs(index.view, CorpusPairs(kind="sentences"), seed=0) == pairs
    assert collect_pairs(index.view, CorpusPairs(kind="sentences"), seed=1) != pairs
    assert len(collect_pairs(index.view, CorpusPairs(kind="sentences", most=7), seed=0)) == 7


def test_a_heading_asks_for_its_section(configure: Configure, tmp_path: Path) -> None:
    body = " ".join(sentences(1, words=20).values())
    documents = {f"d{n}": f"# How the index of part {n} is built\n\n{body} {n}." for n in range(12)}
    config = configure(
        write_jsonl(tmp_path / "d.jsonl", documents), recipe={"chunking": {"kind": "none", "allow_truncation": True}}
    )
    embed_inline(config)
    with open_index(config.runtime.store, "c") as opened:
        pairs = collect_pairs(opened.view, CorpusPairs(kind="headings"), seed=0)
    assert len(pairs) == 12
    for pair in pairs:
        assert pair.anchor.endswith(f"How the index of part {pair.doc_id[1:]} is built")
        assert "#" not in pair.positive
        assert pair.positive.startswith(body[:20])


def test_judged_queries_are_paired_with_the_chunk_that_is_nearest(index: Index, tmp_path: Path) -> None:
    given = EvaluationSet(
        "s", "judged", {"q1": "the gene of the index", "q2": "x"}, {"q1": {"d00003": 1, "d00004": 0}, "q2": {"no": 1}}
    )
    (pair,) = judged_examples(index.view, given)
    assert (pair.anchor, pair.doc_id, pair.origin) == ("the gene of the index", "d00003", "judged")
    own = [row for row, passage in enumerate(passages_of(index.view)) if passage.doc_id == "d00003"]
    texts = index.view.texts(own)
    scores = index.space.embed(texts, "document") @ index.space.embed([pair.anchor], "query")[0]
    assert pair.positive == texts[int(np.argmax(scores))]
    (tmp_path / "q.jsonl").write_text('{"query_id": "q1", "text": "a b"}')
    with pytest.raises(ConfigError, match="no query has a relevant document"):
        collect_pairs(index.view, JudgedPairs(kind="judged", queries=str(tmp_path / "q.jsonl")), seed=0)


def test_negatives_are_none_of_the_answers(index: Index) -> None:
    pairs = collect_pairs(index.view, CorpusPairs(kind="sentences", most=20), seed=0)
    excluded = {f"d{n:05d}" for n in range(10)}
    mined = mine_negatives(index.view, pairs, EASY, excluded=excluded)
    owners = {passage.prefix + passage.text: passage.doc_id for passage in passages_of(index.view)}
    assert mined.examples
    for example in mined.examples:
        documents = {owners[text] for text in example.negatives}
        assert len(example.negatives) == 2
        assert not documents & (excluded | {example.doc_id})
        scores = (
            index.space.embed([example.positive, *example.negatives], "document")
            @ index.space.embed([example.anchor], "query")[0]
        )
        assert (scores[1:] <= scores[0] + 1e-6).all()
    assert len(mined.examples) + mined.short == len(pairs)
    assert mined.refused["excluded"] > 0
    stricter = mine_negatives(index.view, pairs, EASY.model_copy(update={"margin": 0.3, "count": 1}), excluded=excluded)
    for example in stricter.examples:
        own, other = (
            index.space.embed([example.positive, *example.negatives], "document")
            @ index.space.embed([example.anchor], "query")[0]
        )
        assert other <= own - 0.3 * abs(own) + 1e-6


def test_another_document_that_answers_the_same_is_no_negative(index: Index) -> None:
    pairs = collect_pairs(index.view, CorpusPairs(kind="sentences", most=20), seed=0)
    owners = {passage.prefix + passage.text: passage.doc_id for passage in passages_of(index.view)}
    first = mine_negatives(index.view, pairs, EASY).examples[0]
    other = owners[first.negatives[0]]
    asked = [replace(first, negatives=()), replace(first, negatives=(), doc_id=other)]
    examples = mine_negatives(index.view, asked, EASY).examples
    assert len(examples) == 2
    for example in examples:
        assert other not in {owners[text] for text in example.negatives}


def test_what_was_mined_once_is_not_searched_for_again(
    index: Index, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ISOSPACE_CACHE", str(tmp_path / "cache"))
    pairs = collect_pairs(index.view, CorpusPairs(kind="sentences", most=12), seed=0)
    first = mine_negatives(index.view, pairs, EASY)
    (path,) = (tmp_path / "cache").rglob("mined/*.json")
    assert path.name == f"{first.key}.json"
    searches: list[int] = []
    rank = type(index.view).rank

    def counted(view: View, *args: Any) -> Any:
        searches.append(len(args[0]))
        return rank(view, *args)

    monkeypatch.setattr(type(index.view), "rank", counted)
    assert mine_negatives(index.view, pairs, EASY) == first
    assert searches == []
    path.write_bytes(path.read_bytes()[:-40])
    assert mine_negatives(index.view, pairs, EASY) == first
    assert searches
    assert stat.S_IMODE(path.parents[1].stat().st_mode) == 0o700
    forget_work()
    assert not path.exists()


def test_copies_of_the_answer_are_no_negatives(configure: Configure, tmp_path: Path) -> None:
    documents = sentences(60, words=14)
    for number in range(20):
        documents[f"copy{number}"] = documents[f"d{number:05d}"] + " again"
    config = configure(write_jsonl(tmp_path / "d.jsonl", documents))
    embed_inline(config)
    pairs = [
        Example(" ".join(documents[f"d{n:05d}"].split()[:5]), documents[f"d{n:05d}"], f"d{n:05d}", "x")
        for n in range(20)
    ]
    with open_index(config.runtime.store, "c") as opened:
        mined = mine_negatives(opened.view, pairs, EASY.model_copy(update={"ranks": (1, 80)}))
    assert mined.refused["near-duplicate"] + mined.refused["margin"] > 0
    for example in mined.examples:
        assert not any(text.endswith("again") and example.positive[:30] in text for text in example.negatives)


def test_a_key_names_what_decides_the_negatives(index: Index) -> None:
    pairs = collect_pairs(index.view, CorpusPairs(kind="sentences", most=8), seed=0)
    key = mining_key(index.view, pairs, EASY, set(), None)
    assert mining_key(index.view, pairs, EASY, set(), None) == key
    others = [
        mining_key(index.view, pairs[1:], EASY, set(), None),
        mining_key(index.view, pairs, EASY.model_copy(update={"margin": 0.2}), set(), None),
        mining_key(index.view, pairs, EASY, {"d00001"}, None),
    ]
    assert len({key, *others}) == 4


def test_where_nothing_is_far_enough_it_refuses(index: Index) -> None:
    pairs = collect_pairs(index.view, CorpusPairs(kind="sentences", most=8), seed=0)
    with pytest.raises(ConfigError, match="none of 8 pairs has 2 negatives"):
        mine_negatives(index.view, pairs, EASY, excluded={f"d{n:05d}" for n in range(80)})
    unworded = replace(index.view, lexical=None)
    with pytest.raises(ConfigError, match="no word index"):
        mine_negatives(unworded, pairs, EASY)


class _Api(BaseHTTPRequestHandler):
    """An OpenAI-compatible API that asks a question of the words it is shown."""

    asked: ClassVar[list[dict[str, Any]]] = []
    failures: ClassVar[int] = 0

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).asked.append({**body, "key": self.headers.get("Authorization")})
        if type(self).failures:
            type(self).failures -= 1
            self.send_response(503)
            self.end_headers()
            return
        text = body["messages"][0]["content"].split("\n\n", 1)[1]
        lines = [
            f"1. {text[:60]}",
            f"- {text[:60]}",
            "2) Hm?",
            "I'm sorry, I cannot ask about this text.",
            "Here are the questions you asked for:",
            "3. an unrelated question of something else",
        ]
        answer = json.dumps({"choices": [{"message": {"content": "\n".join(lines)}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def api() -> Iterator[str]:
    _Api.asked, _Api.failures = [], 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Api)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.shutdown()
    server.server_close()
    thread.join()


def test_questions_are_asked_once_and_filtered(index: Index, api: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUESTIONS_KEY", "canary-key")
    spec = GeneratedPairs(
        kind="generated", endpoint=api, model="m", count=3, most=12, key_variable="QUESTIONS_KEY", found_within=3
    )
    _Api.failures = 2
    pairs, dropped = generate_pairs(index.view, spec, open_generator(spec), seed=0)
    assert len(_Api.asked) == 12 + 2
    assert {one["key"] for one in _Api.asked} == {"Bearer canary-key"}
    assert pairs
    assert all(pair.positive.startswith(pair.anchor[:20]) for pair in pairs if "unrelated" not in pair.anchor)
    assert dropped["refusals"] == 12
    assert dropped["repeated"] >= 12
    assert dropped["unusable"] == 24
    assert len(pairs) + dropped["inconsistent"] == 13
    again, _ = generate_pairs(index.view, spec, open_generator(spec), seed=0)
    assert again == pairs
    assert len(_Api.asked) == 12 + 2


def test_an_api_that_refuses_is_named_and_its_key_is_not(
    index: Index, api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = GeneratedPairs(kind="generated", endpoint=api, model="m", key_variable="QUESTIONS_KEY")
    monkeypatch.delenv("QUESTIONS_KEY", raising=False)
    with pytest.raises(ConfigError, match=r"\$QUESTIONS_KEY is not set"):
        open_generator(spec)
    monkeypatch.setenv("QUESTIONS_KEY", "canary-key")
    monkeypatch.setattr("isospace.finetuning.synthetic_pairs.time.sleep", lambda _: None)
    _Api.failures = 99
    with pytest.raises(EncoderError, match=r"gave no answer \(status 503") as caught:
        generate_pairs(index.view, spec, open_generator(spec), seed=0)
    assert "canary" not in str(caught.value)
    with pytest.raises(ConfigError, match="no seq2seq model in safetensors"):
        open_generator(GeneratedPairs(kind="generated", endpoint="local:/nonexistent", model="m"))


def test_sources_are_told_apart_by_their_kind() -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(PairsSpec)
    assert isinstance(adapter.validate_python({"kind": "titles"}), CorpusPairs)
    assert isinstance(adapter.validate_python({"kind": "judged", "queries": "q"}), JudgedPairs)


def test_one_encoder_is_as_good_as_itself(index: Index) -> None:
    names = [f"d{n:05d}" for n in range(30)]
    chosen = passages_of(index.view)[:30]
    given = EvaluationSet(
        "s",
        "judged",
        {name: one.prefix + one.text for name, one in zip(names, chosen, strict=True)},
        {name: {one.doc_id: 1} for name, one in zip(names, chosen, strict=True)},
    )
    bench = benchmark_from_view(index.view, given, most=50, seed=0)
    assert len(bench.texts) >= 50
    found = compare_encoders(bench, index.space.encoder, index.space.encoder)
    assert found.measures["nDCG@10"].difference == 0
    assert found.measures["nDCG@10"].before > 0.9
    shuffled = compare_encoders(bench, index.space.encoder, _Confused(index))
    assert shuffled.measures["nDCG@10"].difference < 0
    with pytest.raises(ConfigError, match="has no judgements"):
        benchmark_from_view(index.view, EvaluationSet("s", "unjudged", {"q": "x"}), most=10, seed=0)
    with pytest.raises(ConfigError, match="has none of its 1 relevant documents"):
        benchmark_from_view(index.view, EvaluationSet("s", "judged", {"q": "x"}, {"q": {"no": 1}}), most=10, seed=0)


class _Confused:
    """Gives every query the vector of the one before it."""

    def __init__(self, index: Index) -> None:
        self._encoder = index.space.encoder

    def encode(self, texts: Any, role: Any) -> Any:
        return np.roll(self._encoder.encode(texts, role), 1 if role == "query" else 0, axis=0)


def test_shattered_words_are_counted_and_searched(configure: Configure, tmp_path: Path) -> None:
    documents = sentences(60, words=12)
    for number in range(8):
        documents[f"d{number:05d}"] = f"DataForce {documents[f'd{number:05d}']} of DataForce"
    config = configure(write_jsonl(tmp_path / "d.jsonl", documents))
    embed_inline(config)
    with open_index(config.runtime.store, "c") as opened:
        found = report_tokenization(opened.view, opened.space.encoder)  # type: ignore[arg-type]
    worst = {one.word: one for one in found.worst}
    planted = worst["DataForce"]
    assert (planted.count, planted.documents) == (16, 8)
    assert "".join(piece.removeprefix("##") for piece in planted.pieces) == "dataforce"
    assert sum(found.shares) == pytest.approx(1)
    assert found.asked >= 1
    assert {"dense", "lexical", "hybrid", "mean pooling", "subword pooling"} == set(found.retrieval)
    assert found.retrieval["lexical"] == pytest.approx(1)
