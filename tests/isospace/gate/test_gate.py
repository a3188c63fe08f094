import json
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from isospace.alias import alias_history, aliases, resolve, rollback
from isospace.cli import app
from isospace.config import GateSpec, PipelineConfig
from isospace.errors import ConfigError, GateError, NotFoundError
from isospace.evaluation.pseudo import make_set
from isospace.evaluation.sets import freeze_set
from isospace.gate.gating import gate_snapshot
from isospace.gate.verdicts import promote_judged, read_verdicts, require_passed
from isospace.index import open_index
from isospace.store import Store, open_store
from tests.conftest import sentences, write_jsonl
from tests.inline import embed_inline
from tests.tiny import WORDS

NOT_WORSE = "ndcg@10 not worse than production by more than 0.01 at p < 0.05"


@dataclass(frozen=True)
class Judged:
    """A good snapshot (1), a bad one (2), and one whose vectors are the good one's with other representations (3)."""

    folder: Path
    queries: Path
    judgements: Path

    @property
    def store(self) -> Store:
        return open_store(self.folder)

    def spec(self, *rules: str, **given) -> GateSpec:
        return GateSpec(rules=rules, queries=str(self.queries), judgements=str(self.judgements), **given)

    def judge(self, reference: str, spec: GateSpec, **given):
        manifest = resolve(self.store, "c", reference)
        return gate_snapshot(self.store, manifest, spec, against="production", run_id="r", **given)


