"""A variant that fails costs its own figures, and no others."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from unittest.mock import patch

import pytest

from isospace.errors import ConfigError, EncoderError, IsospaceError
from isospace.evaluation.reports.quotes import unproven_files
from isospace.operations.compare_models.compare import ComparisonConfig
from isospace.operations.compare_models.page import COLUMNS, comparison_markdown
from isospace.operations.compare_models.run import compare_models
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.run_report import RunReport
from isospace.storage.store import Store, open_store
from tests.conftest import sentences, write_jsonl
from tests.helpers.inline import embed_inline

ASKED = list(sentences(60).items())[:25]


@pytest.fixture
def contest(tiny_model: Path, tmp_path: Path) -> dict:
    source = write_jsonl(tmp_path / "d.jsonl", sentences(60))
    (tmp_path / "q.csv").write_text("query_id,text\n" + "\n".join(f"{d},title {d} {text}" for d, text in ASKED))
    (tmp_path / "r.csv").write_text("query_id,doc_id,relevance\n" + "\n".join(f"{d},{d},1" for d, _ in ASKED))
    return {
        "recipe": {
            "documents": {"title_column": "title"},
            "encoder": {"model": "x"},
            "chunking": {"overlap_tokens": 4},
        },
        "runtime": {"store": str(tmp_path / "store"), "collection": "c", "source": str(source), "device": "cpu"},
        "contest": {
            "queries": str(tmp_path / "q.csv"),
            "judgements": str(tmp_path / "r.csv"),
            "encoders": {"absent": {"model": str(tmp_path / "absent")}, "tiny": {"model": str(tiny_model)}},
            "transforms": {"plain": {"representations": ["float32"]}, "bits": {"representations": ["binary"]}},
        },
    }


def page_of(store: Store) -> str:
    (path,) = [stat.path for stat in store.walk("reports") if stat.path.endswith("contest/report.html")]
    return store.read(path).decode()


def test_a_failing_variant_is_named_and_the_others_are_compared(
    contest: dict, caplog: pytest.LogCaptureFixture
) -> None:
    config = ComparisonConfig.model_validate(contest)
    result = compare_models(config, embed=embed_inline)
    assert {one.name for one in result.entries} == {"tiny, plain", "tiny, bits"}
    assert [one.name for one in result.failed] == ["absent, plain", "absent, bits"]
    assert all("absent" in one.reason and "\n" not in one.reason for one in result.failed)
    assert any(message.startswith("variant absent, plain failed: ") for message in caplog.messages)
    best, other = result.entries
    assert (best.transform, best.verdict) == ("plain", "best")
    assert other.verdict in ("worse", "no difference")
    assert other.difference == pytest.approx(other.ndcg_10 - best.ndcg_10)
    assert sum(best.by_query.values()) / len(ASKED) == pytest.approx(best.ndcg_10)
    shown, page = comparison_markdown(result), page_of(open_store(config.runtime.store))
    for text in (shown, page):
        assert "2 of 4 variants failed" in text
        assert "absent, plain" in text
        assert result.entries[1].verdict in text
        assert "cost per million chunks" not in text  # no price
    assert all(name in page and meaning[:30] in page for name, meaning in COLUMNS.items() if "cost" not in name)
    # Figures of single queries are cached, too.
    with patch("isospace.operations.compare_models.compare.answer_set", side_effect=AssertionError("measured again")):
        again = compare_models(config, embed=lambda variant: embed_inline(variant))
    assert [one.by_query for one in again.entries] == [one.by_query for one in result.entries]


def fails(config: PipelineConfig, *, error: Exception) -> RunReport:
    raise error


def test_an_erasure_removes_the_report_on_a_failure_which_may_quote_any_document(contest: dict) -> None:
    config = ComparisonConfig.model_validate(contest)

    def embed(variant: PipelineConfig) -> RunReport:
        if variant.runtime.collection == "c--tiny--plain":
            raise ConfigError("one character of document d00001 needs 900 tokens")
        return embed_inline(variant)

    del config.contest.encoders["absent"]
    compare_models(config, embed=embed)
    store = open_store(config.runtime.store)
    assert "d00001" in page_of(store)
    # The documents are those of the variants' collections, and not of the report's.
    (report,) = [path for path in unproven_files(store, "c--tiny--plain", {"d00001"}) if path.endswith("report.html")]
    assert "contest" in report
    del config.contest.transforms["plain"]
    compare_models(config, embed=embed_inline)
    # One in which nothing failed stays.
    (erased,) = {path.split("/")[1] for path in unproven_files(store, "c--tiny--plain", {"d00001"})}
    assert erased == report.split("/")[1]


def test_if_every_variant_fails_the_comparison_does(contest: dict) -> None:
    config = ComparisonConfig.model_validate(contest)
    with pytest.raises(IsospaceError, match=r"^all 4 variants failed: no memory$"):
        compare_models(config, embed=functools.partial(fails, error=EncoderError("no\nmemory")))
    with pytest.raises(IsospaceError, match=r"^all 4 variants failed: ValueError: from the model's own code$"):
        compare_models(config, embed=functools.partial(fails, error=ValueError("from the model's own code")))
    with pytest.raises(KeyboardInterrupt):
        compare_models(config, embed=functools.partial(fails, error=KeyboardInterrupt()))  # type: ignore[arg-type]


def test_queries_of_another_corpus_end_it(contest: dict, tmp_path: Path) -> None:
    judgements = tmp_path / "r.csv"
    judgements.write_text(judgements.read_text().replace(",d0", ",x0"))
    config = ComparisonConfig.model_validate(contest)
    del config.contest.encoders["absent"], config.contest.transforms["bits"]
    with pytest.raises(IsospaceError, match=r"all 1 variants failed: evaluation set default: none of its 25 judged"):
        compare_models(config, embed=embed_inline)
    judgements.write_text("query_id,doc_id,relevance\nd00000,d00000,0\n")
    with pytest.raises(ConfigError, match=r"no query of .* has a relevant document there"):
        compare_models(config, embed=functools.partial(fails, error=AssertionError("embedded")))


def test_the_report_for_machines_holds_the_same(contest: dict) -> None:
    config = ComparisonConfig.model_validate(contest)
    priced = config.model_copy(update={"runtime": config.runtime.model_copy(update={"price_per_device_hour": 2.5})})
    del priced.contest.encoders["absent"], priced.contest.transforms["bits"]
    result = compare_models(priced, embed=embed_inline)
    assert all(one.cost == pytest.approx(2.5 * one.device_hours) for one in result.entries)  # type: ignore[operator]
    assert "cost per million chunks" in comparison_markdown(result)
    page = page_of(open_store(priced.runtime.store))
    assert "a price of 2.5 per device hour (runtime.price_per_device_hour, in your currency)" in page
    (path,) = Path(priced.runtime.store).glob("reports/*contest/report.json")
    body = json.loads(path.read_text())
    assert body["price_per_device_hour"] == 2.5
    assert [one["verdict"] for one in body["entries"]] == [one.verdict for one in result.entries]
