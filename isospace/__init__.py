"""isospace: a versioned, quantized vector index whose queries are transformed exactly as its documents were."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from isospace.config import PipelineConfig
    from isospace.config_files import load_config
    from isospace.engine import Engine
    from isospace.index import Hit, Index, open_index
    from isospace.opening import OpenSpace, open_space
    from isospace.retrieval.options import SearchOptions
    from isospace.retrieval.query_cache import CacheConfig
    from isospace.retrieval.rerank import Reranker, open_reranker
    from isospace.store import Store, open_store
    from isospace.verify import Verified, verify_snapshot

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
    "CacheConfig": "retrieval.query_cache",
    "Engine": "engine",
    "Hit": "index",
    "Index": "index",
    "OpenSpace": "opening",
    "PipelineConfig": "config",
    "Reranker": "retrieval.rerank",
    "SearchOptions": "retrieval.options",
    "Store": "store",
    "Verified": "verify",
    "load_config": "config_files",
    "open_index": "index",
    "open_reranker": "retrieval.rerank",
    "open_space": "opening",
    "open_store": "store",
    "verify_snapshot": "verify",
}


def __getattr__(name: str) -> Any:
    # Loaded on first use: the modules of the transform need NumPy alone, and importing one of them
    # imports this file.
    if name not in _HOMES:
        raise AttributeError(f"module 'isospace' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"isospace.{_HOMES[name]}"), name)
