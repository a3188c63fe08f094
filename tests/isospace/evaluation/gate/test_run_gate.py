import json
import math
import random
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from isospace.cli.main import app
from isospace.collection.alias import alias_history, aliases, resolve, rollback
from isospace.errors import ConfigError, GateError, NotFoundError, QueryError
from isospace.evaluation.gate.judge import gate_key, gate_set
from isospace.evaluation.gate.rules import parse_rule
from isospace.evaluation.gate.run_gate import gate_snapshot
from isospace.evaluation.gate.spec import GateSpec
from isospace.evaluation.gate.verdict_markdown import verdict_markdown
from isospace.evaluation.gate.verdicts import promote_judged, read_verdicts, require_passed
from isospace.evaluation.metrics import per_query
from isospace.evaluation.pseudo_query_set import make_set
from isospace.evaluation.query_sets import EvaluationSet, freeze_set, read_set
from isospace.operations.audit.audit import audit_alias
from isospace.operations.audit.thresholds import Thresholds
from isospace.pipeline.config import PipelineConfig
from isospace.search.open_index import open_index
from isospace.storage.hashing import seal, unseal
from isospace.storage.store import Store, open_store
from tests.conftest import sentences, write_jsonl
from tests.helpers.forging import forge_vectors
from tests.helpers.inline import embed_inline
from tests.helpers.tiny import WORDS

# Sixty queries can show a margin of 3 / 60.
NOT_WORSE = "ndcg@10 not worse than production by more than 0.05 at p < 0.05"


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
    with pytest.raises(GateError, match="Production did not move"):
        require_passed(bad)
    assert aliases(judged.store, "c")["candidate"].snapshot == 2
    assert aliases(judged.store, "c")["production"].snapshot == 1
    assert read_verdicts(judged.store, "c", bad.snapshot_id) == [bad]


def test_the_report_is_a_page_and_json(judged: Judged):
    verdict = judged.judge("2", judged.spec(NOT_WORSE))
    page = (judged.folder / verdict.report).read_text()
    assert "was rejected" in page
    assert page.count("<svg") == 3
    assert "http" not in page.replace("http://www.w3.org/", "").replace("http-equiv", "")
    body = json.loads((judged.folder / verdict.report).with_name("report.json").read_text())
    assert body["verdict"]["passed"] is False
    assert body["comparison"]["changes"]


def test_too_few_queries_show_nothing(judged: Judged):
    # Nothing has changed, and sixty queries cannot show it so exactly.
    verdict = judged.judge("3", judged.spec("ndcg@10 not worse than production by more than 0.01 at p < 0.05"))
    assert verdict.findings[0].figure == 0.0
    assert not verdict.passed
    assert "needs 300 queries, or a wider margin" in verdict.findings[0].detail
    assert judged.judge("3", judged.spec("ndcg@10 not worse than production by more than 0.01")).passed


def test_without_production_rules_that_compare_are_left_open(made: Judged, tmp_path: Path):
    shutil.copytree(made.folder, tmp_path / "store")
    alone = Judged(tmp_path / "store", made.queries, made.judgements)
    verdict = alone.judge("1", alone.spec(NOT_WORSE, "latency p99 <= 1.3 x", "recall@10 >= 0.5"))
    assert [one.passed for one in verdict.findings] == [None, None, True]
    assert verdict.passed
    assert "2 skipped" in verdict.describe()


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


def with_rules(judged: Judged, number: int, *rules: str) -> None:
    """Put rules into the recipe of a snapshot."""
    path = judged.folder / "collections/c/snapshots" / f"{number:08d}.json"
    body = unseal(path.read_bytes(), name="x")
    body["recipe"]["gate"] = {"rules": list(rules)}
    path.write_bytes(seal(body))


