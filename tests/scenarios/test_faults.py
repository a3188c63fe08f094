"""What goes wrong between index and query, one injected fault at a time: each is refused, and its stage is named.

The table in docs/faults.md is made here: ISOSPACE_WRITE_DOCS=1 python -m pytest tests/scenarios/test_faults.py
"""

from __future__ import annotations

import os
import platform
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.numpy

from isospace.encoding.embedder import load_space
from isospace.encoding.encoder import SentenceEncoder
from isospace.encoding.registry.register import prepare_encoder
from isospace.encoding.spec import EncoderSpec
from isospace.errors import IsospaceError
from isospace.search.open_index import open_index
from isospace.storage.store import open_store
from isospace.transform.probe_texts import PROBE_TEXTS, TOKENIZER_TEXTS
from isospace.transform.probes import probe_texts
from tests.helpers.faults import CENTRE, PROMPTS, Fault, World, configuration, newest, small_configuration
from tests.helpers.injected_faults import INJECTED as OF_SPACES
from tests.helpers.injected_text_faults import INJECTED as OF_TEXTS
from tests.helpers.inline import embed_inline
from tests.helpers.tiny import build_tiny_model, link_dense

INJECTED = (*OF_SPACES, *OF_TEXTS)
DOCS = Path(__file__).parents[2] / "docs" / "faults.md"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("faults")
    model = build_tiny_model(folder / "model")
    embed_inline(configuration(folder, model, {"kind": "zscore"}, 320))
    embed_inline(configuration(folder, model, CENTRE, 320))
    config = configuration(folder, model, CENTRE, 310)
    embed_inline(config)
    scratch = open_store(folder / "others")
    shutil.copytree(model, folder / "plain")
    modules = (folder / "plain" / "modules.json").read_text()
    (folder / "plain" / "modules.json").write_text(re.sub(r",\s*\{[^{}]*Normalize[^{}]*\}", "", modules))

    def encoder(path: Path, **given: Any) -> SentenceEncoder:
        return prepare_encoder(scratch, EncoderSpec.model_validate({"model": str(path), "prompts": PROMPTS, **given}))

    windows = {"prompts": PROMPTS, "windows": {"stride": 20}}
    embed_inline(small_configuration(folder / "windowed", model, windows))
    chained, behind = link_dense(model, folder / "chained", folder / "elsewhere")
    embed_inline(small_configuration(folder / "linked", chained, {"prompts": PROMPTS}))
    weights = safetensors.numpy.load_file(behind)
    safetensors.numpy.save_file({name: -array for name, array in weights.items()}, behind)

    return World(
        windowed=folder / "windowed" / "store",
        linked=folder / "linked" / "store",
        relinked=encoder(chained),
        store=folder / "store",
        other_seed=encoder(build_tiny_model(folder / "seed", seed=7)),
        other_pooling=encoder(build_tiny_model(folder / "cls", pooling="cls")),
        unnormalized=encoder(folder / "plain"),
        shorter=encoder(model, max_tokens=12),
        unprompted=encoder(model, prompts={"query": "", "document": ""}),
    )


@pytest.mark.parametrize("injected", INJECTED, ids=[one.name for one in INJECTED])
def test_a_fault_is_refused_and_its_stage_is_named(injected: Fault, world: World, tmp_path: Path) -> None:
    if "instruction set" in injected.name and platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("another instruction set is chosen by a setting of x86")
    copy = Path(shutil.copytree(getattr(world, injected.store), tmp_path / "copy"))
    with pytest.raises(IsospaceError, match=injected.says):
        injected.inject(copy, world)


def test_without_a_fault_everything_opens(world: World) -> None:
    assert len(open_index(str(world.store), "c").search("the cell", 3)[0]) == 3
    probes = load_space(open_store(world.store), newest(world.store).space_id).probes
    assert len(probe_texts(probes)) >= len(PROBE_TEXTS) + len(TOKENIZER_TEXTS)


def test_the_table_in_the_docs_is_this_one() -> None:
    rows = [f"| {n} | {one.name} | {one.stage} |" for n, one in enumerate(INJECTED, start=1)]
    text = "\n".join([HEAD, "| | fault | refused at |", "| ---: | --- | --- |", *rows, ""])
    if os.environ.get("ISOSPACE_WRITE_DOCS"):
        DOCS.write_text(text, encoding="utf-8")
    assert len(INJECTED) >= 25
    assert DOCS.read_text(encoding="utf-8") == text


HEAD = """# Faults that are refused

Each of these faults was injected into a sound store, one at a time, with hashes recomputed wherever somebody could have
recomputed them. Opening the index, the request, or the run was refused, and the error named the stage.
`tests/scenarios/test_faults.py` runs them all and writes this table.
"""
