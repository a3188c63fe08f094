"""Training: a killed one continues, a finished one is reused, and each kind gives a model that both sides can load."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from isospace.encoding.encoder import SentenceEncoder
from isospace.encoding.registry.register import prepare_encoder
from isospace.encoding.spec import EncoderSpec, PromptsSpec
from isospace.errors import EncoderError
from isospace.finetuning.config import LoraSpec, LossSpec, TrainingSpec
from isospace.finetuning.examples import Example
from isospace.finetuning.lineage import register_encoder, tuned_spec
from isospace.finetuning.training import Job, TrainingResult, train
from isospace.finetuning.workdir import work_folder
from isospace.storage.store import Store, open_store
from tests.helpers.tiny import WORDS

FAST = {"batch": 8, "rate": 1e-3, "evaluations": 4, "held_out_texts": 50, "patience": 50, "warm_up": 0.0}


def pairs(count: int, *, seed: int, negatives: int = 1) -> list[Example]:
    """Questions in one half of the words, answers in the other: the base cannot know which of them belong together."""
    half = len(WORDS) // 2
    means = dict(zip(WORDS[:half], WORDS[half:], strict=False))
    chance = random.Random(seed)
    found = []
    for number in range(count):
        words = chance.choices(WORDS[:half], k=8)
        others = tuple(f"{' '.join(chance.choices(WORDS[half:], k=8))} other {n}" for n in range(negatives))
        text = f"{' '.join(means[word] for word in words)} number {number}"
        margins = tuple(float(n + 1) for n in range(negatives))
        found.append(
            Example(f"{' '.join(words[:4])} {seed} {number}", text, f"d{seed}-{number}", "titles", others, margins)
        )
    return found


@pytest.fixture(scope="module", autouse=True)
def one_thread_each() -> Iterator[None]:
    """Trainings of tests that run side by side would wait for each other's threads at every layer."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def job(tiny_model: Path, tiny_encoder: SentenceEncoder) -> Job:
    return Job(
        # What was trained on is searched again: that it is learned must not hang on a processor's rounding.
        tiny_model,
        tiny_encoder.record,
        pairs(480, seed=1),
        pairs(480, seed=1)[:24],
        [e.positive for e in pairs(26, seed=3)],
        LossSpec(),
        TrainingSpec.model_validate(FAST),
        "cpu",
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def weights(trained: TrainingResult) -> dict[str, np.ndarray]:
    return safetensors.numpy.load_file(trained.folder / "model.safetensors")


def registered(store: Store, base: Path, trained: TrainingResult, encoder: SentenceEncoder) -> str:
    told: dict[str, Any] = {
        "base": encoder.record.encoder_id, "name": "n", "snapshot_id": "s", "collection": "c", "pairs": {},
        "held_out": 1,
        "left_out": {}, "negatives": {}, "loss": {}, "training": {},
    }  # fmt: skip
    return register_encoder(store, EncoderSpec(model=str(base)), trained, told).encoder_id


@dataclass(frozen=True)
class Undisturbed:
    """A training of three epochs that ran to its end."""

    trained: TrainingResult
    told: list[dict[str, Any]]
    cache: Path


@pytest.fixture(scope="module")
def undisturbed(job: Job, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    cache, told = tmp_path_factory.mktemp("undisturbed"), []
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("ISOSPACE_CACHE", str(cache))
        patched.setenv("PYTHONPATH", importable())
        return Undisturbed(train(longer(job), on_event=lambda event: told.append(dict(event))), told, cache)


def longer(job: Job) -> Job:
    return replace(job, spec=job.spec.model_copy(update={"epochs": 3}))


@pytest.mark.integration
def test_a_model_learns_and_becomes_an_encoder_beside_its_base(
    job: Job, undisturbed: Undisturbed, store: Store, tiny_model: Path, tiny_encoder: SentenceEncoder
) -> None:
    base = prepare_encoder(store, EncoderSpec(model=str(tiny_model)))
    trained, told = undisturbed.trained, undisturbed.told
    scores = {entry["step"]: entry["ndcg"] for entry in trained.history if "ndcg" in entry}
    assert min(scores) == 0
    assert scores[trained.best_step] == max(scores.values())
    assert trained.best_step > 0
    assert {"step", "steps", "ndcg"} <= {key for event in told for key in event}
    encoder_id = registered(store, tiny_model, trained, tiny_encoder)
    assert encoder_id != base.record.encoder_id
    again = prepare_encoder(store, tuned_spec(EncoderSpec(model=str(tiny_model)), encoder_id))
    assert again.record.encoder_id == encoder_id
    texts = [e.positive for e in job.training[:5]]
    assert not np.allclose(again.encode(texts, "document"), base.encode(texts, "document"), atol=1e-3)
    # The base is what it was.
    assert prepare_encoder(store, EncoderSpec(model=str(tiny_model))).record == base.record


@pytest.mark.integration
def test_a_finished_training_is_not_repeated(
    job: Job, undisturbed: Undisturbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ISOSPACE_CACHE", str(undisturbed.cache))
    monkeypatch.setattr(subprocess, "Popen", None)
    assert train(longer(job)) == undisturbed.trained
    assert job.key != replace(job, spec=job.spec.model_copy(update={"seed": 1})).key
    assert job.key != replace(job, training=job.training[1:]).key
    assert job.key != replace(job, loss=LossSpec(scale=10)).key


@pytest.mark.integration
@pytest.mark.parametrize("moment", ["a checkpoint", "half a checkpoint"])
def test_a_killed_training_ends_with_the_weights_of_an_undisturbed_one(
    job: Job, undisturbed: Undisturbed, moment: str
) -> None:
    long, expected = longer(job), undisturbed.trained
    process = multiprocessing.get_context("spawn").Process(target=train, args=(long,))
    process.start()
    checkpoints = work_folder(long.key) / "checkpoints"
    deadline = time.monotonic() + 120
    while len(list(checkpoints.glob("*/whole.json"))) < 2 and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not (work_folder(long.key) / "done.json").exists()
    _wait_until_nothing_writes(checkpoints)
    if moment == "half a checkpoint":
        last = max(checkpoints.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
        (last / "whole.json").unlink(missing_ok=True)
        (last / "model.safetensors").write_bytes(b"half")
    told: list[dict[str, Any]] = []
    resumed = train(long, on_event=lambda event: told.append(dict(event)))
    assert min(event["step"] for event in told) > 1
    assert resumed.best_step == expected.best_step
    assert [e for e in resumed.history if "ndcg" in e] == [e for e in expected.history if "ndcg" in e]
    for name, values in weights(expected).items():
        np.testing.assert_array_equal(weights(resumed)[name], values, err_msg=name)


def _wait_until_nothing_writes(folder: Path) -> None:
    """The trainer notices within half a second that its run is gone."""
    deadline, before = time.monotonic() + 20, -1.0
    while time.monotonic() < deadline:
        now = max((path.stat().st_mtime for path in folder.rglob("*") if path.exists()), default=0.0)
        if now == before:
            return
        before = now
        time.sleep(1.5)
    raise AssertionError(f"{folder}: the trainer outlives the run that started it")


@pytest.mark.integration
@pytest.mark.parametrize(
    ("loss", "training", "negatives"),
    [
        ({"kind": "ranking", "cached": 4}, {}, 1),
        ({"kind": "ranking", "matryoshka": [8]}, {}, 0),
        ({"kind": "triplet"}, {}, 1),
        ({"kind": "margin_mse"}, {}, 2),
        ({"kind": "ranking"}, {"lora": LoraSpec(rank=4)}, 1),
        ({"kind": "ranking"}, {"processes": 2}, 1),
    ],
    ids=["cached", "matryoshka", "triplet", "margin_mse", "lora", "two processes"],
)
def test_each_way_of_training_gives_a_model_that_loads(
    job: Job,
    store: Store,
    tiny_model: Path,
    tiny_encoder: SentenceEncoder,
    loss: dict[str, Any],
    training: dict[str, Any],
    negatives: int,
) -> None:
    spec = TrainingSpec.model_validate({**FAST, "epochs": 3, **training})
    given = pairs(480, seed=5, negatives=negatives)
    # Searched among what it is pushed away from: each of these losses makes that better, on every processor.
    texts = [negative for example in given[:24] for negative in example.negatives] or job.texts
    asked = replace(
        job, training=given, held_out=given[:24], texts=texts, loss=LossSpec.model_validate(loss), spec=spec
    )
    trained = train(asked)
    assert trained.best_step > 0
    found = {path.name for path in trained.folder.rglob("*")}
    assert "model.safetensors" in found
    assert not any("adapter" in name for name in found)
    encoder_id = registered(store, tiny_model, trained, tiny_encoder)
    opened = prepare_encoder(store, tuned_spec(EncoderSpec(model=str(tiny_model)), encoder_id))
    vectors = opened.encode([e.positive for e in job.training[:4]], "document")
    assert np.isfinite(vectors).all()
    base = tiny_encoder.encode([e.positive for e in job.training[:4]], "document")
    assert not np.allclose(vectors, base, atol=1e-4)


@pytest.mark.integration
def test_prompts_of_the_recipe_stay_with_the_result(
    job: Job, store: Store, tiny_model: Path, tiny_encoder: SentenceEncoder
) -> None:
    spec = EncoderSpec(model=str(tiny_model), prompts=PromptsSpec(document="text ", query="in "))
    base = prepare_encoder(store, spec)
    trained = train(replace(longer(job), record=base.record))
    assert trained.best_step > 0
    saved = json.loads((trained.folder / "config_sentence_transformers.json").read_text())
    assert {role: saved["prompts"][role] for role in ("document", "query")} == dict(base.record.prompts)
    # Without prompts in the recipe they are those of the model.
    plain = prepare_encoder(store, EncoderSpec(model=str(trained.folder), preset="none"))
    assert plain.record.prompts == base.record.prompts


@pytest.mark.integration
def test_nothing_better_than_the_base_is_the_base(
    job: Job, store: Store, tiny_model: Path, tiny_encoder: SentenceEncoder
) -> None:
    # At such a rate nothing changes enough to change a ranking.
    still = replace(job, spec=job.spec.model_copy(update={"rate": 1e-12}))
    trained = train(still)
    assert trained.best_step == 0
    assert registered(store, tiny_model, trained, tiny_encoder) == tiny_encoder.record.encoder_id
    # Files written anew would be another encoder with the same weights, and a collection to embed again for nothing.
    assert not trained.folder.exists()
    assert store.folders("encoders") == []


@pytest.mark.integration
def test_a_training_that_fails_says_why(job: Job, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    with pytest.raises(EncoderError, match=r"the training ended with status 1: .*log\.txt"):
        train(replace(job, base=tmp_path / "nothing"))


def importable() -> str:
    root = str(Path(__file__).parents[3])
    return os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))


@pytest.fixture(autouse=True)
def spawned_with_the_same_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", importable())