def test_a_snapshot_with_rules_that_was_never_judged_by_them_is_not_promoted(judged: Judged):
    with_rules(judged, 2, "recall@10 >= 0.9")
    with pytest.raises(GateError, match="was not judged by the 1 rules"):
        promote_judged(judged.store, "c", "production", resolve(judged.store, "c", "2"), reason="")
    # Another rule that anything passes is no way round.
    assert judged.judge("2", judged.spec("recall@100 >= 0")).passed
    with pytest.raises(GateError, match="was not judged by the 1 rules"):
        promote_judged(judged.store, "c", "production", resolve(judged.store, "c", "2"), reason="")


def test_a_verdict_counts_against_what_the_alias_names_now(judged: Judged):
    bad, good = resolve(judged.store, "c", "2"), resolve(judged.store, "c", "3")
    spec = judged.spec(NOT_WORSE)
    # Compared with nothing, everything passes.
    verdict = gate_snapshot(judged.store, bad, spec, against="nowhere", run_id="r")
    assert verdict.passed
    with pytest.raises(GateError, match=r"judged against nothing, but production now names snapshot 1"):
        promote_judged(judged.store, "c", "production", bad, reason="")
    assert judged.judge("3", spec).passed
    promote_judged(judged.store, "c", "other", good, reason="an alias that names nothing yet")
    promote_judged(judged.store, "c", "production", bad, reason="by force", force=True)
    with pytest.raises(GateError, match=r"judged against snapshot 1, but production now names snapshot 2"):
        promote_judged(judged.store, "c", "production", good, reason="")
    # What was in production may come back.
    promote_judged(judged.store, "c", "production", resolve(judged.store, "c", "1"), reason="back")


def test_a_mistyped_alias_is_no_way_round(judged: Judged):
    place = [str(judged.folder), "c"]
    found = CliRunner().invoke(
        app, ["gate", *place, "--snapshot", "2", "--against", "prodution", "--rule", "norms within 1"]
    )
    assert isinstance(found.exception, NotFoundError)
    assert "--against prodution: there is no such alias or snapshot" in str(found.exception)


def test_a_lexical_index_that_changed_is_judged_again(judged: Judged):
    spec = judged.spec("recall@10 >= 0.01")
    first = judged.judge("3", spec)
    (record,) = (judged.folder / "collections/c/lexical").glob(f"{first.snapshot_id}-*.json")
    body = unseal(record.read_bytes(), name="x")
    record.write_bytes(seal({**body, "note": "another"}))
    again = Judged(judged.folder, judged.queries, judged.judgements)
    manifest = resolve(again.store, "c", "3")
    production = resolve(again.store, "c", "production")
    given = gate_set(again.store, "c", spec)
    assert gate_key(again.store, spec, given, manifest, production) != first.key


def test_a_group_does_not_shrink_to_what_a_candidate_has_kept(tiny_model: Path, tmp_path: Path):
    rows = [
        {"doc_id": name, "text": text, "title": "t", "lang": ["en", "de"][n % 2]}
        for n, (name, text) in enumerate(sentences(60).items())
    ]
    recipe = {
        "documents": {"title_column": "title", "metadata_columns": ["lang"]},
        "encoder": {"model": str(tiny_model)},
        "chunking": {"overlap_tokens": 4},
    }
    source = tmp_path / "d.jsonl"
    runtime = {"store": str(tmp_path / "s"), "collection": "c", "source": str(source)}
    config = PipelineConfig.model_validate({"recipe": recipe, "runtime": runtime})
    source.write_text("\n".join(map(json.dumps, rows)))
    embed_inline(config)
    source.write_text("\n".join(json.dumps(row) for n, row in enumerate(rows) if row["lang"] == "en" or n < 16))
    embed_inline(config.model_copy(update={"runtime": config.runtime.model_copy(update={"promote_to": None})}))
    store = open_store(tmp_path / "s")
    queries = {row["doc_id"]: f"t {row['text']}" for row in rows}
    freeze_set(store, "c", EvaluationSet("default", "judged", queries, {q: {q: 1} for q in queries}), source="t")
    spec = GateSpec(rules=("recall@10 for lang=de >= 0.9",))
    verdict = gate_snapshot(store, resolve(store, "c", "2"), spec, against="production", run_id="r")
    assert not verdict.passed
    assert verdict.findings[0].figure == pytest.approx(8 / 30, abs=0.05)


