"""Models, names and values that once had a way through, or broke a run."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sentence_transformers import SentenceTransformer

from isospace.encoding.registry.files import model_files
from isospace.encoding.registry.register import prepare_encoder
from isospace.encoding.spec import EncoderSpec, PromptsSpec
from isospace.errors import ConfigError, EncoderError, SourceError
from isospace.ingest.readers.read import read_source
from isospace.storage.store import open_store
from tests.conftest import sentences, write_jsonl


def test_a_module_with_pickled_weights_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    import torch

    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    (folder / "3_Dense").mkdir()
    torch.save({"weight": torch.zeros(2)}, folder / "3_Dense" / "pytorch_model.bin")
    with pytest.raises(EncoderError, match=r"3_Dense/pytorch_model\.bin is pickled"):
        model_files(folder)


def test_every_module_of_a_model_is_its_identity(tiny_model: Path, tmp_path: Path) -> None:
    import torch
    from sentence_transformers.sentence_transformer.modules import Dense

    records = []
    for seed in range(2):
        torch.manual_seed(seed)
        model = SentenceTransformer(str(tiny_model), device="cpu")
        model.append(Dense(16, 8))
        model.save_pretrained(str(tmp_path / f"m{seed}"))
        spec = EncoderSpec(model=str(tmp_path / f"m{seed}"))
        encoder = prepare_encoder(open_store(tmp_path / "store"), spec)
        records.append(encoder.record)
        assert np.allclose(encoder.encode(["the cell"], "query"), model.encode(["the cell"]), atol=1e-6)
    assert records[0].encoder_id != records[1].encoder_id
    assert records[0].dimension == 8


def test_a_prompt_that_leaves_no_room_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    spec = EncoderSpec(model=str(tiny_model), prompts=PromptsSpec(query="word " * 30))
    with pytest.raises(ConfigError, match=r"recipe\.encoder\.prompts\.query: takes"):
        prepare_encoder(open_store(tmp_path), spec)


def test_a_misspelt_column_of_json_lines_is_a_configuration_error(tmp_path: Path) -> None:
    from isospace.ingest.spec import DocumentsSpec

    path = write_jsonl(tmp_path / "d.jsonl", sentences(5))
    with pytest.raises(ConfigError, match="no column titel; it has doc_id, text, title"):
        list(read_source(str(path), DocumentsSpec(title_column="titel")))


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "text", ["---\ntitle:" + " " * 50_000, "# a" + " " * 50_000 + "b", "=" * 50_000 + "\n" + "=" * 50_000]
)
@pytest.mark.parametrize("suffix", ["md", "rst"])
def test_no_title_takes_long_to_find(tmp_path: Path, text: str, suffix: str) -> None:
    from isospace.ingest.spec import DocumentsSpec

    (tmp_path / f"a.{suffix}").write_text(text)
    assert len(list(read_source(str(tmp_path), DocumentsSpec()))) == 1


def test_text_is_not_silently_cut_by_the_html_parser(tmp_path: Path) -> None:
    from isospace.ingest.spec import DocumentsSpec

    words = "".join(f"<font>paragraph number {n} has some words of its own<br>" for n in range(600))
    (tmp_path / "a.html").write_text(f"<html><body>{words}</body></html>")
    (item,) = read_source(str(tmp_path), DocumentsSpec())
    assert "number 599 has" in item.text if hasattr(item, "text") else "more deeply" in item.reason


def test_odd_names_and_values_are_one_document_or_one_reason(tmp_path: Path) -> None:
    from isospace.ingest.spec import DocumentsSpec

    folder = tmp_path / "source"
    folder.mkdir()
    with open(bytes(folder) + b"/caf\xe9.md", "w") as stream:  # noqa: PTH123
        stream.write("# A name that is not UTF-8")
    (folder / "t.jsonl").write_text('{"doc_id": "s", "text": "body", "tag": "\\ud800"}\n')
    items = list(read_source(str(folder), DocumentsSpec(metadata_columns=("tag",))))
    assert len(items) == 2
    assert all(item.doc_hash for item in items)
    table = pa.table({"doc_id": ["a", "b"], "text": ["x", "y"], "when": pa.array([0, 2**38], pa.timestamp("s"))})
    pq.write_table(table, tmp_path / "t.parquet")
    good, bad = read_source(str(tmp_path / "t.parquet"), DocumentsSpec(metadata_columns=("when",)))
    assert good.doc_id == "a"
    assert "cannot be read" in bad.reason


def test_a_source_that_cannot_be_named_is_one_error() -> None:
    from isospace.ingest.spec import DocumentsSpec

    for url in ("x" * 5000, "~nosuchuser/x", "s3://"):
        with pytest.raises((SourceError, ConfigError)):
            list(read_source(url, DocumentsSpec()))
