"""Recipes with two encoders whose vectors could not be compared are refused before anything is read."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from isospace.encoding.registry.record import EncoderRecord
from isospace.errors import ConfigError
from isospace.finetuning.config import load_finetune
from isospace.finetuning.stages import open_base
from isospace.operations.compare_models.compare import ComparisonSpec
from isospace.pipeline.config import PipelineConfig, Recipe
from isospace.pipeline.fit.fit_space import fit_transform
from isospace.pipeline.local_executor import LocalExecutor
from isospace.pipeline.preflight import require_feasible_pair
from isospace.transform.spec import TransformSpec
from isospace.transform.transform import apply_transform
from tests.helpers.small_space import DIMENSION, record

UNIT, LONG = record(normalizes=True), record(max_tokens=9)
SHARED = {"fit": {"kind": "center"}}


def recipe(**transform: object) -> Recipe:
    return Recipe.model_validate({"encoder": {"model": "d"}, "query_encoder": {"model": "q"}, "transform": transform})


@pytest.mark.parametrize(("document", "query"), [(UNIT, LONG), (LONG, UNIT)])
def test_vectors_of_other_lengths_need_a_transform_that_makes_up_for_it(
    document: EncoderRecord, query: EncoderRecord
) -> None:
    require_feasible_pair(recipe(), document, query)
    require_feasible_pair(recipe(fit={"kind": "center", "means": "by_role"}), document, query)
    require_feasible_pair(recipe(fit={"kind": "auto"}), document, query)
    with pytest.raises(
        ConfigError, match=r"normalization = none: raw vectors of documents .* no cosines. Set it to l2"
    ):
        require_feasible_pair(recipe(normalization="none"), document, query)
    with pytest.raises(ConfigError, match=r"fit \(center\) subtracts the documents' mean from queries"):
        require_feasible_pair(recipe(**SHARED), document, query)


def test_vectors_of_equal_lengths_are_free() -> None:
    other = UNIT.model_copy(update={"max_tokens": 9})
    require_feasible_pair(recipe(**SHARED), UNIT, other)
    require_feasible_pair(recipe(normalization="none"), UNIT, other)
    with pytest.raises(ConfigError, match=r"query_encoder gives 7 dimensions"):
        require_feasible_pair(recipe(), UNIT, record(dimension=7))


def test_queries_that_are_longer_than_documents_fit_the_bounds_of_the_map() -> None:
    chance = np.random.default_rng(0)
    sample = chance.normal(size=(200, DIMENSION)).astype(np.float32)
    queries = 1_000.0 * chance.normal(size=(20, DIMENSION)).astype(np.float32)
    spec = TransformSpec()
    narrow, wide = (fit_transform(spec, sample, None, given).transform for given in (None, queries))
    assert apply_transform(narrow, queries, "query").clipped
    mapped = apply_transform(wide, queries, "query")
    assert not mapped.clipped
    unit = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    assert np.allclose(mapped.vectors, unit, atol=1e-5)
    # The documents of the sample keep their precision.
    documents = apply_transform(wide, sample, "document").vectors
    assert np.allclose(documents, sample / np.linalg.norm(sample, axis=1, keepdims=True), atol=1e-4)


def test_fine_tuning_refuses_a_recipe_with_two_encoders() -> None:
    config = load_finetune("configs/finetune_demo.yaml", ["recipe.query_encoder.model=other"])
    with pytest.raises(ConfigError, match=r"trains one encoder for documents and queries"):
        open_base(LocalExecutor().reporter, config)


def test_a_comparison_names_encoders_of_queries_after_those_of_documents() -> None:
    given = {
        "queries": "q.csv",
        "judgements": "r.csv",
        "encoders": {"a": {"model": "a"}, "b": {"model": "b"}},
        "transforms": {"plain": {}},
    }
    made = ComparisonSpec.model_validate({**given, "query_encoders": {"b": {"model": "small"}}})
    assert made.query_encoders["b"].model == "small"
    with pytest.raises(ValueError, match="query_encoders names c; expected names of encoders: a, b"):
        ComparisonSpec.model_validate({**given, "query_encoders": {"c": {"model": "small"}}})


def test_two_providers_do_not_share_an_address_or_a_key() -> None:
    served = {"kind": "served", "model": "m", "max_tokens": 100}
    recipe = {
        "documents": {},
        "encoder": served | {"protocol": "openai"},
        "query_encoder": served
        | {"protocol": "voyage", "parameters": {role: {"input_type": role} for role in ("document", "query")}},
    }
    runtime = {"source": "docs", "store": "store", "collection": "c"}

    def build(**endpoint: str) -> PipelineConfig:
        return PipelineConfig.model_validate({"recipe": recipe, "runtime": {**runtime, "endpoint": endpoint}})

    build()
    with pytest.raises(ValidationError, match=r"key_env is for one provider, and .* \(openai\) and .* \(voyage\)"):
        build(key_env="VOYAGE_API_KEY")
