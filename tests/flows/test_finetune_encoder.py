"""A fine-tuning by its flow: trained, measured, told; and a candidate behind the gate."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from flows.embed_corpus import embed_corpus
from flows.finetune_encoder import finetune_encoder
from isospace.collection.alias import resolve
from isospace.errors import ConfigError, EncoderError, StoreError
from isospace.evaluation.query_sets import EvaluationSet, freeze_set
from isospace.finetuning import stages
from isospace.finetuning.config import FineTuneConfig
from isospace.finetuning.lineage import read_lineage
from isospace.finetuning.workdir import (
    UnfinishedRun,
    clear_unfinished,
    note_unfinished,
    read_unfinished,
    unfinished_path,
)
from isospace.pipeline.config import PipelineConfig
from isospace.storage.store import open_store
from tests.conftest import Configure, write_jsonl
from tests.helpers.tiny import WORDS

pytestmark = pytest.mark.usefixtures("prefect_server")


def corpus(count: int) -> dict[str, str]:
    chance = random.Random(1)
    return {
        f"d{n:05d}": " ".join(f"{' '.join(chance.choices(WORDS, k=5)).capitalize()}." for _ in range(5))
        for n in range(count)
    }


@pytest.fixture
def config(configure: Configure, tmp_path: Path) -> FineTuneConfig:
    documents = corpus(260)
    plain = configure(
        write_jsonl(tmp_path / "d.jsonl", documents), recipe={"chunking": {"include_title": False, "overlap_tokens": 4}}
    )
    embed_corpus(plain)
    asked = {f"q{n}": documents[f"d{n:05d}"].split(". ")[1] for n in range(30)}
    given = EvaluationSet("house", "judged", asked, {name: {f"d{int(name[1:]):05d}": 1} for name in asked})
    freeze_set(open_store(plain.runtime.store), "c", given, source="test")
    outside = tmp_path / "outside"
    outside.mkdir()
    others = list(corpus(400).values())[300:]
    pq.write_table(
        pa.table({"doc_id": [f"o{n}" for n in range(100)], "title": [""] * 100, "text": others}),
        outside / "corpus.parquet",
    )
    pq.write_table(
        pa.table({"query_id": ["a", "b"], "text": [others[0][:40], others[1][:40]]}), outside / "queries.parquet"
    )
    pq.write_table(
        pa.table({"query_id": ["a", "b"], "doc_id": ["o0", "o1"], "relevance": [1, 1]}), outside / "qrels.parquet"
    )
    finetune: dict[str, Any] = {
        "name": "house",
        "pairs": [{"kind": "sentences"}],
        "evaluation": "house",
        "outside": {
            "corpus": str(outside / "corpus.parquet"),
            "queries": str(outside / "queries.parquet"),
            "judgements": str(outside / "qrels.parquet"),
        },
        "negatives": {"ranks": [2, 60], "margin": 0.0, "duplicate": 1.0},
        "training": {"epochs": 2, "rate": 1e-3, "batch": 16, "held_out_share": 0.2, "held_out_texts": 50},
    }
    return FineTuneConfig.model_validate({**plain.model_dump(mode="json"), "finetune": finetune})


def test_it_trains_measures_and_tells_and_leaves_production_alone(config: FineTuneConfig) -> None:
    store = open_store(config.runtime.store)
    before = resolve(store, "c", "production")
    report = finetune_encoder(config)
    assert report.encoder_id != report.base == before.encoder_id
    assert resolve(store, "c", "production") == before
    assert report.inside.queries == 30
    assert report.outside is not None
    assert report.outside.queries == 2
    assert report.sentence.startswith(("It paid", "It did"))
    assert report.plan is not None
    assert report.plan.texts_to_encode == 260
    assert report.report is not None
    page = store.read(report.report).decode()
    for told in (
        "Before and after",
        "Over-segmented words",
        "What it was made from",
        "What it would cost",
        report.encoder_id,
    ):
        assert told in page
    lineage = read_lineage(store, report.encoder_id)
    assert lineage.base == report.base
    assert set(lineage.pairs) == {"sentences"}
    assert lineage.left_out["evaluated_documents"] > 0
    assert lineage.negatives["key"] != "none"
    # Nothing of the texts is in the store but in what forgetting knows: here are numbers and digests alone.
    assert "protein" not in json.dumps(lineage.model_dump(mode="json"))

    # The same once more finds the training, the encoder and the figures.
    again = finetune_encoder(config)
    assert again.encoder_id == report.encoder_id
    assert again.lineage == report.lineage

    # Told to, it embeds a candidate and hands it to the gate.
    asked = {"queries": None, "set": "house", "rules": ["ndcg@10 >= 1.1"]}
    gated = config.model_copy(
        update={
            "recipe": config.recipe.model_validate({**config.recipe.model_dump(mode="json"), "gate": asked}),
            "finetune": config.finetune.model_copy(update={"candidate": True}),
        }
    )
    with pytest.raises(Exception, match="gate"):
        finetune_encoder(gated)
    assert resolve(store, "c", "production").encoder_id == report.base
    assert resolve(store, "c", "candidate").encoder_id == report.encoder_id
    # A refusal is an end, too.
    assert read_unfinished(gated) is None


def test_one_that_was_cut_off_goes_on_with_its_snapshot_whatever_was_committed_since(
    config: FineTuneConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def cut_off(*args: object, **options: object) -> None:
        raise EncoderError("the power failed")

    store = open_store(config.runtime.store)
    first = resolve(store, "c", "production")
    with monkeypatch.context() as patched:
        patched.setattr(stages, "train", cut_off)
        patched.setattr(stages, "TRAIN", stages.TRAIN.retried(0))
        with pytest.raises(EncoderError, match="the power failed"):
            finetune_encoder(config)
    write_jsonl(Path(str(config.runtime.source)), {**corpus(260), "new": "A cell of the gene."})
    embed_corpus(PipelineConfig(recipe=config.recipe, runtime=config.runtime))
    second = resolve(store, "c", "production")
    assert second.sequence > first.sequence
    report = finetune_encoder(config)
    assert report.lineage.snapshot_id == first.snapshot_id
    assert f"continues with snapshot {first.sequence}" in caplog.text
    # Nothing is left to go on with: the next one takes what is in production.
    assert read_unfinished(config) is None


def test_a_candidate_that_was_cut_off_is_gone_on_with(config: FineTuneConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows import finetune_encoder as module

    asked = config.model_copy(update={"finetune": config.finetune.model_copy(update={"candidate": True})})

    def cut_off(_: object) -> None:
        raise StoreError("the power failed")

    monkeypatch.setattr(module, "embed_subflow", cut_off)
    with pytest.raises(StoreError, match="the power failed"):
        finetune_encoder(asked)
    current = resolve(open_store(config.runtime.store), "c", "production")
    assert read_unfinished(asked) == UnfinishedRun(current.sequence, current.snapshot_id)
    # Seven days from the first time, however often it is tried.
    age = time.time() - 6.9 * 86_400
    os.utime(unfinished_path(asked), (age, age))
    note_unfinished(asked, current.sequence, current.snapshot_id)
    assert unfinished_path(asked).stat().st_mtime == pytest.approx(age, abs=1)
    os.utime(unfinished_path(asked), (age - 10_000, age - 10_000))
    assert read_unfinished(asked) is None
    clear_unfinished(asked)
    assert not unfinished_path(asked).exists()


def test_what_cannot_be_trained_is_refused_before_anything_is_spent(config: FineTuneConfig) -> None:
    cut = config.recipe.encoder.model_copy(update={"max_tokens": 40})
    other = config.model_copy(update={"recipe": config.recipe.model_copy(update={"encoder": cut})})
    with pytest.raises(ConfigError, match=r"recipe\.encoder is .*, and collection 'c' is embedded with"):
        finetune_encoder(other)
    given = EvaluationSet("plain", "unjudged", {"q": "cell"})
    freeze_set(open_store(config.runtime.store), "c", given, source="test")
    unjudged = config.model_copy(update={"finetune": config.finetune.model_copy(update={"evaluation": "plain"})})
    with pytest.raises(ConfigError, match="has no judgements"):
        finetune_encoder(unjudged)


def test_the_command_says_what_is_wrong_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    described = yaml.safe_load(Path("configs/finetune_demo.yaml").read_text())
    described["finetune"]["training"]["epochs"] = 9
    path.write_text(yaml.safe_dump(described))
    done = subprocess.run(
        [sys.executable, "-m", "flows.finetune_encoder", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "finetune.training.epochs" in done.stderr
    assert "Traceback" not in done.stderr
