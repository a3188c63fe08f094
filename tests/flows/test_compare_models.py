from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from flows.compare_models import compare_models
from isospace.encoding.encoder import SentenceEncoder
from isospace.errors import ConfigError
from isospace.operations.compare_models.compare import ComparisonConfig, load_comparison
from tests.conftest import sentences, write_jsonl
from tests.flows.test_embed_corpus import artifacts
from tests.helpers.tiny import build_tiny_model


@pytest.fixture
def contest(tiny_model: Path, tmp_path: Path) -> dict:
    source = write_jsonl(tmp_path / "d.jsonl", sentences(90))
    asked = list(sentences(90).items())[:40]
    (tmp_path / "q.csv").write_text("query_id,text\n" + "\n".join(f"{d},title {d} {text}" for d, text in asked))
    (tmp_path / "r.csv").write_text("query_id,doc_id,relevance\n" + "\n".join(f"{d},{d},1" for d, _ in asked))
    other = build_tiny_model(tmp_path / "other", seed=5, dimension=32)
    return {
        "recipe": {
            "documents": {"title_column": "title"},
            "encoder": {"model": "x"},
            "chunking": {"overlap_tokens": 4},
        },
        "runtime": {
            "store": str(tmp_path / "store"),
            "collection": "c",
            "source": str(source),
            "price_per_device_hour": 2.0,
        },
        "contest": {
            "queries": str(tmp_path / "q.csv"),
            "judgements": str(tmp_path / "r.csv"),
            "encoders": {"one": {"model": str(tiny_model)}, "two": {"model": str(other)}},
            "transforms": {
                "plain": {"representations": ["float32"]},
                "bits": {"representations": ["binary"]},
                "short": {
                    "representations": ["float32"],
                    "fit": {"kind": "pca", "dimensions": 4, "allow_small_sample": True},
                },
            },
        },
    }


@pytest.mark.usefixtures("prefect_server")
def test_a_second_contest_encodes_and_measures_nothing(contest: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    config = ComparisonConfig.model_validate(contest)
    compared = compare_models(config)
    first = compared.entries
    assert {(one.encoder, one.transform) for one in first} == {
        (e, t) for e in ("one", "two") for t in ("plain", "bits", "short")
    }
    by_name = {(one.encoder, one.transform): one for one in first}
    assert (by_name["one", "plain"].bytes, by_name["two", "plain"].bytes, by_name["one", "bits"].bytes) == (64, 128, 2)
    assert by_name["one", "plain"].ndcg_10 > by_name["one", "bits"].ndcg_10
    assert all(one.cost == pytest.approx(2.0 * one.device_hours) for one in first)
    assert any(one.on_front for one in first)
    assert first[0].ndcg_10 == max(one.ndcg_10 for one in first)
    assert any("variants compared" in text for text in artifacts("c-models"))
    encoded: list[str] = []
    real = SentenceEncoder.encode
    monkeypatch.setattr(
        SentenceEncoder, "encode", lambda self, texts, role: encoded.extend(texts) or real(self, texts, role)
    )
    assert compare_models(config) == compared
    assert encoded == []


def test_a_contest_that_cannot_be_is_an_error_of_the_configuration(contest: dict, tmp_path: Path) -> None:
    path = tmp_path / "contest.yaml"

    def load(**changed: object) -> ComparisonConfig:
        path.write_text(yaml.safe_dump({**contest, "contest": {**contest["contest"], **changed}}))
        return load_comparison(path)

    assert len(load().variants()) == 6
    with pytest.raises(ConfigError, match=r"a comparison needs both"):
        load(queries=None, judgements=None)
    with pytest.raises(ConfigError, match="a model comparison has no gate"):
        load(rules=["recall@10 >= 0.5"])
    with pytest.raises(ConfigError, match=r"contest\.encoders"):
        load(encoders={})
    with pytest.raises(ConfigError, match="collection of a variant"):
        load(encoders={"x" * 95: contest["contest"]["encoders"]["one"]})
