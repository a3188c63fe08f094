"""Metrics for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from isospace import __version__
from isospace.search.index import Index
from isospace.service.access_log import AccessLog
from isospace.service.keys import Keys
from isospace.service.query_logging import Watcher
from isospace.service.recall_watch import RecallWatch

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Metrics:
    """The metrics of one service, in a separate registry."""

    def __init__(
        self,
        index: Index,
        keys: Keys,
        watcher: Watcher | None,
        log: AccessLog | None,
        recall: RecallWatch | None = None,
    ) -> None:
        registry = self.registry = CollectorRegistry()
        self.requests = Counter(
            "isospace_requests",
            "Requests answered, by route and status; 499 if the client was gone.",
            ["path", "status"],
            registry=registry,
        )
        self.seconds = Histogram(
            "isospace_request_seconds",
            "Time from the headers of a request to the end of its answer, in seconds.",
            ["path"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.under_way = Gauge("isospace_requests_under_way", "Requests being answered now.", registry=registry)
        self.batch = Histogram(
            "isospace_batch_texts",
            "Texts, token arrays, or queries that were computed in one batch.",
            ["work"],
            buckets=_TEXTS,
            registry=registry,
        )
        self.tokens = Counter(
            "isospace_tokens", "Tokens of the inputs of answered embedding requests.", registry=registry
        )
        registry.register(_Counted(index, keys, watcher, log, recall))
        ProcessCollector(registry=registry)

    def count_request(self, path: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        self.requests.labels(path, str(status)).inc()
        self.seconds.labels(path).observe(seconds)

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """Return all metrics in the format that an Accept header asks for, and the content type."""
        encoder, content_type = choose_encoder(accept)
        return encoder(self.registry), content_type


class _Counted(Collector):
    """Figures that other parts of the service count, read when the metrics are."""

    def __init__(
        self,
        index: Index,
        keys: Keys,
        watcher: Watcher | None,
        log: AccessLog | None,
        recall: RecallWatch | None,
    ) -> None:
        self.index, self.keys, self.watcher, self.log, self.recall = index, keys, watcher, log, recall

    def collect(self) -> Iterable[Metric]:
        """Return the figures of now."""
        yield from self._served()
        cache = self.index.cache.counts
        vectors = CounterMetricFamily(
            "isospace_query_cache_lookups",
            "Query vectors asked of the cache, by whether it had them.",
            labels=["result"],
        )
        vectors.add_metric(["hit"], cache.hits)
        vectors.add_metric(["miss"], cache.misses)
        yield vectors
        yield CounterMetricFamily(
            "isospace_semantic_cache_hits",
            "Queries that got the hits of a similar earlier query.",
            value=cache.semantic,
        )
        yield from self._shards()
        yield from self._query_log()
        yield from self._observed_recall()
        if self.log is not None:
            yield CounterMetricFamily(
                "isospace_access_log_dropped_lines",
                "Lines of the access log that were not written.",
                value=self.log.dropped,
            )

    def _served(self) -> Iterable[Metric]:
        build = GaugeMetricFamily("isospace_build_info", "Version of isospace; always 1.", labels=["version"])
        build.add_metric([__version__], 1)
        yield build
        snapshot = GaugeMetricFamily("isospace_snapshot", "Number of the snapshot that is served.", labels=["space_id"])
        snapshot.add_metric([self.index.space.space_id], self.index.manifest.sequence)
        yield snapshot
        for name, text, value in (
            (
                "bitwise",
                "1 if texts embedded here have the bits of the snapshot's vectors, 0 if only a tolerance holds.",
                self.index.promise.is_bitwise,
            ),
            (
                "refresh_failed",
                "1 while the alias names a snapshot that cannot be opened; the one before is served.",
                bool(self.index.problem),
            ),
            (
                "keys_failed",
                "1 while the key file cannot be read; the keys from before remain valid.",
                bool(self.keys.problem),
            ),
            ("keys", "API keys that are valid.", len(self.keys.known)),
        ):
            yield GaugeMetricFamily(f"isospace_{name}", text, value=float(value))

    def _shards(self) -> Iterable[Metric]:
        clients = self.index.shard_clients
        if clients is None:
            return
        up = GaugeMetricFamily("isospace_shard_up", "1 while a shard answers.", labels=["shard"])
        asked = CounterMetricFamily(
            "isospace_shard_requests",
            "Requests to a shard, by outcome: ok, refused (the request was at fault), or failed.",
            labels=["shard", "outcome"],
        )
        seconds = CounterMetricFamily(
            "isospace_shard_seconds", "Time that requests to a shard took, in seconds.", labels=["shard"]
        )
        for client in clients.each:
            up.add_metric([client.name], float(not client.problem))
            for outcome in ("ok", "refused", "failed"):
                asked.add_metric([client.name, outcome], client.counts[outcome])
            seconds.add_metric([client.name], client.seconds)
        yield up
        yield asked
        yield seconds

    def _query_log(self) -> Iterable[Metric]:
        if self.watcher is None:
            return
        counts = self.watcher.outcomes()
        queries = CounterMetricFamily(
            "isospace_query_log_queries",
            "Answered queries, by what became of them in the query log: logged, not sampled, dropped because the queue "
            "was full, failed, or lost when the log was written.",
            labels=["outcome"],
        )
        for outcome in ("logged", "skipped", "dropped", "failed", "lost"):
            queries.add_metric([outcome], counts[outcome])
        yield queries
        yield CounterMetricFamily(
            "isospace_candidate_failures",
            "Queries that the candidate snapshot could not answer.",
            value=counts["candidate_failed"],
        )
        yield GaugeMetricFamily(
            "isospace_query_log_waiting", "Queries that are not yet written to the query log.", value=counts["waiting"]
        )

    def _observed_recall(self) -> Iterable[Metric]:
        if self.recall is None:
            return
        compared = CounterMetricFamily(
            "isospace_recall_queries",
            "Approximately answered queries that were to be searched exactly too, by outcome.",
            labels=["outcome"],
        )
        for outcome in ("compared", "dropped", "failed"):
            compared.add_metric([outcome], self.recall.counts[outcome])
        yield compared
        observed = GaugeMetricFamily(
            "isospace_recall",
            "Share of the exact hits that approximate searches of this snapshot found, by the recall they declared.",
            labels=["declared"],
        )
        evidence = GaugeMetricFamily(
            "isospace_recall_evidence",
            "Evidence that the recall is below the declared one; from 20 on it is, with an error probability of 5 % "
            "however long one watches.",
            labels=["declared"],
        )
        for declared, one in sorted(self.recall.evidence.copy().items()):
            observed.add_metric([f"{declared:g}"], one.mean)
            evidence.add_metric([f"{declared:g}"], one.wealth)
        yield observed
        yield evidence
