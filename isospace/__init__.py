"""isospace: a versioned, quantized vector index that transforms queries exactly like documents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from isospace.encoding.embedder import OpenSpace, open_space
    from isospace.encoding.engine import Engine
    from isospace.operations.maintenance.verify import Verified, verify_snapshot
    from isospace.pipeline.config import PipelineConfig
    from isospace.pipeline.config_files import load_config
    from isospace.search.index import Hit, Index, open_index
    from isospace.search.options import SearchOptions
    from isospace.search.query_cache import CacheConfig
    from isospace.search.reranker import Reranker, open_reranker
    from isospace.storage.store import Store, open_store

__all__ = [
    "CacheConfig",
    "Engine",
    "Hit",
    "Index",
    "OpenSpace",
    "PipelineConfig",
    "Reranker",
    "SearchOptions",
    "Store",
    "Verified",
    "load_config",
    "open_index",
    "open_reranker",
    "open_space",
    "open_store",
    "verify_snapshot",
]
__version__ = "0.1.0"

_HOMES = {
    "CacheConfig": "search.query_cache",
    "Engine": "encoding.engine",
    "Hit": "search.index",
    "Index": "search.index",
    "OpenSpace": "encoding.embedder",
    "PipelineConfig": "pipeline.config",
    "Reranker": "search.reranker",
    "SearchOptions": "search.options",
    "Store": "storage.store",
    "Verified": "operations.maintenance.verify",
    "load_config": "pipeline.config_files",
    "open_index": "search.index",
    "open_reranker": "search.reranker",
    "open_space": "encoding.embedder",
    "open_store": "storage.store",
    "verify_snapshot": "operations.maintenance.verify",
}


def __getattr__(name: str) -> Any:
    # Loaded on first use: the modules of the transform need NumPy alone, and importing one of them
    # imports this file.
    if name not in _HOMES:
        raise AttributeError(f"module 'isospace' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"isospace.{_HOMES[name]}"), name)
