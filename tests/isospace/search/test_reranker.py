"""A reranker that learned one relation, sharing a rare word, orders hits by it; what is none is refused."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from isospace.errors import ConfigError, EncoderError, MismatchError
from isospace.finetuning.reranker_training import Pair, Stage, train_reranker
from isospace.pipeline.config import PipelineConfig
from isospace.search.index import Index
from isospace.search.open_index import open_index
from isospace.search.reranker import Reranker, open_reranker
from tests.conftest import write_jsonl
from tests.helpers.inline import embed_inline
from tests.helpers.tiny import build_tiny_model

RARE = ("cell", "protein", "gene", "index", "search", "vector")
COMMON = ("the", "of", "and", "to", "in", "is", "for", "on")
LIMIT, COUNT = 24, 60
QUERY = "gene"


def text_with(word: str, chance: random.Random) -> str:
    words = chance.choices(COMMON, k=2)
    words.insert(chance.randrange(3), word)
    return " ".join(words)


def pairs(count: int, *, seed: int = 0) -> list[Pair]:
    chance = random.Random(seed)
    words = [chance.sample(RARE, 2) for _ in range(count // 2)]
    return [Pair(asked, text_with(word, chance), word == asked) for asked, other in words for word in (asked, other)]


def documents() -> dict[str, str]:
    chance = random.Random(1)
    return {f"d{n:03d}": text_with(RARE[n % len(RARE)], chance) for n in range(COUNT)}


def train(start: Path, folder: Path, count: int, **options: int) -> Path:
    train_reranker(start, [Stage(pairs(count), LIMIT)], folder, max_tokens=LIMIT, batch=32, rate=3e-3, **options)
    return folder


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("start") / "tiny", dimension=32)


@pytest.fixture(scope="module")
def folder(start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(start, tmp_path_factory.mktemp("reranker") / "trained", 12_800)


@pytest.fixture(scope="module")
def reranker(folder: Path) -> Reranker:
    return open_reranker(folder)


@pytest.fixture(scope="module")
def store(start: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    place = tmp_path_factory.mktemp("reranked")
    recipe = {"encoder": {"model": str(start)}, "chunking": {"overlap_tokens": 4}, "lexical": {"kind": "bm25"}}
    source = write_jsonl(place / "d.jsonl", documents())
    runtime = {"store": str(place / "store"), "collection": "c", "source": str(source), "device": "cpu"}
    embed_inline(PipelineConfig.model_validate({"recipe": recipe, "runtime": runtime}))
    return str(place / "store")


@pytest.fixture
def index(store: str, reranker: Reranker) -> Iterator[Index]:
    with open_index(store, "c", reranker=reranker) as opened:
        yield opened


@pytest.mark.parametrize("asked", RARE)
def test_the_text_that_shares_the_rare_word_is_first(reranker: Reranker, asked: str) -> None:
    chance = random.Random(asked)
    scores = reranker.scores(asked, [text_with(word, chance) for word in RARE])
    assert scores.shape == (len(RARE),)
    assert RARE[scores.argmax()] == asked


def test_no_texts_have_no_scores(reranker: Reranker) -> None:
    assert reranker.scores(QUERY, []).shape == (0,)


def test_the_same_training_gives_the_same_files(start: Path, tmp_path: Path) -> None:
    first, again, other = (
        open_reranker(train(start, tmp_path / name, 320, seed=seed)).reranker_id
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert first == again != other


@pytest.mark.parametrize("mode", ["exact", "lexical", "hybrid"])
def test_hits_are_those_of_the_search_in_the_order_of_the_reranker(index: Index, mode: str) -> None:
    found = {hit.chunk_id: hit for hit in index.search(QUERY, COUNT, mode=mode, depth=COUNT)[0]}
    hits = index.search(QUERY, COUNT, mode=mode, rerank=True, depth=COUNT)[0]
    assert {hit.chunk_id for hit in hits} == set(found)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    for hit in hits:
        assert hit.scores["rerank"] == hit.score
        assert hit.scores["retrieval"] == found[hit.chunk_id].score
        assert found[hit.chunk_id].scores.items() <= hit.scores.items()


def test_a_reranked_search_finds_what_the_vectors_do_not(index: Index) -> None:
    relevant = {name for name, text in documents().items() if QUERY in text.split()}
    hits = index.search(QUERY, len(relevant), rerank=True, depth=COUNT)[0]
    assert {hit.doc_id for hit in hits} == relevant
    # Random vectors alone do not: else the reranker would have had nothing to do.
    assert {hit.doc_id for hit in index.search(QUERY, len(relevant))[0]} != relevant


def test_what_the_reranker_did_not_read_stays_behind_in_the_order_of_the_search(index: Index) -> None:
    depth, plain = 5, [hit.chunk_id for hit in index.search(QUERY, 12)[0]]
    hits = index.search(QUERY, 12, rerank=True, depth=depth)[0]
    assert {hit.chunk_id for hit in hits[:depth]} == set(plain[:depth])
    assert [hit.chunk_id for hit in hits[depth:]] == plain[depth:]
    assert ["rerank" in hit.scores for hit in hits] == [place < depth for place in range(12)]


def test_a_search_reads_as_deep_as_it_says(index: Index) -> None:
    near = {hit.chunk_id for hit in index.search(QUERY, 20)[0]}
    hits = index.search(QUERY, 3, rerank=True, depth=20)[0]
    assert len(hits) == 3
    assert {hit.chunk_id for hit in hits} <= near
    assert hits == index.search(QUERY, 20, rerank=True, depth=20)[0][:3]


def test_another_model_than_expected_is_refused(folder: Path, start: Path, reranker: Reranker, tmp_path: Path) -> None:
    assert open_reranker(folder, expected=reranker.reranker_id).reranker_id == reranker.reranker_id
    other = train(start, tmp_path / "other", 32)
    with pytest.raises(MismatchError, match=reranker.reranker_id):
        open_reranker(other, expected=reranker.reranker_id)


def test_a_folder_without_a_model_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    shutil.copytree(folder, tmp_path / "bare")
    (tmp_path / "bare" / "config.json").unlink()
    for wrong in (tmp_path / "nothing", tmp_path / "empty", tmp_path / "bare"):
        with pytest.raises(EncoderError, match=wrong.name):
            open_reranker(wrong)


def test_weights_that_are_cut_short_are_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "cut")
    (tmp_path / "cut" / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(EncoderError, match="cannot be loaded"):
        open_reranker(tmp_path / "cut")


def test_an_encoder_is_refused_as_its_head_would_be_random(start: Path) -> None:
    with pytest.raises(EncoderError, match="CrossEncoder"):
        open_reranker(start)


def test_a_model_with_two_labels_is_refused(start: Path, tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder

    CrossEncoder(str(start), num_labels=2, device="cpu").save_pretrained(str(tmp_path / "two"))
    with pytest.raises(EncoderError, match="one label"):
        open_reranker(tmp_path / "two").scores(QUERY, ["the gene", "the cell"])


@pytest.mark.parametrize("stages", [[], [Stage([], LIMIT)], [Stage([Pair("a", "b", True)], LIMIT)]])
def test_pairs_that_nothing_can_be_learned_from_are_refused(stages: list[Stage], start: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="stage"):
        train_reranker(start, stages, tmp_path / "out")


@pytest.mark.parametrize("options", [{"layers": 0}, {"layers": 9}, {"batch": 0}, {"rate": 0.0}])
def test_numbers_that_cannot_be_are_refused(options: dict, start: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        train_reranker(start, [Stage(pairs(8), LIMIT)], tmp_path / "out", **options)


def test_a_start_that_cannot_be_loaded_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="no cross-encoder can start"):
        train_reranker(tmp_path / "nothing", [Stage(pairs(8), LIMIT)], tmp_path / "out")