def test_half_precision_is_of_length_one_within_its_rounding(tiny_model: Path, tmp_path: Path):
    source = write_jsonl(tmp_path / "d.jsonl", sentences(40))
    recipe = {
        "documents": {"title_column": "title"},
        "encoder": {"model": str(tiny_model)},
        "chunking": {"overlap_tokens": 4},
        "transform": {"representations": ["float16"]},
    }
    runtime = {"store": str(tmp_path / "s"), "collection": "c", "source": str(source)}
    embed_inline(PipelineConfig.model_validate({"recipe": recipe, "runtime": runtime}))
    store = open_store(tmp_path / "s")
    spec = GateSpec(rules=("norms within 1e-6",))
    verdict = gate_snapshot(store, resolve(store, "c", "1"), spec, against="production", run_id="r")
    assert verdict.passed
    assert "float16 rounds by up to" in verdict.findings[0].detail
    audit = audit_alias(store, "c", "production", Thresholds(mean_cosine=1.0), run_id="r")
    assert audit.record.alarms == ()


@pytest.fixture
def pseudo(tiny_model: Path, tmp_path: Path) -> PipelineConfig:
    """Documents of three sentences, and pseudo-queries of them."""
    chance = random.Random(0)
    documents = {f"d{n:03d}": " ".join(" ".join(chance.choices(WORDS, k=5)) + "." for _ in range(3)) for n in range(80)}
    source = write_jsonl(tmp_path / "p.jsonl", documents)
    recipe = {
        "documents": {"title_column": "title"},
        "encoder": {"model": str(tiny_model)},
        "chunking": {"overlap_tokens": 0},
    }
    runtime = {"store": str(tmp_path / "p"), "collection": "c", "source": str(source), "max_removed_share": 1.0}
    config = PipelineConfig.model_validate({"recipe": recipe, "runtime": runtime})
    embed_inline(config)
    store = open_store(tmp_path / "p")
    with open_index(store, "c") as index:
        given = make_set(index.view, "default", size=40)
        assert given.kind == "pseudo"
        assert all(query not in given.remainders[name] for name, query in given.queries.items())
        freeze_set(store, "c", given, source="corpus")
    return config


def recall(config: PipelineConfig, **search: object) -> float:
    store = open_store(config.runtime.store)
    spec = GateSpec(rules=("recall@10 >= 0.0",), search=search)
    verdict = gate_snapshot(store, resolve(store, "c", "production"), spec, against="nowhere", run_id="r", again=True)
    assert (
        verdict.notes[0]
        == "the queries are pseudo-queries made from the corpus, which are easier than queries of people"
    )
    assert verdict.set_kind == "pseudo"
    return verdict.measures["nDCG@10"]["after"]


def test_pseudo_queries_do_not_reward_what_is_broken(pseudo: PipelineConfig, tmp_path: Path):
    store, sound = open_store(pseudo.runtime.store), recall(pseudo)
    assert 0.0 < sound < 0.95
    for search in ({"mode": "hybrid"}, {"mode": "lexical"}, {"metric": "l2"}):
        with pytest.raises(QueryError, match="does not work with pseudo-queries"):
            recall(pseudo, **search)
    for search in ({"offset": 0}, {"diversity": 0.5}, {"min_score": -1.0}):
        with pytest.raises(QueryError, match="sets are searched without pages"):
            recall(pseudo, **search)
    # What is stored points the other way: no text that is encoded anew makes up for it.
    shutil.copytree(store.root, tmp_path / "turned")
    turned = pseudo.model_copy(
        update={"runtime": pseudo.runtime.model_copy(update={"store": str(tmp_path / "turned")})}
    )
    forge_vectors(open_store(tmp_path / "turned"), "c", lambda vectors: -vectors)
    assert recall(turned) < sound
    # What is asked for is deleted: it cannot be found.
    asked = {doc for found in read_set(store, "c", "default").judgements.values() for doc in found}
    lines = Path(pseudo.runtime.source).read_text().splitlines()
    Path(pseudo.runtime.source).write_text("\n".join(line for line in lines if json.loads(line)["doc_id"] not in asked))
    embed_inline(pseudo)
    assert recall(pseudo) == 0.0


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
    found = json.loads(run.invoke(app, ["evaluate", *place, "--set", "mine", "--snapshot", "1", "--json"]).stdout)
    assert found["figures"]["all"]["nDCG@10"] > found["figures"]["all"]["nDCG@10"] / 2
    sides = ["--against", "1", "--snapshot", "2"]
    compared = json.loads(run.invoke(app, ["compare", *place, *sides, "--set", "mine", "--json"]).stdout)
    assert compared["measures"]["nDCG@10"]["difference"] < -0.1
    refused = run.invoke(app, ["gate", *place, "--snapshot", "2", "--set", "mine", "--rule", NOT_WORSE])
    assert refused.exit_code == 1
    assert "NO" in refused.output
    shown = json.loads(run.invoke(app, ["verdicts", *place, "--snapshot", "2", "--json"]).stdout)
    assert [one["passed"] for one in shown] == [False]


