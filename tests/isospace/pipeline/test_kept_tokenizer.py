"""A collection keeps version 2 of the rules for words until its recipe names another; then words alone are written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from isospace.collection.alias import resolve
from isospace.collection.snapshot import Manifest
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.plan_report import plan_only
from isospace.search.lexical_record import lexical_record_path, read_lexical_record
from isospace.search.open_index import open_index
from isospace.storage.store import Store, open_store
from tests.conftest import Configure
from tests.helpers.documents import write_jsonl
from tests.helpers.inline import embed_inline

Configured: TypeAlias = Callable[..., PipelineConfig]

TEXTS = {f"d{n}": f"call getUserName of item {n}" for n in range(12)}
MORE = TEXTS | {"new": "call get_group_name"}


@pytest.fixture
def configured(configure: Configure, tmp_path: Path) -> Configured:
    """Return a function that makes the configuration of a collection; its recipe names the given settings alone."""

    def build(documents: dict[str, str], **lexical: Any) -> PipelineConfig:
        return configure(write_jsonl(tmp_path / "d.jsonl", documents), recipe={"lexical": lexical})

    return build


def tokenizer_of(store: Store) -> int:
    record = read_lexical_record(store, resolve(store, "c", "production"))
    assert record is not None
    return record.spec.tokenizer


def words_found(config: PipelineConfig, query: str) -> int:
    with open_index(config.runtime.store, "c") as index:
        return len(index.search(query, 50, mode="lexical")[0])


def other_files(store: Store) -> dict[str, str]:
    """Return the hashes of a store's files, without the lexical index and what every run writes about itself."""
    own = ("collections/c/lexical/", "collections/c/verdicts/", "collections/c/listings/", "leases/", "reports/")
    return {stat.path: store.digest(stat.path) for stat in store.walk("") if not stat.path.startswith(own)}


def test_new_collections_have_version_3(configured: Configured) -> None:
    config = configured(TEXTS)
    embed_inline(config)
    assert tokenizer_of(open_store(config.runtime.store)) == 3
    assert words_found(config, "user") == 12


def test_version_2_stays_and_moves_when_the_recipe_says_so(configured: Configured) -> None:
    earlier = configured(TEXTS, tokenizer=2)
    first = embed_inline(earlier)
    store = open_store(earlier.runtime.store)
    postings = {stat.path for stat in store.walk("collections/c/lexical") if stat.path.endswith(".safetensors")}
    # The recipe does not name a version, as most do not.
    silent = configured(MORE)
    assert plan_only(silent).added == 1
    second = embed_inline(silent)
    assert (second.encoded, tokenizer_of(store), words_found(silent, "user")) == (1, 2, 0)
    assert resolve(store, "c", "production").recipe["lexical"]["tokenizer"] == 2
    assert first.snapshot != second.snapshot
    assert postings <= {stat.path for stat in store.walk("collections/c/lexical")}
    before = other_files(store)
    assert len(before) > 10
    third = embed_inline(configured(MORE, tokenizer=3))
    assert (third.encoded, third.snapshot) == (0, second.snapshot)
    assert other_files(store) == before
    assert (tokenizer_of(store), words_found(silent, "user")) == (3, 12)
    # Once moved, it stays there without being named.
    embed_inline(silent)
    assert tokenizer_of(store) == 3


def _removed(store: Store, made: Manifest) -> None:
    store.delete(lexical_record_path(made))


def _damaged(store: Store, made: Manifest) -> None:
    store.write(lexical_record_path(made), b"{")


@pytest.mark.parametrize("change", [_removed, _damaged])
def test_without_a_record_the_recipe_of_the_snapshot_tells(configured: Configured, change: Any) -> None:
    earlier = configured(TEXTS, tokenizer=2)
    embed_inline(earlier)
    store = open_store(earlier.runtime.store)
    change(store, resolve(store, "c", "production"))
    embed_inline(configured(TEXTS))
    assert tokenizer_of(store) == 2


@pytest.mark.parametrize(("kind", "tokenizer"), [("none", 2), ("bm25", 1)])
def test_no_index_and_version_1_are_followed_by_version_3(configured: Configured, kind: str, tokenizer: int) -> None:
    earlier = configured(TEXTS, kind=kind, tokenizer=tokenizer)
    embed_inline(earlier)
    embed_inline(configured(TEXTS))
    assert tokenizer_of(open_store(earlier.runtime.store)) == 3
