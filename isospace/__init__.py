"""isospace: a versioned, quantized vector index that transforms queries exactly like documents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from isospace.encoding.embedder import OpenSpace as OpenSpace
    from isospace.encoding.embedder import open_space as open_space
    from isospace.encoding.engine import Engine as Engine
    from isospace.operations.maintenance.verify import VerificationResult as VerificationResult
    from isospace.operations.maintenance.verify import verify_snapshot as verify_snapshot
    from isospace.pipeline.config import PipelineConfig as PipelineConfig
    from isospace.pipeline.config_files import load_config as load_config
    from isospace.pipeline.embed import backfill as backfill
    from isospace.pipeline.embed import embed_corpus as embed_corpus
    from isospace.pipeline.embed import plan_run as plan_run
    from isospace.pipeline.embed import refit_space as refit_space
    from isospace.pipeline.run_report import RunReport as RunReport
    from isospace.search.hits import Hit as Hit
    from isospace.search.index import Index as Index
    from isospace.search.open_index import open_index as open_index
    from isospace.search.options import SearchOptions as SearchOptions
    from isospace.search.query_cache import CacheConfig as CacheConfig
    from isospace.search.read_chunks import read_chunks as read_chunks
    from isospace.search.reranker import Reranker as Reranker
    from isospace.search.reranker import open_reranker as open_reranker
    from isospace.storage.store import Store as Store
    from isospace.storage.store import open_store as open_store

__version__ = "0.1.0"

# Name of each export, and the module that defines it: loaded on first use, since the transform needs NumPy alone, and
# importing any module imports this file. Type checkers read the imports above.
_HOMES = {
    "CacheConfig": "search.query_cache",
    "Engine": "encoding.engine",
    "Hit": "search.hits",
    "Index": "search.index",
    "OpenSpace": "encoding.embedder",
    "PipelineConfig": "pipeline.config",
    "Reranker": "search.reranker",
    "RunReport": "pipeline.run_report",
    "SearchOptions": "search.options",
    "Store": "storage.store",
    "VerificationResult": "operations.maintenance.verify",
    "backfill": "pipeline.embed",
    "embed_corpus": "pipeline.embed",
    "load_config": "pipeline.config_files",
    "open_index": "search.open_index",
    "open_reranker": "search.reranker",
    "open_space": "encoding.embedder",
    "open_store": "storage.store",
    "plan_run": "pipeline.embed",
    "read_chunks": "search.read_chunks",
    "refit_space": "pipeline.embed",
    "verify_snapshot": "operations.maintenance.verify",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'isospace' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"isospace.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    # Not what this file needs for itself.
    return sorted({*globals(), *_HOMES} - {"Any", "TYPE_CHECKING", "annotations", "_HOMES"})
