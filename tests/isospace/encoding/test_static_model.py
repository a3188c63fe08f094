"""Folders of static models, as two libraries write them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from isospace.encoding.static_model import is_static, read_static_model
from isospace.errors import EncoderError
from tests.helpers.static_models import WORDS_AND_PARTS, random_table, write_model2vec, write_sentence_transformers

UNKNOWN = WORDS_AND_PARTS.index("[UNK]")
CELL, GENE = WORDS_AND_PARTS.index("cell"), WORDS_AND_PARTS.index("gene")


@pytest.mark.parametrize("subfolder", ["", "0_StaticEmbedding"])
def test_a_folder_of_sentence_transformers(tmp_path: Path, subfolder: str) -> None:
    settings = {"prompts": {"query": "find: "}, "default_prompt_name": None}
    folder = write_sentence_transformers(tmp_path / "m", subfolder=subfolder, settings=settings)
    assert is_static(folder)
    model = read_static_model(folder)
    assert (model.library, model.modules) == ("sentence-transformers", ("StaticEmbedding", "Normalize"))
    assert (model.normalizes, model.max_tokens, model.prompts) == (True, None, {"query": "find: "})
    # Unknown tokens are kept, and no special token is added, although the tokenizer's file adds two.
    assert model.tokenizer.ids(["cell ∆ gene", "∆"]) == [[CELL, UNKNOWN, GENE], [UNKNOWN]]


@pytest.mark.parametrize(
    ("config", "limit"), [({}, 512), ({"max_length": 64}, 64), ({"max_length": None, "normalize": False}, None)]
)
def test_a_folder_of_model2vec(tmp_path: Path, config: dict, limit: int | None) -> None:
    model = read_static_model(write_model2vec(tmp_path / "m", **config))
    normalize = config.get("normalize", True)
    assert (model.library, model.max_tokens, model.normalizes) == ("model2vec", limit, normalize)
    assert model.modules == (("StaticEmbedding", "Normalize") if normalize else ("StaticEmbedding",))
    assert model.tokenizer.ids(["cell ∆ gene"]) == [[CELL, GENE]]


def test_the_limit_is_where_the_tokenizer_s_file_truncates(tmp_path: Path) -> None:
    model = read_static_model(write_sentence_transformers(tmp_path / "m", limit=8))
    assert model.max_tokens == 8
    assert model.tokenizer.ids(["cell " * 20]) == [[CELL] * 20]


def test_model2vec_is_recognized_without_the_modules_of_sentence_transformers(tmp_path: Path) -> None:
    folder = write_model2vec(tmp_path / "m")
    (folder / "modules.json").unlink()
    assert is_static(folder)
    assert read_static_model(folder).library == "model2vec"


def test_a_text_of_unknown_tokens_keeps_one_where_they_are_dropped(tmp_path: Path) -> None:
    """Otherwise one document of another script would have no vector, and end a run."""
    tokenizer = read_static_model(write_model2vec(tmp_path / "m")).tokenizer
    assert tokenizer.ids(["∆ ∆", "", "∆ cell"]) == [[UNKNOWN], [UNKNOWN], [CELL]]
    for detailed in (True, False):
        tokens = tokenizer.tokens(["∆ ∆", "", "∆ cell ∆ gene cell"], limit=2, detailed=detailed)
        assert [one.ids.tolist() for one in tokens] == [[UNKNOWN], [UNKNOWN], [CELL, GENE]]
        assert [one.words is not None and len(one.words) for one in tokens] == ([1, 1, 2] if detailed else [False] * 3)
        assert {one.ids.dtype for one in tokens} == {np.dtype(np.int32)}
    assert tokenizer.unknown_counts(["∆ cell ∆ gene"]) == [(2, 4)]


def test_a_quantized_model(tmp_path: Path) -> None:
    table = read_static_model(write_model2vec(tmp_path / "m", quantized=True)).table
    assert (len(table.vectors), table.size, table.dimension) == (20, len(WORDS_AND_PARTS), 16)
    ids = np.array([[CELL, GENE]])
    expected = table.vectors[table.mapping[ids]] * table.weights[ids][..., None]
    assert table.rows(ids).tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modules": ("Dense", "Normalize")}, r"module Dense after StaticEmbedding; expected Normalize"),
        ({"settings": {"truncate_dim": 8}}, r"saved with truncate_dim = 8"),
        ({"table": random_table()[:-1]}, rf"{len(WORDS_AND_PARTS) - 1} tokens, and its tokenizer"),
        ({"table": np.full((len(WORDS_AND_PARTS), 4), np.nan, np.float32)}, r"is empty, or holds NaN or infinity"),
        ({"table": random_table()[0]}, r"float32 of the shape \(16,\); expected a table"),
        ({"table": random_table().astype("int32")}, r"int32 of the shape .*; expected a table of float32"),
    ],
)
def test_what_cannot_be_computed_is_refused(tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(EncoderError, match=message):
        read_static_model(write_sentence_transformers(tmp_path / "m", **change))


def test_damaged_files_are_named(tmp_path: Path) -> None:
    folder = write_sentence_transformers(tmp_path / "m", subfolder="")
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(EncoderError, match=r"tokenizer\.json cannot be read"):
        read_static_model(folder)
    folder = write_sentence_transformers(tmp_path / "m", subfolder="")
    (folder / "model.safetensors").write_bytes(b"\x08")
    with pytest.raises(EncoderError, match=r"model\.safetensors cannot be read"):
        read_static_model(folder)
    save_file({"other": random_table()}, folder / "model.safetensors")
    with pytest.raises(EncoderError, match=r"holds other; expected embedding\.weight or embeddings"):
        read_static_model(folder)


@pytest.mark.parametrize(
    ("key", "values", "message"),
    [
        ("mapping", np.full(len(WORDS_AND_PARTS), 20), "mapping names rows outside of the 20"),
        ("mapping", np.full(len(WORDS_AND_PARTS), -1), "mapping names rows outside of the 20"),
        ("weights", np.ones(3), "has 3 weights, expected one for each"),
    ],
)
def test_a_mapping_beyond_the_table_is_refused(tmp_path: Path, key: str, values: np.ndarray, message: str) -> None:
    from safetensors.numpy import load_file

    folder = write_model2vec(tmp_path / "m", quantized=True)
    save_file({**load_file(folder / "model.safetensors"), key: values}, folder / "model.safetensors")
    with pytest.raises(EncoderError, match=message):
        read_static_model(folder)


def test_transformers_are_not_static(tiny_model: Path, tmp_path: Path) -> None:
    assert not is_static(tiny_model)
    assert not is_static(tmp_path)
    (tmp_path / "modules.json").write_text(json.dumps([{"type": "x.SparseStaticEmbedding", "path": ""}]))
    assert not is_static(tmp_path)