@pytest.mark.integration
@pytest.mark.parametrize("share", [1, 2, 60])
@pytest.mark.parametrize(
    "rule",
    [
        NOT_WORSE,
        "ndcg@10 not worse than production by more than 0.05",
        "recall@10 >= 0.01",
        "recall@10 <= 1",
        "ndcg@10 for lang=de >= 0.01",
    ],
)
def test_a_metric_that_is_not_a_number_never_passes(
    judged: Judged, monkeypatch: pytest.MonkeyPatch, rule: str, share: int
):
    def broken(*given):
        values = per_query(*given)
        missing = dict.fromkeys([f"qd{number:05d}" for number in range(1, 60, share)], math.nan)
        return {name: by_query | missing for name, by_query in values.items()}

    monkeypatch.setattr("isospace.evaluation.comparison.per_query", broken)
    verdict = judged.judge("3", judged.spec(rule))
    assert verdict.findings[0].passed is False
    assert verdict.findings[0].figure is None
    assert "which proves nothing" in verdict.findings[0].detail
    assert not verdict.passed
    assert "–" in verdict_markdown(verdict)
    assert read_verdicts(judged.store, "c", verdict.snapshot_id) == [verdict]


@pytest.mark.integration
@pytest.mark.parametrize("rule", ["norms within 1", "mean cosine <= 1", "isotropy >= 0", "evenness >= 0"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_vectors_that_are_not_finite_never_pass(judged: Judged, rule: str, bad: float):
    def change(vectors):
        vectors[3, 1] = bad
        return vectors

    promote_judged(judged.store, "c", "broken", resolve(judged.store, "c", "3"), reason="x")
    forge_vectors(judged.store, "c", change, alias="broken")
    verdict = judged.judge("3", GateSpec(rules=(rule,)))
    assert verdict.findings[0].passed is False
    assert "which proves nothing" in verdict.findings[0].detail


@pytest.mark.integration
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("text", ["norms within 1", "recall@10 <= 1", "latency p99 <= 1000 x", NOT_WORSE])
def test_a_bound_that_is_not_finite_never_passes(
    judged: Judged, monkeypatch: pytest.MonkeyPatch, text: str, value: float
):
    broken = replace(parse_rule(text), value=value)
    monkeypatch.setattr("isospace.evaluation.gate.judge.parse_rule", lambda _: broken)
    finding = judged.judge("3", judged.spec(text)).findings[0]
    assert finding.passed is False
    assert "expected finite numbers in the rule" in finding.detail


@pytest.mark.parametrize("level", [math.nan, math.inf])
def test_a_level_that_is_not_finite_never_passes(judged: Judged, monkeypatch: pytest.MonkeyPatch, level: float):
    broken = replace(parse_rule(NOT_WORSE), p=level)
    monkeypatch.setattr("isospace.evaluation.gate.judge.parse_rule", lambda _: broken)
    assert judged.judge("3", judged.spec(NOT_WORSE)).findings[0].passed is False
