"""Metrics for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import Scope

from isospace.search.index import Index
from isospace.service.query_logging import Watcher

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """The metrics of one service, in a separate registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.requests = Counter("isospace_requests", "Requests answered.", ["path", "status"], registry=registry)
        self.seconds = Histogram(
            "isospace_request_seconds", "Time to answer.", ["path"], buckets=_SECONDS, registry=registry
        )
        self.under_way = Gauge("isospace_requests_under_way", "Requests being answered.", registry=registry)
        self.batch = Histogram(
            "isospace_batch_texts",
            "Items of requests that were computed in one batch.",
            ["work"],
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
            registry=registry,
        )
        self.tokens = Counter("isospace_tokens", "Tokens embedded.", registry=registry)
        self.cached = Gauge("isospace_query_cache", "Query vectors by cache outcome.", ["outcome"], registry=registry)
        self.hit_rate = Gauge(
            "isospace_query_cache_hit_rate", "Share of query vectors found in the cache.", registry=registry
        )
        self.snapshot = Gauge(
            "isospace_snapshot", "Number of the snapshot that is served.", ["space_id"], registry=registry
        )
        self.bitwise = Gauge(
            "isospace_bitwise",
            "1 if texts embedded here have the bits of the snapshot's vectors, 0 if only a tolerance holds.",
            registry=registry,
        )
        self.stale = Gauge(
            "isospace_refresh_failed", "1 while the alias names a snapshot that cannot be opened.", registry=registry
        )
        self.watched = Gauge("isospace_answers", "Answers by query log outcome.", ["outcome"], registry=registry)

    def count_request(self, scope: Scope, status: int, seconds: float) -> None:
        """Count one answered request; unknown paths share one label."""
        route = scope.get("route")
        path = getattr(route, "path", "other")
        self.requests.labels(path, str(status)).inc()
        self.seconds.labels(path).observe(seconds)

    def text(self, index: Index, watcher: Watcher | None = None) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        counts = index.cache.counts
        for name, value in (("hit", counts.hits), ("miss", counts.misses), ("semantic", counts.semantic)):
            self.cached.labels(name).set(value)
        for outcome, count in (watcher.outcomes() if watcher is not None else {}).items():
            self.watched.labels(outcome).set(count)
        self.hit_rate.set(counts.hit_rate)
        self.snapshot.clear()
        self.snapshot.labels(index.space.space_id).set(index.manifest.sequence)
        self.bitwise.set(index.promise.is_bitwise)
        self.stale.set(bool(index.problem))
        return generate_latest(self.registry)
