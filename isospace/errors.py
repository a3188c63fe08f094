"""The exceptions of isospace.

    IsospaceError
    ├── ConfigError          a configuration that cannot run; names the key
    ├── SourceError          a source that cannot be read at all
    ├── StoreError           the object store failed, or lacks what was asked of it
    │   ├── NotFoundError    no such collection, alias, snapshot, space or file
    │   ├── IntegrityError   bytes are not what their manifest says
    │   ├── ConflictError    another run committed first
    │   └── BusyError        somebody else works on the store, and both at once would lose files
    ├── EncoderError         a model that cannot be loaded or misbehaves
    ├── WorkerError          a worker died or answered no more; its shard is tried again
    ├── NoWorkersError       no worker is left to try again
    ├── FitError             a sample that cannot carry the fit asked of it
    ├── MismatchError        two sides are not of the same space; names what differs
    ├── QueryError           a query that cannot be answered as it was put
    ├── CheckError           a check before the commit failed; nothing was published
    ├── GateError            a snapshot does not hold the rules of its gate; the alias stays
    └── AuditError           an audit found what a person has to look at

Every message gives the value found, what was expected, and what to do.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path


class IsospaceError(Exception):
    """Root of every error that isospace raises on purpose."""


class ConfigError(IsospaceError):
    """A configuration cannot run; the message names the key."""


class SourceError(IsospaceError):
    """A source cannot be read at all, or too much of it had to be set aside."""


class StoreError(IsospaceError):
    """The object store failed, or does not hold what was asked of it."""


class NotFoundError(StoreError):
    """A collection, alias, snapshot, space or file does not exist in the store."""


class IntegrityError(StoreError):
    """The bytes of an artifact differ from what its manifest recorded."""


class ConflictError(StoreError):
    """Another run committed the same sequence number first."""


class BusyError(StoreError):
    """Somebody else works on the store, and both at once could lose files."""


class EncoderError(IsospaceError):
    """A model cannot be loaded, or returned something that is no embedding."""


class WorkerError(IsospaceError):
    """A worker died or answered no more; what it had is tried again by another."""


class NoWorkersError(IsospaceError):
    """Every worker was lost, and none could be started again."""


class FitError(IsospaceError):
    """The sample cannot carry the fit that was asked of it."""


class MismatchError(IsospaceError):
    """Two sides are not of the same space; the message names what differs."""


class QueryError(IsospaceError):
    """A query cannot be answered as it was put."""


class CheckError(IsospaceError):
    """A check before the commit failed, so nothing was published."""


class GateError(IsospaceError):
    """A snapshot does not hold the rules of its gate, so the alias was not moved."""


class AuditError(IsospaceError):
    """An audit found what a person has to look at."""


# The extra that brings a package, for every package that only an extra brings.
EXTRAS = {
    "fastapi": "serve", "starlette": "serve", "uvicorn": "serve", "prometheus_client": "serve",
    "openvino": "query", "openvino_telemetry": "query", "tokenizers": "query", "bm25s": "query", "Stemmer": "query",
    "faiss": "fast",
    "torch": "encode", "sentence_transformers": "encode", "transformers": "encode", "huggingface_hub": "encode",
    "onnx": "onnx", "onnxruntime": "onnx", "onnxscript": "onnx", "nncf": "int8", "ray": "ray",
    "accelerate": "finetune", "datasets": "finetune", "datasketch": "finetune", "peft": "finetune", "httpx": "finetune",
    "lancedb": "export", "pgvector": "export", "psycopg": "export", "qdrant_client": "export",
    "jinja2": "report", "matplotlib": "report", "sklearn": "report", "scipy": "report",
    "charset_normalizer": "pipeline", "duckdb": "pipeline", "fsspec": "pipeline", "ir_measures": "pipeline",
    "lxml": "pipeline", "lxml_html_clean": "pipeline", "polars": "pipeline", "py3langid": "pipeline",
    "pypdfium2": "pipeline", "threadpoolctl": "pipeline", "trafilatura": "pipeline",
}  # fmt: skip


def install_command(extra: str) -> str:
    """Return the command that installs an extra, for the way in which isospace itself is installed."""
    checkout = Path(__file__).resolve().parents[1]
    if not (checkout / "pyproject.toml").is_file():
        return f"pip install 'isospace[{extra}]'"
    place = "." if checkout == Path.cwd() else str(checkout)
    return f"pip install -e '{place}[{extra}]'"


def missing_package(name: str, purpose: str = "") -> str:
    """Return the message for a package that is not installed, with the command that installs it."""
    package = name.partition(".")[0]
    known = EXTRAS.get(package)
    needed = f" ({purpose} needs it)" if purpose else ""
    return f"the package {package} is not installed{needed}. Run: {install_command(known) if known else f'pip install {package}'}"


def require_package(name: str, purpose: str) -> None:
    """Raise ConfigError where a package is not installed that work needs which is about to start."""
    if importlib.util.find_spec(name) is None:
        raise ConfigError(missing_package(name, purpose))