@pytest.fixture(scope="module")
def made(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Judged:
    folder = tmp_path_factory.mktemp("gate")
    texts = sentences(120)
    source = write_jsonl(folder / "d.jsonl", texts)
    # A query is what its document is encoded as: bits alone confuse them all the same.
    asked = {f"q{name}": f"title {name} {text}" for name, text in list(texts.items())[:60]}
    pq.write_table(
        pa.table(
            {"query_id": list(asked), "text": list(asked.values()), "lang": [("en", "de")[n % 2] for n in range(60)]}
        ),
        folder / "q.parquet",
    )
    pq.write_table(
        pa.table({"query_id": list(asked), "doc_id": [name[1:] for name in asked], "relevance": [1] * 60}),
        folder / "r.parquet",
    )
    for transform in (
        {"representations": ["float32", "int8"]},
        {"representations": ["binary"]},
        {"representations": ["int8", "float32"]},
    ):
        recipe = {
            "documents": {"title_column": "title"},
            "encoder": {"model": str(tiny_model)},
            "transform": transform,
            "chunking": {"overlap_tokens": 4},
        }
        runtime = {"store": str(folder / "store"), "collection": "c", "source": str(source), "promote_to": None}
        embed_inline(PipelineConfig.model_validate({"recipe": recipe, "runtime": runtime}))
    return Judged(folder / "store", folder / "q.parquet", folder / "r.parquet")


@pytest.fixture
def judged(made: Judged, tmp_path: Path) -> Judged:
    shutil.copytree(made.folder, tmp_path / "store")
    found = Judged(tmp_path / "store", made.queries, made.judgements)
    promote_judged(found.store, "c", "production", resolve(found.store, "c", "1"), reason="first")
    return found


def test_what_is_as_good_passes_and_what_is_worse_is_rejected_with_its_figures(judged: Judged):
    spec = judged.spec(NOT_WORSE, "recall@10 >= 0.5", "norms within 1e-6", "overlap@10 >= 0.9")
    good, bad = judged.judge("3", spec), judged.judge("2", spec)
    assert good.passed
    assert good.agreement["overlap"] == 1.0
    assert not bad.passed
    assert [one.rule for one in bad.failed()] == [NOT_WORSE, "recall@10 >= 0.5", "overlap@10 >= 0.9"]
    assert bad.findings[0].figure == pytest.approx(bad.measures["nDCG@10"]["difference"])
    assert "was rejected against snapshot 1" in bad.describe()
    with pytest.raises(GateError, match="Production stays where it was"):
        require_passed(bad)
    assert aliases(judged.store, "c")["candidate"].snapshot == 2
    assert aliases(judged.store, "c")["production"].snapshot == 1
    assert read_verdicts(judged.store, "c", bad.snapshot_id) == [bad]


def test_the_report_is_a_page_and_json(judged: Judged):
    verdict = judged.judge("2", judged.spec(NOT_WORSE))
    page = (judged.folder / verdict.report).read_text()
    assert "was rejected" in page
    assert page.count("<svg") >= 4
    assert "http" not in page.replace("http://www.w3.org/", "").replace("http-equiv", "")
    body = json.loads((judged.folder / verdict.report).with_name("report.json").read_text())
    assert body["verdict"]["passed"] is False
    assert body["comparison"]["changes"]


def test_too_few_queries_show_nothing(judged: Judged, tmp_path: Path):
    table = pq.read_table(judged.queries).slice(0, 3)
    pq.write_table(table, tmp_path / "few.parquet")
    spec = GateSpec(rules=(NOT_WORSE,), queries=str(tmp_path / "few.parquet"), judgements=str(judged.judgements))
    verdict = judged.judge("3", spec)
    # Nothing has changed, and three queries cannot show it.
    assert verdict.findings[0].figure == 0.0
    assert not verdict.passed
    loose = GateSpec(
        rules=("ndcg@10 not worse than production by more than 0.01",), queries=spec.queries, judgements=spec.judgements
    )
    assert judged.judge("3", loose).passed


def test_without_production_rules_that_compare_are_left_open(made: Judged, tmp_path: Path):
    shutil.copytree(made.folder, tmp_path / "store")
    alone = Judged(tmp_path / "store", made.queries, made.judgements)
    verdict = alone.judge("1", alone.spec(NOT_WORSE, "latency p99 <= 1.3 x", "recall@10 >= 0.5"))
    assert [one.passed for one in verdict.findings] == [None, None, True]
    assert verdict.passed
    assert "2 left open" in verdict.describe()


def test_a_verdict_is_given_once_for_the_same_question(judged: Judged):
    spec = judged.spec(NOT_WORSE)
    first = judged.judge("2", spec)
    assert judged.judge("2", spec) == first
    assert judged.judge("2", spec, again=True).number == 2
    assert judged.judge("2", judged.spec("recall@10 >= 0.01")).number == 3


def test_groups_of_queries_can_be_gated(judged: Judged):
    assert judged.judge("1", judged.spec("recall@10 for lang=de >= 0.5")).passed
    with pytest.raises(ConfigError, match=r"no such group. Groups: .*lang=en"):
        judged.judge("1", judged.spec("recall@10 for lang=fr >= 0.5"))


def test_latency_is_a_ratio_to_production(judged: Judged):
    assert judged.judge("3", judged.spec("latency p50 <= 1000 x")).passed
    assert not judged.judge("3", judged.spec("latency p50 <= 0.0001 x")).passed


def test_production_that_cannot_be_searched_so_is_searched_as_it_can(judged: Judged):
    spec = judged.spec("recall@10 >= 0.1", search={"mode": "quantized", "representation": "int8"})
    promote_judged(judged.store, "c", "production", resolve(judged.store, "c", "2"), reason="t")
    verdict = judged.judge("3", spec)
    assert "production was searched with mode auto" in verdict.notes[0]


def test_promotion_asks_the_gate_and_force_needs_a_reason(judged: Judged):
    bad = resolve(judged.store, "c", "2")
    judged.judge("2", judged.spec(NOT_WORSE))
    with pytest.raises(GateError, match=r"was rejected .* give --force"):
        promote_judged(judged.store, "c", "production", bad, reason="I want it")
    with pytest.raises(GateError, match="needs a reason"):
        promote_judged(judged.store, "c", "production", bad, reason=" ", force=True)
    promote_judged(judged.store, "c", "production", bad, reason="an experiment", force=True)
    last = alias_history(judged.store, "c", "production")[-1]
    assert (last.snapshot, last.reason) == (2, "an experiment")
    assert "was rejected" in last.forced
    assert rollback(judged.store, "c", "production", reason="enough").snapshot == 1


def test_a_snapshot_with_rules_that_was_never_judged_is_not_promoted(judged: Judged):
    path = next((judged.folder / "collections/c/snapshots").glob("*2.json"))
    from isospace.fingerprint import seal, unseal

    body = unseal(path.read_bytes(), name="x")
    body["recipe"]["gate"] = {"rules": ["recall@10 >= 0.5"]}
    path.write_bytes(seal(body))
    with pytest.raises(GateError, match="was not judged"):
        promote_judged(judged.store, "c", "production", resolve(judged.store, "c", "2"), reason="")


def test_pseudo_queries_do_not_find_themselves_and_are_marked(judged: Judged, tiny_model: Path, tmp_path: Path):
    chance = random.Random(0)
    documents = {f"d{n:03d}": " ".join(" ".join(chance.choices(WORDS, k=5)) + "." for _ in range(3)) for n in range(60)}
    source = write_jsonl(tmp_path / "p.jsonl", documents)
    recipe = {
        "documents": {"title_column": "title"},
        "encoder": {"model": str(tiny_model)},
        "chunking": {"overlap_tokens": 0},
    }
    runtime = {"store": str(tmp_path / "p"), "collection": "c", "source": str(source)}
    embed_inline(PipelineConfig.model_validate({"recipe": recipe, "runtime": runtime}))
    store = open_store(tmp_path / "p")
    with open_index(store, "c") as index:
        given = make_set(index.view, "default", size=40)
        assert given.kind == "pseudo"
        assert all(query not in given.remainders[name] for name, query in given.queries.items())
        freeze_set(store, "c", given, source="corpus")
    spec = GateSpec(rules=("recall@100 >= 0.0",))
    verdict = gate_snapshot(store, resolve(store, "c", "1"), spec, against="production", run_id="r")
    assert verdict.notes == ("the queries are pseudo-queries made from the corpus: easier than people's",)
    assert verdict.set_kind == "pseudo"


def test_a_gate_without_its_set_says_how_to_get_one(judged: Judged):
    with pytest.raises(NotFoundError, match="isospace sets add"):
        judged.judge("3", GateSpec(rules=("recall@10 >= 0.5",), set="other"))


def test_the_commands(judged: Judged, tmp_path: Path):
    run, place = CliRunner(), [str(judged.folder), "c"]
    added = run.invoke(
        app, ["sets", "add", *place, "mine", str(judged.queries), "--judgements", str(judged.judgements)]
    )
    assert "mine, version 1" in added.output
    assert "60" in run.invoke(app, ["sets", "list", *place]).output
    found = json.loads(run.invoke(app, ["evaluate", *place, "--set", "mine", "--alias", "1", "--json"]).output)
    assert found["figures"]["all"]["nDCG@10"] > found["figures"]["all"]["nDCG@10"] / 2
    compared = json.loads(run.invoke(app, ["compare", *place, "1", "2", "--set", "mine", "--json"]).output)
    assert compared["measures"]["nDCG@10"]["difference"] < -0.1
    refused = run.invoke(app, ["gate", *place, "2", "--set", "mine", "--rule", NOT_WORSE])
    assert refused.exit_code == 1
    assert "NO" in refused.output
    shown = json.loads(run.invoke(app, ["verdicts", *place, "2", "--json"]).output)
    assert [one["passed"] for one in shown] == [False]
