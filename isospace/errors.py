"""The exceptions of isospace.

    IsospaceError
    ├── ConfigError          the configuration is invalid; names the key
    ├── SourceError          the source cannot be read, or too many inputs were quarantined
    ├── StoreError           the object store failed
    │   ├── NotFoundError    no such collection, alias, snapshot, space, or file
    │   ├── IntegrityError   a file differs from what was recorded about it
    │   ├── ConflictError    another run committed first
    │   └── BusyError        another process uses the store, and files could be lost
    ├── EncoderError         a model cannot be loaded, or returns invalid vectors
    │   ├── TextRefusedError the provider of a served encoder refuses a text
    │   └── ProviderError    the provider of a served encoder failed; carries what was paid
    │       ├── ProviderUnavailableError   it cannot be reached, or is overloaded: try again later
    │       ├── ProviderRefusedError       it refuses every request: key, model, parameters, or quota
    │       └── ProviderAnswerError        it answers, but wrongly: vectors, count, or another model
    ├── WorkerError          a worker died or hangs; its shard is retried
    ├── NoWorkersError       all workers are lost
    ├── FitError             the sample is not suitable for the fit
    ├── MismatchError        two sides belong to different spaces; names the difference
    ├── QueryError           a query is invalid
    ├── ScopeError           what a caller may see cannot be told
    ├── ShardError           a shard of a collection does not answer, or wrongly
    ├── CheckError           a check before the commit failed; nothing was published
    ├── GateError            a snapshot failed the quality gate; the alias was not moved
    ├── HeldError            the alias is held; it was not moved
    └── AuditError           an audit raised alarms

Every message gives the value found, what was expected, and what to do.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any


class IsospaceError(Exception):
    """Root of every error that isospace raises on purpose."""


class ConfigError(IsospaceError):
    """The configuration is invalid; the message names the key."""


class SourceError(IsospaceError):
    """The source cannot be read, or too many of its inputs were quarantined."""


class StoreError(IsospaceError):
    """The object store failed."""


class NotFoundError(StoreError):
    """A collection, alias, snapshot, space, or file does not exist in the store."""


class IntegrityError(StoreError):
    """A file differs from what was recorded about it when it was written."""


class ConflictError(StoreError):
    """Another run committed the same number first."""


class BusyError(StoreError):
    """Another process uses the store, and files could be lost if both continued."""


class EncoderError(IsospaceError):
    """A model cannot be loaded, or returned invalid vectors."""


class ProviderError(EncoderError):
    """The provider of a served encoder failed.

    Parameters
    ----------
    message
        The message, in one line, without the key.
    answer
        What had been answered and paid before the failure: an `isospace.encoding.served.answer.ServedAnswer`, in which
        the rows without an answer are NaN; None if the call itself sent nothing.
    """

    def __init__(self, message: str, answer: Any = None) -> None:
        super().__init__(message)
        self.answer = answer


class ProviderUnavailableError(ProviderError):
    """The provider cannot be reached, is overloaded, or did not answer in time; the same call may succeed later."""


class ProviderRefusedError(ProviderError):
    """The provider refuses every request: the key, the model, a parameter, or the quota has to be changed first."""


# Without an answer for these reasons, a search can still be by words.
NO_ANSWER = (ProviderUnavailableError, ProviderRefusedError)


class TextRefusedError(EncoderError):
    """The provider refuses a text, such as a query that is too long; others may pass."""


class ProviderAnswerError(ProviderError):
    """The provider's answers are wrong: count, order, dimension, values, or another model than before."""


class WorkerError(IsospaceError):
    """A worker died or stopped responding; another worker retries its shard."""


class NoWorkersError(IsospaceError):
    """All workers were lost, and none could be restarted."""


class FitError(IsospaceError):
    """The sample is too small or otherwise not suitable for the fit."""


class MismatchError(IsospaceError):
    """Two sides belong to different spaces; the message names the difference."""


class QueryError(IsospaceError):
    """A query is invalid."""


class ScopeError(IsospaceError):
    """What a caller may see cannot be told, so that nothing is shown."""


class ShardError(IsospaceError):
    """A shard of a collection does not answer, or answers wrongly; the message names it.

    Parameters
    ----------
    message
        What is wrong with which shard, and what to do.
    shard
        Its URL; empty if no shard is left.
    is_gone
        Whether it cannot be reached at all.
    is_alive
        Whether it works, and only refused this request: it has too many of them, or this one is too large.
    """

    def __init__(self, message: str, *, shard: str = "", is_gone: bool = False, is_alive: bool = False) -> None:
        super().__init__(message)
        self.shard, self.is_gone, self.is_alive = shard, is_gone, is_alive


class CheckError(IsospaceError):
    """A check before the commit failed, so nothing was published."""


class GateError(IsospaceError):
    """A snapshot failed the quality gate, so the alias was not moved."""


class HeldError(IsospaceError):
    """The alias is held, so it was not moved."""


class AuditError(IsospaceError):
    """An audit found what a person has to look at."""


# The extra that brings a package, for every package that only an extra brings.
EXTRAS = {
    "fastapi": "serve", "starlette": "serve", "uvicorn": "serve", "h11": "serve", "prometheus_client": "serve",
    "jwt": "serve", "cryptography": "serve",
    "openvino": "query", "openvino_telemetry": "query", "tokenizers": "query", "bm25s": "query", "Stemmer": "query",
    "regex": "query", "scipy": "query",
    "faiss": "fast",
    "torch": "encode", "sentence_transformers": "encode", "transformers": "encode", "huggingface_hub": "encode",
    "onnx": "onnx", "onnxruntime": "onnx", "onnxscript": "onnx", "nncf": "int8", "ray": "ray",
    "grpc": "ray",
    "accelerate": "finetune", "datasets": "finetune", "datasketch": "finetune", "peft": "finetune",
    "httpx": "served", "tiktoken": "served",
    "lancedb": "export", "pgvector": "export", "psycopg": "export", "qdrant_client": "export",
    "jinja2": "report", "matplotlib": "report", "sklearn": "report",
    "boto3": "aws", "botocore": "aws", "chardet": "pipeline",
    "webencodings": "pipeline", "duckdb": "pipeline", "fsspec": "pipeline", "ir_measures": "pipeline",
    "lxml": "pipeline", "lxml_html_clean": "pipeline", "polars": "pipeline", "py3langid": "pipeline",
    "pypdfium2": "pipeline", "threadpoolctl": "pipeline", "trafilatura": "pipeline",
}  # fmt: skip


def install_command(extra: str) -> str:
    """Return the command that installs an extra, for the way in which isospace itself is installed."""
    checkout = Path(__file__).resolve().parents[1]
    if not (checkout / "pyproject.toml").is_file():
        return f"pip install 'isospace[{extra}]'"
    place = "." if checkout == Path.cwd() else str(checkout)
    constraints = checkout / "constraints.txt"
    pinned = f"-c {'constraints.txt' if place == '.' else constraints} " if constraints.is_file() else ""
    return f"pip install {pinned}-e '{place}[{extra}]'"


def missing_package(name: str, purpose: str = "") -> str:
    """Return the message for a package that is not installed, with the command that installs it."""
    package = name.partition(".")[0]
    known = EXTRAS.get(package)
    needed = f" ({purpose} needs it)" if purpose else ""
    command = install_command(known) if known else f"pip install {package}"
    return f"the package {package} is not installed{needed}. Run: {command}"


def require_package(name: str, purpose: str) -> None:
    """Raise ConfigError where a package is not installed that work needs which is about to start."""
    if importlib.util.find_spec(name) is None:
        raise ConfigError(missing_package(name, purpose))
