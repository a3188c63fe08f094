"""A refit under Prefect: stored raw vectors, no source, no encoder but for the probes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from isospace.encoding.encoder import SentenceEncoder
from isospace.errors import ConfigError, IntegrityError, NotFoundError
from isospace.operations.maintenance.verify import verify_snapshot
from isospace.search.open_index import open_index
from tests.conftest import Configure, sentences, write_jsonl
from tests.flows.test_embed_corpus import artifacts

pytestmark = pytest.mark.usefixtures("prefect_server")


def test_a_refit_needs_neither_source_nor_model_nor_encoder(
    configure: Configure, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.embed_corpus import embed_corpus
    from flows.refit_space import refit_space

    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    source = write_jsonl(tmp_path / "d.jsonl", sentences(120))
    encoder = {"encoder": {"model": str(model)}}
    config = configure(source, recipe=encoder)
    first = embed_corpus(config)
    write_jsonl(source, {name: text for name, text in sentences(120).items() if name != "d00003"})
    second = embed_corpus(config)
    source.unlink()
    shutil.rmtree(model)
    encoded: list[str] = []
    real = SentenceEncoder.encode
    monkeypatch.setattr(
        SentenceEncoder, "encode", lambda self, texts, role: encoded.extend(texts) or real(self, texts, role)
    )
    transform = {"fit": {"kind": "pca", "dimensions": 8, "allow_small_sample": True}, "representations": ["int8"]}
    changed = configure(source, recipe={**encoder, "transform": transform})
    report = refit_space(changed)
    assert report.committed
    assert (report.encoded, report.documents, report.promoted) == (0, second.documents, "production")
    assert report.space_id not in (first.space_id, second.space_id)
    assert not [text for text in encoded if "number 0" in text]
    index = open_index(config.runtime.store, "c")
    assert index.vectors.shape == (119, 8)
    assert verify_snapshot(index_store(config.runtime.store), "c", "production").failures == ()
    assert any("pca, dimensions 8" in text and "condition number" in text for text in artifacts("c-space"))
    again = refit_space(changed)
    assert (again.committed, again.snapshot_id) == (False, report.snapshot_id)


def test_a_refit_fits_what_embedding_would_and_refuses_a_damaged_snapshot(configure: Configure, tmp_path: Path) -> None:
    from flows.embed_corpus import embed_corpus
    from flows.refit_space import refit_space

    texts = sentences(60)
    source = write_jsonl(tmp_path / "d.jsonl", texts)
    embed_corpus(configure(source))
    write_jsonl(source, dict(list(texts.items())[10:]))
    embed_corpus(configure(source))
    transform = {"transform": {"fit": {"kind": "zca", "epsilon": 0.5, "allow_small_sample": True}}}
    refitted = refit_space(configure(source, recipe=transform))
    fresh = embed_corpus(configure(source, recipe=transform, runtime={"store": str(tmp_path / "fresh")}))
    assert refitted.space_id == fresh.space_id
    assert refitted.snapshot_id == fresh.snapshot_id
    next((tmp_path / "store/collections/c/chunks").iterdir()).unlink()
    with pytest.raises(IntegrityError, match="Run `isospace run CONFIG` first"):
        refit_space(configure(source))


def test_a_refit_changes_the_transform_alone(configure: Configure, tmp_path: Path) -> None:
    from flows.embed_corpus import embed_corpus
    from flows.refit_space import refit_space

    source = write_jsonl(tmp_path / "d.jsonl", sentences(30))
    with pytest.raises(NotFoundError, match="Embed it first"):
        refit_space(configure(source))
    embed_corpus(configure(source))
    with pytest.raises(ConfigError, match=r"recipe\.chunking differs"):
        refit_space(configure(source, recipe={"chunking": {"overlap_tokens": 8}}))


def test_the_frontier_flow_shows_table_and_plot(configure: Configure, tmp_path: Path) -> None:
    from flows.embed_corpus import embed_corpus
    from flows.measure_frontier import measure_frontier

    config = configure(write_jsonl(tmp_path / "d.jsonl", sentences(300)))
    embed_corpus(config)
    (tmp_path / "q.txt").write_text("the cell\nthe gene and the protein\n")
    points = measure_frontier(config.runtime.store, "c", str(tmp_path / "q.txt"))
    assert {point.rescored for point in points} == {0, 1, 2, 4, 10}
    assert any("data:image/svg+xml;base64," in text and "| rabitq |" in text for text in artifacts("c-frontier"))


def index_store(url: str):
    from isospace.storage.store import open_store

    return open_store(url)
