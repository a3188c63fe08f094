"""Paths in a store: each is known to one module, checked, and taken apart there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import get_args

import pytest

from isospace.errors import ConfigError
from isospace.storage.paths import (
    CollectionFile,
    CollectionPaths,
    Kind,
    list_collections,
    list_encoders,
    number_of,
    numbered,
    parse_collection_path,
)
from isospace.storage.store import Store

ROOT = Path(__file__).parents[3]
PATHS = ROOT / "isospace/storage/paths.py"
TOPS = "collections|encoders|vectors|spaces|reports|leases|contests"
BY_HAND = re.compile(rf"(?:{TOPS})/")
# What a store is asked for by a path or a folder.
METHODS = {
    "read", "read_range", "size", "exists", "write", "create", "create_if_absent", "create_file", "write_file",
    "digest",
    "delete", "walk", "folders", "leftovers", "stat", "remove_empty",
}  # fmt: skip
C = CollectionPaths("c")
KINDS: tuple[Kind, ...] = get_args(Kind)
HEX = "0123456789abcdef" * 4
FILES: dict[str, tuple[str, Kind]] = {
    C.documents("p"): ("collections/c/documents/p.parquet", "documents"),
    C.chunks("p"): ("collections/c/chunks/p.parquet", "chunks"),
    C.segment("s", "p"): ("collections/c/segments/s/p.parquet", "segments"),
    C.plan("i"): ("collections/c/plans/i.parquet", "plans"),
    C.paid("s"): ("collections/c/plans/paid/s", "plans"),
    C.batches: ("collections/c/plans/batches", "plans"),
    C.refusals(HEX, HEX): (f"collections/c/refusals/{HEX[:32]}-{HEX[:32]}.json", "refusals"),
    C.billed: ("collections/c/billed/total.json", "billed"),
    C.deletions("d"): ("collections/c/deletions/d.parquet", "deletions"),
    C.quarantine("d"): ("collections/c/quarantine/d.parquet", "quarantine"),
    C.snapshot(12): ("collections/c/snapshots/00000012.json", "snapshots"),
    C.alias("production"): ("collections/c/aliases/production", "aliases"),
    C.serving_database("i", HEX): ("collections/c/serving/i-0123456789abcdef.duckdb", "serving"),
    C.serving_record("i", HEX): ("collections/c/serving/i-0123456789abcdef.json", "serving"),
    C.lexical_index("i", HEX): ("collections/c/lexical/i-0123456789abcdef.safetensors", "lexical"),
    C.recall_record("i", HEX): ("collections/c/recall/i-0123456789abcdef.json", "recall"),
    C.postings("i", HEX): (f"collections/c/lexical/i-{HEX[:32]}.safetensors", "lexical"),
    C.lexical_record("i", HEX): ("collections/c/lexical/i-0123456789abcdef.json", "lexical"),
    C.evaluation_set("default"): ("collections/c/evaluation/default", "evaluation"),
    C.evaluation_files("default", HEX): (f"collections/c/evaluation/default/{HEX[:32]}", "evaluation"),
    C.verdicts("i"): ("collections/c/verdicts/i", "verdicts"),
    C.answers("2026-01-02"): ("collections/c/answers/2026-01-02", "answers"),
    C.reference_record("s"): ("collections/c/references/s.json", "references"),
    C.reference_sample("s", HEX): ("collections/c/references/s-0123456789abcdef.parquet", "references"),
    C.listing_record("i"): ("collections/c/listings/i.json", "listings"),
    C.listing_rows("d"): ("collections/c/listings/d.parquet", "listings"),
    C.part_list("d"): ("collections/c/parts/d.json", "parts"),
    C.kept_sample(-3): ("collections/c/samples/-3.parquet", "samples"),
    C.remote_record("i", HEX): ("collections/c/remote/i-0123456789abcdef.json", "remote"),
    C.remote_group_record("d"): ("collections/c/remote/d/group.json", "remote"),
    C.remote_object("d", "codes", HEX): ("collections/c/remote/d/codes-0123456789abcdef.bin", "remote"),
    numbered(C.folder("audits"), 3): ("collections/c/audits/00000003.json", "audits"),
    numbered(C.replacements, 3): ("collections/c/forgotten/replaced/00000003.json", "forgotten"),
    numbered(C.receipts, 3): ("collections/c/forgotten/receipts/00000003.json", "forgotten"),
}


def test_every_path_of_a_collection_is_what_it_has_always_been() -> None:
    assert len(FILES) == 34
    assert {path: expected for path, (expected, _) in FILES.items()} == {path: path for path in FILES}
    assert {kind: C.folder(kind) for kind in KINDS} == {kind: f"collections/c/{kind}" for kind in KINDS}


def test_a_path_is_taken_apart_into_what_it_was_made_of() -> None:
    assert {path: parse_collection_path(path) for path in FILES} == {
        path: CollectionFile("c", kind) for path, (_, kind) in FILES.items()
    }
    assert {kind for _, kind in FILES.values()} == set(KINDS)


@pytest.mark.parametrize(
    "path",
    ["", "collections", "collections/c", "collections/c/", "collections//documents/x", "collections/../documents/x",
     "/collections/c/documents/x", "vectors/e/document/x", "x/collections/c/documents/p", "collections/.c/chunks/x"],
)  # fmt: skip
def test_a_path_that_is_of_no_collection_is_none(path: str) -> None:
    assert parse_collection_path(path) is None


@pytest.mark.parametrize(
    "inner", ["documents", "documents/", ".tmp-1-abc", "document/p", "Documents/p", "other/documents/p"]
)
def test_a_path_of_no_known_kind_is_of_the_collection_alone(inner: str) -> None:
    assert parse_collection_path(f"collections/c/{inner}") == CollectionFile("c", None)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../c", "a/b", "/a", "-a", ".hidden", "a b", "ü", "a\0b", "a\n", "x" * 101]
)
def test_a_name_that_is_no_folder_is_refused_once_for_all_paths(name: str) -> None:
    with pytest.raises(ConfigError, match=r"collection .*expected 1 to 100 letters"):
        CollectionPaths(name)
    for ask in (C.alias, C.evaluation_set):
        with pytest.raises(ConfigError, match="expected 1 to 100 letters"):
            ask(name)


def test_a_checked_name_stays_what_was_checked() -> None:
    with pytest.raises(FrozenInstanceError):
        C.name = "../c"  # type: ignore[misc]
    assert CollectionPaths("a" * 100).root == f"collections/{'a' * 100}"


@pytest.mark.parametrize("number", [1, 42, 99_999_999])
def test_a_number_is_read_back(number: int) -> None:
    assert number_of(numbered("a/b", number)) == number


def test_collections_and_encoders_are_listed_by_names_they_can_have(store: Store) -> None:
    assert (list_collections(store), list_encoders(store)) == ([], [])
    for path in ("b/documents/x", "a/snapshots/00000001.json", ".hidden/chunks/x", "not a name/chunks/x"):
        store.write(f"collections/{path}", b"x")
    for name in (HEX, "described", "e"):
        store.write(f"encoders/{name}/encoder.json", b"x")
    assert list_collections(store) == ["a", "b"]
    assert list_encoders(store) == [HEX]


def modules() -> list[Path]:
    return sorted(path for folder in ("isospace", "tasks", "flows") for path in (ROOT / folder).rglob("*.py"))


def texts(node: ast.AST) -> str:
    """Return the literal start of a string; empty for anything else."""
    if isinstance(node, ast.JoinedStr) and node.values:
        return texts(node.values[0])
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def docstrings(tree: ast.AST) -> set[int]:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    bodies = [node.body for node in ast.walk(tree) if isinstance(node, kinds)]
    return {id(statement.value) for body in bodies for statement in body if isinstance(statement, ast.Expr)}


def built_by_hand(source: str) -> Iterator[tuple[int, str]]:
    """Yield paths of a store that are spelled out: texts that begin with one, and what a store's methods are asked."""
    tree = ast.parse(source)
    prose = docstrings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant | ast.JoinedStr) and id(node) not in prose and BY_HAND.match(texts(node)):
            yield node.lineno, texts(node)
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in METHODS
            and node.args
        ):
            first = texts(node.args[0])
            if re.fullmatch(TOPS, first):
                yield node.lineno, first


def test_no_other_module_builds_a_path_of_a_store() -> None:
    scanned = [path for path in modules() if path != PATHS]
    assert len(scanned) > 250
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text}" for path in scanned for line, text in built_by_hand(path.read_text())
    ]
    assert found == []
    named = [str(path.relative_to(ROOT)) for path in scanned if re.search(r"[\"']collections/", path.read_text())]
    assert named == []


@pytest.mark.parametrize(
    "source",
    ['store.read(f"collections/{c}/chunks/x")', 'base = "collections/c"; store.walk("collections/" + name)',
     'store.folders("collections")', 'store.walk("vectors")', 'path = f"encoders/{name}/encoder.json"',
     'store.delete(f"spaces/{i}")', 'f(a, "leases/runs")'],
)  # fmt: skip
def test_the_search_for_such_paths_finds_one(source: str) -> None:
    assert list(built_by_hand(source))
