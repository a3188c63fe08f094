"""What decides which documents a file of the source gives, apart from the file itself."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import platform
import unicodedata
from collections.abc import Mapping
from pathlib import Path

import isospace.ingest
from isospace.pipeline.run import Run
from isospace.storage.hashing import fingerprint

# What parses documents beside our own code.
_PACKAGES = (
    "chardet",
    "isospace",
    "justext",
    "lxml",
    "markdown-it-py",
    "pyarrow",
    "pypdfium2",
    "pyyaml",
    "trafilatura",
)


def reading_fingerprint(run: Run, refused: Mapping[str, str]) -> str:
    """Return the fingerprint of everything that decides what a file gives: equal files then give equal documents.

    That is the source, the options of documents, the limits of parsing, and the code that parses. It is also what the
    run leaves out: forgotten documents, and those that the provider of an encoder refuses.
    """
    runtime, recipe = run.config.runtime, run.config.recipe
    return fingerprint(
        {
            # The names of files are relative to it.
            "source": runtime.source if "://" in runtime.source else str(Path(runtime.source).absolute()),
            # Types of metadata change no document.
            "documents": recipe.documents.model_dump(mode="json", exclude={"metadata_types"}),
            "include_headings": recipe.chunking.include_headings,
            "limits": [runtime.parse_seconds, runtime.parse_megabytes],
            "code": _code(),
            "versions": _versions(),
            "tombstones": run.tombstones,
            "refused": sorted(refused),
        }
    )


@functools.cache
def _code() -> str:
    """Return the SHA-256 of the code that reads documents, whose version number may stay while it is worked on."""
    folder = Path(next(iter(isospace.ingest.__path__)))
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        data = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()} {len(data)}\n".encode() + data)
    return digest.hexdigest()


@functools.cache
def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "unicode": unicodedata.unidata_version}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
