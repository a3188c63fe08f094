"""Chunk, plan, and encode: one after the other for a small corpus, at the same time for a large one."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from isospace.evaluation.reports.page import duration
from isospace.pipeline import stages
from isospace.pipeline.batch_stage import ENCODE_BATCHES, in_batches, warn_of_batches
from isospace.pipeline.chunk import ChunkPart
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.counted import money_text
from isospace.pipeline.encode import waves
from isospace.pipeline.encode.shards import EncodedShard, EncodePlan
from isospace.pipeline.executor import NOT_YET, Executor
from isospace.pipeline.parallel.background import Background
from isospace.pipeline.plan_report import PlanReport, token_price_of
from isospace.pipeline.resources import run_parts
from isospace.pipeline.run import Run
from isospace.pipeline.scan.diff import Scan


@dataclass(frozen=True, slots=True)
class Encoding:
    """What was chunked and encoded.

    Attributes
    ----------
    is_complete
        Whether the budget sufficed for all shards.
    """

    parts: list[ChunkPart]
    report: PlanReport
    encoded: list[EncodedShard]
    is_complete: bool = True


@dataclass(frozen=True, slots=True)
class _Wave:
    """The plan of a wave, and the share of the new documents that it and all waves before it have."""

    plan: EncodePlan
    share: float


def chunk_and_encode(executor: Executor, run: Run, scan: Scan) -> Encoding:
    """Chunk the new parts of a run, plan, and encode, within the budget.

    Encoding begins with the first wave of parts, while others are chunked, unless something has to be known of all
    parts before.
    """
    sizes = waves.waves(scan.parts, first=waves.FIRST_BYTES) if _may_overlap(run.config) else []
    if len(sizes) > 1:
        return _overlapping(executor, run, scan, sizes)
    parts = chunk(executor, run, scan)
    plan, report = executor.run(stages.PLAN, run, scan, parts)
    encoded = encode(executor, run, plan)
    return Encoding(parts, report, encoded, is_complete=len(encoded) == len(plan.shards))


def chunk(executor: Executor, run: Run, scan: Scan) -> list[ChunkPart]:
    """Chunk the new parts of a run."""
    if not scan.parts:
        return []
    return executor.map(stages.CHUNK, [(run, documents) for documents in scan.parts], limit=run_parts(run).size)


def encode(executor: Executor, run: Run, plan: EncodePlan) -> list[EncodedShard]:
    """Encode as many shards of a plan as the budget allows; those in progress when it is spent are finished."""
    if plan.shards and in_batches(run.config):
        return executor.run(ENCODE_BATCHES, run, plan)
    return _encode_waves(executor, run, [_Wave(plan, 1.0)])


def _may_overlap(config: PipelineConfig) -> bool:
    """Return whether texts may be encoded before all are known.

    A budget is for whole parts, in the order of a plan. Whoever pays by the token wants to know the price before, and
    whoever refuses mixed bits, of what the vectors are that are not computed again.
    """
    runtime = config.runtime
    return not (runtime.budget.is_bounded or config.recipe.encoder.kind == "served" or runtime.mixed_bits == "refuse")


def _overlapping(executor: Executor, run: Run, scan: Scan, sizes: list[int]) -> Encoding:
    parts: list[ChunkPart] = []
    reports: list[PlanReport] = []

    def planned(is_stopped: Callable[[], bool]) -> Iterator[_Wave]:
        plans: list[EncodePlan] = []
        size, total, is_whole = 0, sum(documents.size for documents in scan.parts), False
        for members in _chunked_waves(executor, run, scan, sizes, is_stopped):
            parts.extend(members)
            if is_whole:
                continue
            earlier = sorted({shard.plan for plan in plans for shard in plan.shards})
            plan = executor.run(stages.PLAN_WAVE, run, scan, members, earlier)
            if plan is None:
                is_whole = True
                continue
            plans.append(plan)
            size += sum(part.documents.size for part in members)
            yield _Wave(plan, size / total)
        if not is_stopped():
            plan, report = executor.run(stages.PLAN, run, scan, parts, plans)
            reports.append(report)
            if is_whole:
                yield _Wave(plan, 1.0)

    with Background(planned) as found:
        encoded = _encode_waves(executor, run, found)
    return Encoding(parts, reports[0], encoded)


def _chunked_waves(
    executor: Executor, run: Run, scan: Scan, sizes: list[int], is_stopped: Callable[[], bool]
) -> Iterator[list[ChunkPart]]:
    """Yield the parts of each wave, in their order, as soon as all of them are chunked."""
    numbers = {documents.path: number for number, documents in enumerate(scan.parts)}
    chunked: dict[int, ChunkPart] = {}
    first, left = 0, list(sizes)
    # More than are worked on at the same time: others are chunked while a wave is planned.
    limit = 2 * run_parts(run).size
    coming = executor.stream(stages.CHUNK, ((run, documents) for documents in scan.parts), limit=limit)
    for done, part in enumerate(coming, start=1):
        if is_stopped():
            return
        chunked[numbers[part.documents.path]] = part
        executor.reporter.progress(stages.CHUNK.name, done, len(numbers), f"{done:,} of {len(numbers):,}")
        while left and all(number in chunked for number in range(first, first + left[0])):
            members = [chunked.pop(number) for number in range(first, first + left[0])]
            first += left.pop(0)
            yield members


def _encode_waves(executor: Executor, run: Run, found: Iterable[_Wave | None]) -> list[EncodedShard]:
    """Encode waves as they are found; None among them says that the next one is not known yet."""
    coming = (wave for wave in found if wave is None or wave.plan.shards)
    begun = next((wave for wave in coming if wave is not None), None)
    if begun is None:
        return []
    warn_of_batches(executor.reporter, run)
    runtime = run.config.runtime
    workers, classes = executor.run(stages.START_WORKERS, run, begun.plan.stored)
    spent = _Progress(runtime.price_per_device_hour, workers, token_price=token_price_of(run.config)).planned(begun)

    def affordable() -> Iterator[tuple[Any, ...]]:
        nonlocal spent
        numbered = 0
        for wave in itertools.chain([begun], coming):
            if wave is None:
                yield NOT_YET
                continue
            if wave is not begun:
                spent = spent.planned(wave)
            for shard in wave.plan.shards:
                if runtime.budget.is_spent(spent.tokens, spent.seconds, spent.money_with(shard.tokens)):
                    return
                spent = replace(spent, begun=spent.begun + shard.tokens)
                yield run, replace(shard, number=numbered + shard.number, classes=classes)
            numbered += wave.plan.shards[-1].number + 1

    done = []
    stage = stages.ENCODE.retried(runtime.retries)
    executor.reporter.progress(stage.name, *spent.progress())
    # One more shard than there are workers: it is read while the others are encoded.
    for encoded in executor.stream(stage, affordable(), limit=workers + 1):
        done.append(encoded)
        spent = spent.after(encoded)
        executor.reporter.progress(stage.name, *spent.progress())
    return done


@dataclass(frozen=True, slots=True)
class _Progress:
    """What has been encoded so far, of what was planned so far.

    Attributes
    ----------
    share
        The share of the new documents whose texts are planned.
    """

    price: float | None
    workers: int
    started: float = field(default_factory=time.monotonic)
    to_encode: int = 0
    all_tokens: int = 0
    share: float = 0.0
    texts: int = 0
    tokens: int = 0
    billed: int = 0
    begun: int = 0
    token_price: float | None = None

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def planned(self, wave: _Wave) -> _Progress:
        return replace(
            self,
            to_encode=self.to_encode + wave.plan.to_encode,
            all_tokens=self.all_tokens + wave.plan.tokens,
            share=wave.share,
        )

    def after(self, encoded: EncodedShard) -> _Progress:
        return replace(
            self,
            texts=self.texts + encoded.chunks,
            tokens=self.tokens + encoded.tokens,
            billed=self.billed + encoded.billed_tokens,
        )

    def money_with(self, tokens: int) -> float:
        """Return the money that is spent once the shards in progress, and one more, are encoded."""
        if self.token_price is not None:
            # What was billed for a counted token so far holds for the rest.
            rate = self.billed / self.tokens if self.tokens else 1.0
            return self.token_price * (self.billed + rate * (self.begun - self.tokens + tokens)) / 1e6
        return (self.price or 0.0) * self.seconds / 3600.0 * self.workers

    def progress(self) -> tuple[float, float, str]:
        """Return the tokens that are encoded, those that there are, and the progress in words."""
        # The documents that are not planned yet count as if they were like the others.
        total, texts = self.all_tokens / self.share, self.to_encode / self.share
        about = "" if self.share == 1.0 else "about "
        rate = self.tokens / max(self.seconds, 1e-9)
        words = [f"{self.texts:,} of {about}{texts:,.0f} texts", f"{rate:,.0f} tokens/s"]
        if rate:
            words.append(f"{about}{duration((total - self.tokens) / rate)} left")
        if self.token_price is not None:
            words.append(f"cost so far {money_text(self.token_price * self.billed / 1e6)}")
        elif self.price is not None:
            cost = self.price * self.seconds / 3600.0 * self.workers
            words.append(f"cost so far {cost:,.2f} at {self.price:g} per device hour")
        return self.tokens, total, ", ".join(words)
