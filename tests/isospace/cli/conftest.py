"""One store for the command's tests: two snapshots, two inputs that could not be used, an evaluation set."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from isospace.cli.main import main
from tests.conftest import configuration, sentences, write_jsonl
from tests.helpers.inline import embed_inline

# Three sentences each, so that pseudo-queries can be made.
DOCUMENTS = {
    name: f"{first} {second} The end."
    for (name, first), second in zip(
        sentences(40, words=3).items(), sentences(40, seed=1, words=3).values(), strict=True
    )
}
UNUSABLE = '{"doc_id": "number", "text": 3}\n{"doc_id": "blank", "text": ""}\n'


@dataclass(frozen=True)
class Called:
    """How a command ended, and what it printed."""

    status: int
    out: str
    err: str


Call = Callable[..., Called]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run the command as its entry point does, in this process."""

    def run(*arguments: str) -> Called:
        monkeypatch.setattr(sys, "argv", ["isospace", *arguments])
        capsys.readouterr()
        try:
            main()
            status = 0
        except SystemExit as end:
            status = int(end.code or 0)
        return Called(status, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def built(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the store, beside its source, its configuration and a file of queries."""
    folder = tmp_path_factory.mktemp("command")
    source = folder / "d.jsonl"
    config = configuration(tiny_model, source, folder / "store", recipe={"lexical": {"kind": "bm25"}})
    for documents in (DOCUMENTS, DOCUMENTS | {"new": "one more text about a cell"}):
        write_jsonl(source, documents)
        with source.open("a") as stream:
            stream.write(UNUSABLE)
        embed_inline(config)
    (folder / "q.txt").write_text("the cell\nthe gene and the protein\n")
    (folder / "config.yaml").write_text(config.model_dump_json())
    return folder / "store"


@pytest.fixture
def store(built: Path) -> str:
    """The store, for commands that leave it as it is."""
    return str(built)
