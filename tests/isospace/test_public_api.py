"""The public names: listed, typed for a type checker, and refused by name when given something else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import numpy as np
import pytest

import isospace
from isospace.collection.alias import resolve
from isospace.encoding.embedder import find_space, open_space
from isospace.errors import ConfigError, IsospaceError, MismatchError, NotFoundError
from isospace.search.open_index import open_index
from isospace.search.options import SearchKeywords, SearchOptions
from isospace.storage.store import open_store
from isospace.transform.quantizer_set import dequantize, fit_quantizers, quantize
from isospace.transform.representations import Int8Spec

PACKAGE = Path(isospace.__file__).parent
ASKED = """
from isospace.search.index import Index

def ask(index: Index) -> None:
    index.search("a", k=3, mode="hybrid", weights=(1.0, 0.5), filter="year > 2000", rerank=True)
    index.search("a", mode="hybird")
    index.search("a", limit=3)
    index.search(["a"], k="3")
    index.search_raw([], metric="cosin")
    index.search_vectors([], rescore="4")
    index.search("a", filters=None)
"""


def test_dir_lists_the_public_names() -> None:
    assert set(isospace.__all__) <= set(dir(isospace))
    assert {"open_index", "SearchOptions", "__version__"} <= set(dir(isospace))
    assert not {"Any", "TYPE_CHECKING", "annotations", "_HOMES"} & set(dir(isospace))


def test_a_type_checker_refuses_misspelled_and_mistyped_options(tmp_path: Path) -> None:
    (tmp_path / "asked.py").write_text(ASKED)
    files = [PACKAGE / "search" / name for name in ("options.py", "index.py", "vector/scoring.py")]
    # Without what they import: that is checked elsewhere, and takes a minute.
    options = ["--follow-imports=skip", "--config-file=", "--python-version=3.11"]
    command = [sys.executable, "-m", "mypy", *options, "--cache-dir", tmp_path / "cache", *files, tmp_path / "asked.py"]
    shown = subprocess.run(command, capture_output=True, text=True, check=False, cwd=PACKAGE.parent).stdout
    refused = {int(line.split(":")[1]) for line in shown.splitlines() if line.startswith(str(tmp_path))}
    assert refused == {6, 7, 8, 9, 10, 11}, shown
    assert (PACKAGE / "py.typed").is_file()


def test_the_keywords_are_the_fields_of_the_options() -> None:
    fields = {name: field.annotation for name, field in SearchOptions.model_fields.items() if name != "k"}
    keywords = get_type_hints(SearchKeywords)
    assert list(keywords) == list(fields)
    assert {name: keywords[name] for name in fields if name != "weights"} == {
        name: _without_limits(kind) for name, kind in fields.items() if name != "weights"
    }


def _without_limits(kind: Any) -> Any:
    """Return a type without what pydantic checks of the members of a union."""
    if not any(get_origin(one) is Annotated for one in get_args(kind)):
        return kind
    return Union[tuple(get_args(one)[0] if get_origin(one) is Annotated else one for one in get_args(kind))]  # noqa: UP007


@pytest.mark.parametrize(
    ("called", "named"),
    [
        (lambda store: open_index(store, "c", alias=True), "alias True: is neither a text nor a number"),
        (lambda store: open_index(store, "c", 2), "collection 'c': no snapshot in"),
        (lambda store: open_index(store, "c", None), "alias None: is neither a text nor a number"),
        (lambda store: open_index(store, 7), "collection 7: is not a text"),
        (lambda store: open_index(None, "c"), "store = None"),
        (lambda store: open_index(["store"], "c"), "store = ['store']"),
        (lambda store: resolve(open_store(store), "c", b"production"), "is neither a text nor a number"),
        (lambda store: open_space(store, "abc"), "space 'abc': 0 spaces"),
        (lambda store: open_space(store, 12345678), "space_id = 12345678"),
        (lambda store: open_space(store, "../../etc/passwd"), "leads out of the store"),
        (lambda store: open_space({}, "0" * 64), "store = {}"),
    ],
)
def test_arguments_of_another_kind_are_named(called: Callable[[Path], object], named: str, tmp_path: Path) -> None:
    with pytest.raises(IsospaceError) as raised:
        called(tmp_path)
    assert named in str(raised.value)


@pytest.mark.parametrize("values", [[[0.1] * 8], [0.1] * 8, "vectors", None, [["a"]]])
def test_vectors_that_are_no_array_are_refused(values: object) -> None:
    quantizers = fit_quantizers(np.eye(8, dtype=np.float32), (Int8Spec(percentile=100),))
    for function in (quantize, dequantize):
        with pytest.raises(MismatchError, match=r"NumPy array. Convert it with numpy.asarray"):
            function(quantizers, values, "int8")


def test_a_space_is_found_by_its_first_digits(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    first, second = "0123456789" + "a" * 54, "01234567ff" + "b" * 54
    for name in (first, second):
        store.write(f"spaces/{name}/space.json", b"{}")
    assert find_space(store, first) == first
    assert find_space(store, "012345678") == first
    assert find_space(store, "01234567f") == second
    for ambiguous, count in (("01234567", 2), ("0123456", 0), ("ffffffff", 0)):
        with pytest.raises(NotFoundError, match=f"{count} spaces"):
            find_space(store, ambiguous)
    with pytest.raises(ConfigError, match="expected a text"):
        find_space(store, None)
