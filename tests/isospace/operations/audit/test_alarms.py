"""Every alarm, raised by its fault injected into a real snapshot or stream, and none of them on clean ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from isospace.cli.main import app
from isospace.collection.alias import hold, promote
from isospace.collection.snapshot import read_manifest
from isospace.encoding.encoder import SentenceEncoder
from isospace.errors import AuditError
from isospace.evaluation.query_sets import EvaluationSet, freeze_set
from isospace.evaluation.reports.page import render
from isospace.evaluation.reports.plots import corpus_map
from isospace.operations.audit.alarms import band_alarms
from isospace.operations.audit.audit import AuditRecord, audit_alias, read_audits, require_quiet, write_audit
from isospace.operations.audit.page import audit_page
from isospace.operations.audit.query_log import AnswerLog, LoggedAnswer, query_hash
from isospace.operations.audit.run_audit import run_audit
from isospace.operations.audit.thresholds import Thresholds
from isospace.pipeline.config import PipelineConfig
from isospace.search.open_index import open_index
from isospace.storage.store import Store, open_store
from isospace.transform.spec import TransformSpec
from tests.conftest import sentences, write_jsonl
from tests.helpers.forging import forge_vectors
from tests.helpers.inline import embed_inline
from tests.helpers.tiny import build_tiny_model

TEXTS = sentences(520)
QUERIES = {f"q{n:03d}": f"title d{n:05d} {TEXTS[f'd{n:05d}']}" for n in range(0, 400, 5)}
PROMPTS = {"query": "search: ", "document": "text: "}


@dataclass(frozen=True)
class World:
    folder: Path
    source: Path
    config: PipelineConfig
    other_model: Path

    @property
    def store(self) -> Store:
        return open_store(self.folder / "store")

    def embed(self, documents: dict[str, str], **changed) -> None:
        write_jsonl(self.source, documents)
        config = (
            self.config.model_copy(update={"recipe": self.config.recipe.model_copy(update=changed)})
            if changed
            else self.config
        )
        embed_inline(config)

    def audit(self, **given):
        limits = given.pop("limits", Thresholds())
        audit = audit_alias(self.store, "c", given.pop("alias", "production"), limits, run_id="r", **given)
        alarmed = {check.name for check in audit.record.checks if check.verdict == "alarm"}
        # The table of checks and the alarms say the same.
        assert {name.removesuffix(" of logged queries") for name in alarmed} == {
            alarm.name for alarm in audit.record.alarms
        }
        return audit

    def alarms(self, **given) -> list[str]:
        return [alarm.name for alarm in self.audit(**given).record.alarms]

    def baseline(self) -> None:
        """An audit of the clean snapshot, that later ones compare with."""
        record = self.audit().record
        assert not record.alarms
        write_audit(self.store, record)

    def log(self, texts: list[str], change: Callable[[LoggedAnswer], LoggedAnswer] = lambda one: one, **given) -> None:
        log = AnswerLog(self.store, "c")
        with open_index(self.store, "c") as index:
            vectors = index.space.embed(texts, "query")
            answers = index.answer(texts, index._options(10, {}))
        for text, vector, hits in zip(texts, vectors, answers.hits, strict=True):
            one = LoggedAnswer(
                at=datetime.now(UTC),
                snapshot=answers.snapshot,
                snapshot_id=answers.snapshot_id,
                space_id=answers.space_id,
                alias="production",
                verified=True,
                mode="auto",
                cosine=True,
                query_sha256=query_hash(text),
                text=text,
                vector=vector,
                doc_ids=tuple(hit.doc_id for hit in hits),
                scores=tuple(hit.score for hit in hits),
            )
            log.add(change(replace(one, **given)))
        log.flush()
        assert log.lost == 0

    def forge(self, change: Callable[[np.ndarray], np.ndarray], part: int = 0) -> None:
        forge_vectors(self.store, "c", change, part=part)


@pytest.fixture(scope="module")
def made(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("audit")
    source = write_jsonl(folder / "d.jsonl", dict(list(TEXTS.items())[:400]))
    recipe = {
        "documents": {"title_column": "title"},
        "encoder": {"model": str(tiny_model), "prompts": PROMPTS},
        "chunking": {"overlap_tokens": 4},
        "transform": {"representations": ["float32", "int8"], "fit": {"kind": "center"}},
    }
    runtime = {
        "store": str(folder / "store"),
        "collection": "c",
        "source": str(source),
        "part_documents": 200,
        "max_removed_share": 1.0,
    }
    config = PipelineConfig.model_validate({"recipe": recipe, "runtime": runtime})
    embed_inline(config)
    judged = {name: {f"d{name[1:].zfill(5)}": 1} for name in QUERIES}
    freeze_set(open_store(folder / "store"), "c", EvaluationSet("default", "judged", QUERIES, judged), source="test")
    return World(folder, source, config, build_tiny_model(folder / "other", seed=7))


@pytest.fixture
def world(made: World, tmp_path: Path) -> World:
    shutil.copytree(made.folder, tmp_path / "w")
    runtime = made.config.runtime.model_copy(
        update={"store": str(tmp_path / "w" / "store"), "source": str(tmp_path / "w" / "d.jsonl")}
    )
    config = made.config.model_copy(update={"runtime": runtime})
    return World(tmp_path / "w", tmp_path / "w" / "d.jsonl", config, made.other_model)


@pytest.mark.integration
def test_twenty_clean_reruns_are_quiet(world: World):
    """Other samples each time, more documents of the same kind, and logged queries like the frozen ones."""
    world.baseline()
    world.embed(TEXTS)
    world.log([f"title d{n:05d} {TEXTS[f'd{n:05d}']}" for n in range(2, 400, 4)])
    for seed in range(20):
        audit = world.audit(seed=seed)
        assert audit.record.alarms == (), audit.record.describe()
        assert audit.measurements is not None
        assert audit.measurements.corpus.drift is not None
        assert audit.measurements.logged is not None
        assert audit.measurements.logged.drift is not None
        require_quiet(write_audit(world.store, audit.record))
    assert len(read_audits(world.store, "c")) == 21


def test_unnormalized_vectors_mixed_in(world: World):
    def stretch(vectors: np.ndarray) -> np.ndarray:
        vectors[::50] *= 3.0
        return vectors

    world.forge(stretch)
    assert "norms" in world.alarms()


def test_vectors_that_are_no_numbers(world: World):
    def spoil(vectors: np.ndarray) -> np.ndarray:
        vectors[7] = np.nan
        return vectors

    world.forge(spoil)
    audit = world.audit()
    assert {"norms"} <= {alarm.name for alarm in audit.record.alarms}
    write_audit(world.store, audit.record)
    assert "lengths of stored vectors" in render(audit_page(audit))


def test_collapsed_dimensions(world: World):
    def collapse(vectors: np.ndarray) -> np.ndarray:
        vectors[:, [3, 5]] = 0.05
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    for part in range(2):
        world.forge(collapse, part)
    found = world.alarms()
    assert "collapsed dimensions" in found
    assert "shifted dimensions" in found


def test_all_vectors_in_a_narrow_cone(world: World):
    def narrow(vectors: np.ndarray) -> np.ndarray:
        vectors = 0.05 * vectors + np.eye(16, dtype=np.float32)[0]
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    world.baseline()
    for part in range(2):
        world.forge(narrow, part)
    world.log(list(QUERIES.values()), scores=(0.995, 0.994))
    assert {"anisotropy", "agreement", "narrow band"} <= set(world.alarms())


def test_another_checkpoint_made_a_part(world: World):
    """Raw vectors of another model under the right name: lengths, hashes and probes are all as they should be."""
    from isospace.encoding.registry.register import prepare_encoder
    from isospace.encoding.spec import EncoderSpec

    other = prepare_encoder(open_store(world.folder / "elsewhere"), EncoderSpec(model=str(world.other_model)))
    with open_index(world.store, "c") as index:
        texts = [
            p + t for p, t in zip(index.chunks["prefix"].to_pylist(), index.chunks["text"].to_pylist(), strict=True)
        ]
        wrong = index.space.transform(other.encode(texts[:200], "document"), "document")
    world.forge(lambda _: wrong)
    audit = world.audit()
    names = [alarm.name for alarm in audit.record.alarms]
    assert "stored vectors" in names
    assert "norms" not in names
    reproduced = audit.measurements.reproduced
    assert 0.3 < len(reproduced.wrong) / reproduced.count < 0.7


def test_an_encoder_whose_files_were_edited(world: World):
    from isospace.search.open_index import open_index as opened

    with opened(world.store, "c") as index:
        encoder_id = index.space.space.record.encoder_id
    document = world.folder / "store" / "encoders" / encoder_id / "encoder.json"
    document.write_text(document.read_text().replace("search: ", "Search: "))
    found = world.audit().record
    assert [alarm.name for alarm in found.alarms] == ["files"]
    assert found.figures is None
    render(audit_page(world.audit()))


def test_a_library_that_computes_something_else_is_named_by_the_handshake(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    real = SentenceEncoder.encode

    def other(self: SentenceEncoder, texts: list[str], role: str) -> np.ndarray:
        return real(self, texts, role)[:, ::-1].copy()

    monkeypatch.setattr(SentenceEncoder, "encode", other)
    (alarm,) = world.audit().record.alarms
    assert alarm.name == "handshake"
    assert "raw vectors differ" in alarm.message


def test_a_query_prompt_that_was_dropped(world: World):
    with open_index(world.store, "c") as index:
        # What a client does that asks as if its queries were documents.
        texts = list(QUERIES.values())
        wrong = dict(zip(texts, index.space.embed(texts, "document"), strict=True))
    world.log(texts, lambda one: replace(one, vector=wrong[one.text]))
    assert "query vectors" in world.alarms()


def test_queries_that_were_not_normalized(world: World):
    world.log(list(QUERIES.values()), lambda one: replace(one, vector=2.0 * one.vector))
    assert "query vectors" in world.alarms()


def test_queries_of_another_domain(world: World):
    chance = np.random.default_rng(0)
    letters = ["".join(chance.choice(list("xyzqjk!?"), 9)) for _ in range(240)]
    world.log([" ".join(letters[n : n + 3]) for n in range(0, 240, 2)])
    found = world.audit()
    assert "query drift" in [alarm.name for alarm in found.record.alarms]
    assert found.measurements.logged is not None
    assert found.measurements.logged.wrong == 0.0


def test_documents_of_another_domain_are_named(world: World):
    chance = np.random.default_rng(0)
    strange = {
        f"x{n:03d}": " ".join("".join(chance.choice(list("xyzqjk0123456789"), 8)) for _ in range(4)) for n in range(120)
    }
    world.embed({**dict(list(TEXTS.items())[:400]), **strange})
    audit = world.audit()
    assert "corpus drift" in [alarm.name for alarm in audit.record.alarms]
    assert audit.measurements.corpus.drift is not None
    assert audit.measurements.corpus.drift.auc > 0.9
    assert all(name.startswith("x") for name, _ in audit.measurements.corpus.drift.most)


def test_a_corpus_that_became_another_shifts_dimensions(world: World):
    chance = np.random.default_rng(0)
    world.embed(
        {
            f"x{n:03d}": " ".join("".join(chance.choice(list("xyzqjk0123456789"), 8)) for _ in range(4))
            for n in range(300)
        }
    )
    assert "shifted dimensions" in world.alarms()


def test_components_beyond_the_range_of_int8(world: World):
    def stretch(vectors: np.ndarray) -> np.ndarray:
        return vectors * 2.0

    for part in range(2):
        world.forge(stretch, part)
    assert "saturation" in world.alarms()


def test_duplicated_documents(world: World, tmp_path: Path):
    few = dict(list(TEXTS.items())[:400])
    copies = {f"copy{n}": text for n, text in enumerate(list(few.values())[:60])}
    # The title is part of what is encoded: copies have the same.
    rows = [{"doc_id": name, "text": text, "title": "one title"} for name, text in {**few, **copies}.items()]
    world.source.write_text("\n".join(map(json.dumps, rows)))
    embed_inline(world.config)
    found = world.audit()
    assert "duplicates" in [alarm.name for alarm in found.record.alarms]
    assert found.record.figures.corpus.copies == pytest.approx(60 / 460)


def test_a_stale_alias(world: World):
    world.embed(dict(list(TEXTS.items())[:450]))
    promote(world.store, "c", "production", read_manifest(world.store, "c", 1), reason="back")
    now = datetime.now(UTC)
    assert "stale alias" not in world.alarms(now=now)
    late = world.audit(now=now + timedelta(hours=30)).record
    assert "stale alias" in [alarm.name for alarm in late.alarms]
    assert "snapshot 2 has been waiting for 30 hours" in late.describe()
    old = world.audit(now=now + timedelta(hours=3), limits=Thresholds(age_hours=2)).record
    assert "stale alias" in [alarm.name for alarm in old.alarms]
    assert [row[1:4] for row in alias_rows(old)] == [
        ("3.0 h", "at most 26.0 h", "ok"),
        ("3.0 h", "at most 2.0 h", "alarm"),
    ]
    # Whoever holds it lets others wait on purpose.
    hold(world.store, "c", "production", reason="fair")
    held = world.audit(now=now + timedelta(hours=30)).record
    assert "stale alias" not in [alarm.name for alarm in held.alarms]
    assert [row[1:4] for row in alias_rows(held)] == [("–", "–", "not run")]


def alias_rows(record: AuditRecord) -> list[tuple[str, ...]]:
    return [check.row() for check in record.checks if check.name == "stale alias"]


def test_answers_from_a_snapshot_that_the_alias_no_longer_names(world: World):
    texts = list(QUERIES.values())
    world.log(texts[:40])
    world.embed(TEXTS)
    later = datetime.now(UTC) + timedelta(minutes=10)
    world.log(texts[40:], snapshot=1, snapshot_id=read_manifest(world.store, "c", 1).snapshot_id, at=later)
    found = world.audit(now=later + timedelta(minutes=1))
    assert "stale answers" in [alarm.name for alarm in found.record.alarms]
    assert found.measurements.logged is not None
    assert found.measurements.logged.stale == pytest.approx(0.5)


def test_answers_within_the_time_that_services_take_to_follow_are_not_stale(world: World):
    world.embed(TEXTS)
    first = read_manifest(world.store, "c", 1)
    world.log(
        list(QUERIES.values()), snapshot=1, snapshot_id=first.snapshot_id, at=datetime.now(UTC) + timedelta(seconds=60)
    )
    assert "stale answers" not in world.alarms(now=datetime.now(UTC) + timedelta(minutes=5))


def test_answers_of_an_index_without_its_handshake(world: World):
    world.log(list(QUERIES.values()), verified=False)
    assert "unverified answers" in world.alarms()


def test_best_scores_in_a_narrow_band():
    narrow, wide = np.linspace(0.91, 0.93, 50), np.linspace(0.5, 0.9, 50)
    assert [alarm.name for alarm in band_alarms(narrow, 0.9, "the logged queries", Thresholds())] == ["narrow band"]
    assert not list(band_alarms(wide, 0.5, "the logged queries", Thresholds()))
    # Queries that are texts of the corpus all find themselves.
    assert not list(band_alarms(narrow, 0.2, "the logged queries", Thresholds()))


def test_alarms_say_what_was_found_what_is_expected_and_what_to_do(world: World):
    world.forge(lambda vectors: vectors * 2.0)
    audit = world.audit()
    page = render(audit_page(audit))
    assert "expected 1 within 1e-06" in page
    for alarm in audit.record.alarms:
        assert alarm.message
        assert alarm.remedy
    with pytest.raises(AuditError, match=r"norms: the lengths of stored vectors .*`isospace verify`"):
        require_quiet(audit.record)


def test_what_cannot_be_measured_is_noted(made: World, tmp_path: Path):
    shutil.copytree(made.folder / "store", tmp_path / "store")
    shutil.rmtree(tmp_path / "store" / "collections" / "c" / "evaluation")
    record = audit_alias(open_store(tmp_path / "store"), "c", "production", Thresholds(), run_id="r").record
    assert any("no evaluation set" in note for note in record.notes)
    assert any("to measure drift" in note for note in record.notes)
    assert any("no answers were logged" in note for note in record.notes)


def test_every_step_of_an_audit_is_announced(world: World):
    steps: list[str] = []
    record = run_audit(world.store, "c", "production", Thresholds(), on_progress=steps.append)
    assert (steps[0], steps[-1]) == ("opening the snapshot", "drawing the report")
    assert len(steps) == len(set(steps)) == 9
    assert [record] == read_audits(world.store, "c")
    assert record.report is not None
    assert world.store.read(record.report).startswith(b"<!doctype html>")


def test_a_snapshot_is_audited_by_its_number_too(world: World):
    world.log(list(QUERIES.values())[:5])
    record = world.audit(alias="1").record
    assert (record.alias, record.snapshot, record.alarms) == ("1", 1, ())
    assert any("no answers were logged" in note for note in record.notes)


def test_the_command(world: World):
    run, place = CliRunner(), [str(world.folder / "store"), "c"]
    quiet = run.invoke(app, ["audit", *place])
    assert quiet.exit_code == 0
    assert "is as it should be" in quiet.output
    world.forge(lambda vectors: vectors * 2.0)
    loud = run.invoke(app, ["audit", *place, "--json"])
    assert loud.exit_code == 1
    assert "norms" in [one["name"] for one in json.loads(loud.stdout)["alarms"]]
    assert "alarms: norms" in run.invoke(app, ["audit", *place]).output
    assert [len(record.alarms) > 0 for record in read_audits(world.store, "c")] == [False, True, True]


@pytest.mark.parametrize("documents", [1, 2, 5])
def test_a_handful_of_chunks_is_audited_all_the_same(world: World, documents: int, tmp_path: Path):
    source = write_jsonl(tmp_path / "few.jsonl", sentences(documents))
    runtime = world.config.runtime.model_copy(update={"store": str(tmp_path / "few"), "source": str(source)})
    # One text has no mean to be centred by.
    recipe = world.config.recipe.model_copy(update={"transform": TransformSpec(representations=["float32", "int8"])})
    embed_inline(world.config.model_copy(update={"runtime": runtime, "recipe": recipe}))
    audit = audit_alias(open_store(tmp_path / "few"), "c", "production", Thresholds(mean_cosine=1.0), run_id="r")
    assert audit.record.alarms == ()
    assert any("too few to measure shifts of dimensions" in note for note in audit.record.notes)
    render(audit_page(audit))


def test_a_vector_space_of_no_numbers_is_an_alarm(world: World):
    for part in range(2):
        world.forge(lambda vectors: vectors * np.nan, part)
    audit = world.audit()
    assert "norms" in [alarm.name for alarm in audit.record.alarms]
    render(audit_page(audit))


def test_names_of_sources_are_shown_as_they_are():
    points = np.random.default_rng(0).standard_normal((40, 2))
    svg = corpus_map(points, [r"$\x$", "_hidden", "<b>", "plain"] * 10)
    for shown in (r"$\x$", "_hidden", "&lt;b&gt;"):
        assert shown in svg


def test_growth_and_edits_are_no_disagreement(world: World):
    """Documents that came or were edited push others out of the first ten: that is what they are for."""
    world.baseline()
    edited = {
        name: (f"{text} and more" if n % 5 == 0 else text) for n, (name, text) in enumerate(list(TEXTS.items())[:400])
    }
    world.embed(
        {
            **edited,
            **dict(list(TEXTS.items())[400:]),
            **{f"n{n}": t for n, t in enumerate(sentences(600, seed=8).values())},
        }
    )
    audit = world.audit()
    assert audit.measurements.frozen is not None
    assert audit.measurements.frozen.compared_with == 1
    assert audit.measurements.frozen.overlap == 1.0
    assert "agreement" not in [alarm.name for alarm in audit.record.alarms]


def test_a_baseline_whose_files_are_gone_is_noted(world: World):
    world.baseline()
    world.embed(TEXTS)
    for kind in ("snapshots/00000001.json",):
        (world.folder / "store" / "collections" / "c" / kind).unlink()
    record = world.audit().record
    assert any("are gone: their agreement was not measured" in note for note in record.notes)
    assert "agreement" not in [alarm.name for alarm in record.alarms]


def test_lost_raw_vectors_are_an_alarm(world: World):
    for path in (world.folder / "store" / "vectors").rglob("*.parquet"):
        path.unlink()
    # The sample that the run drew of them would still be there.
    shutil.rmtree(world.folder / "store" / "collections" / "c" / "references")
    (alarm,) = world.audit().record.alarms
    assert alarm.name == "files"


def test_boilerplate_that_was_there_at_the_fit_is_no_shift(tmp_path: Path, tiny_model: Path):
    texts = sentences(300)
    rows = [{"doc_id": name, "text": text, "title": "t"} for name, text in texts.items()]
    rows += [{"doc_id": f"b{n}", "text": "the same legal notice", "title": "t"} for n in range(200)]
    source = tmp_path / "d.jsonl"
    source.write_text("\n".join(map(json.dumps, rows)))
    recipe = {
        "documents": {"title_column": "title"},
        "encoder": {"model": str(tiny_model)},
        "chunking": {"overlap_tokens": 4},
    }
    runtime = {"store": str(tmp_path / "s"), "collection": "c", "source": str(source)}
    embed_inline(PipelineConfig.model_validate({"recipe": recipe, "runtime": runtime}))
    record = audit_alias(open_store(tmp_path / "s"), "c", "production", Thresholds(mean_cosine=1.0), run_id="r").record
    assert record.alarms == ()


@pytest.mark.integration
def test_cells_that_a_new_subject_fills_unevenly(tmp_path: Path, made: World):
    """Hundreds of chunks that differ by a number lie in one cell."""
    source = write_jsonl(tmp_path / "d.jsonl", dict(list(TEXTS.items())[:400]))
    transform = TransformSpec.model_validate({"representations": ["float32"], "cells": 8})
    recipe = made.config.recipe.model_copy(update={"transform": transform})
    runtime = made.config.runtime.model_copy(update={"store": str(tmp_path / "store"), "source": str(source)})
    world = World(tmp_path, source, PipelineConfig(recipe=recipe, runtime=runtime), made.other_model)
    world.embed(dict(list(TEXTS.items())[:400]))
    record = world.audit().record
    (check,) = [check for check in record.checks if check.name == "uneven cells"]
    assert check.verdict == "ok"
    world.embed(dict(list(TEXTS.items())[:400]) | {f"n{n}": f"the same words again, number {n}" for n in range(900)})
    (alarm,) = [alarm for alarm in world.audit().record.alarms if alarm.name == "uneven cells"]
    assert "isospace refit" in alarm.remedy
    assert alarm.figure is not None
    assert alarm.limit is not None
    assert alarm.figure > alarm.limit
    assert "uneven cells" not in world.alarms(limits=Thresholds(cell_imbalance=8.0))
    few = dict(list(TEXTS.items())[:40])
    world.embed(few | {f"n{n}": f"the same words again, number {n}" for n in range(200)})
    (check,) = [check for check in world.audit().record.checks if check.name == "uneven cells"]
    assert (check.verdict, check.reason) == ("not run", "240 vectors are too few for 8 cells")
