"""The last stage of a run: report what it did and spent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from isospace.collection.alias import held_message
from isospace.collection.billing import add_billed
from isospace.collection.disk_usage import disk_usage
from isospace.collection.quarantine import QuarantinedInput, read_inputs
from isospace.encoding.throughput import record_rate
from isospace.errors import IsospaceError
from isospace.evaluation.gate.verdicts import Verdict
from isospace.evaluation.reports.artifacts import artifact_key, report_line
from isospace.evaluation.reports.page import CHUNK_LENGTHS, MAP, SIMILARITIES
from isospace.pipeline import openings
from isospace.pipeline.batch_stage import in_batches
from isospace.pipeline.checks import CheckResult
from isospace.pipeline.commit import Commit, why_unmoved
from isospace.pipeline.encode.shards import EncodedShard
from isospace.pipeline.executor import Reporter, Stage
from isospace.pipeline.plan_report import PlanReport, token_price_of
from isospace.pipeline.quarantine_report import quarantine_markdown
from isospace.pipeline.resources import run_pool, run_query_record, run_record
from isospace.pipeline.run import Run
from isospace.pipeline.run_report import RunReport, run_markdown, run_warnings, write_report
from isospace.pipeline.scan.diff import Scan
from isospace.pipeline.segment import Segment


def summarize(
    reporter: Reporter,
    run: Run,
    scan: Scan,
    plan: PlanReport,
    encoded: list[EncodedShard],
    left: int,
    checked: CheckResult | None,
    segments: list[Segment],
    committed: Commit,
    verdict: Verdict | None,
    promoted: str | None,
    stages: tuple[tuple[str, float], ...] = (),
) -> RunReport:
    """Write and show the report of a run; `stages` are the seconds of each stage so far."""
    manifest = committed.manifest
    held = held_message(run.store, run.collection, run.config.runtime.promote_to)
    is_rejected = verdict is not None and not verdict.passed
    # A hold and a rejection are told apart from it, and come before it.
    stays = "" if promoted or held or is_rejected else why_unmoved(run, committed)
    result = RunReport(
        run_id=run.run_id,
        collection=run.collection,
        snapshot=manifest.sequence,
        snapshot_id=manifest.snapshot_id,
        space_id=manifest.space_id,
        committed=committed.is_new,
        promoted=promoted,
        gate=verdict.describe() if verdict else None,
        rejected=is_rejected,
        documents=manifest.documents,
        chunks=manifest.chunks,
        **_spent(run, plan, encoded),
        left=left,
        clipped=sum(s.clipped for s in segments),
        saturated=sum(s.saturated for s in segments),
        quarantined=scan.quarantined,
        quarantine=scan.quarantine.path if scan.quarantine else None,
        warnings=(*plan.warnings(), *run_warnings(run, scan, checked, committed)),
        held=held,
        stays=stays,
        **_counts(scan),
        stages=stages,
    )
    quarantined = _read_quarantine(run, scan)
    _show_quarantine(reporter, run, quarantined)
    path = write_report(run, result, plan, checked, segments, committed)
    reporter.info(f"wrote {path}")
    page = _draw_page(reporter, run, result, checked, quarantined, verdict) if committed.is_new else None
    _show(reporter, run, result, page, path)
    return result


def report_unfinished(
    reporter: Reporter, run: Run, scan: Scan, plan: PlanReport, encoded: list[EncodedShard], left: int
) -> RunReport:
    """Report on a run that rebuilds every part and is not finished, so that nothing is committed."""
    base = run.base
    result = RunReport(
        run_id=run.run_id,
        collection=run.collection,
        snapshot=base.sequence if base else 0,
        snapshot_id=base.snapshot_id if base else "",
        space_id=base.space_id if base else "",
        committed=False,
        promoted=None,
        gate=None,
        documents=base.documents if base else 0,
        chunks=base.chunks if base else 0,
        **_spent(run, plan, encoded),
        left=left,
        clipped=0,
        saturated=0,
        quarantined=scan.quarantined,
        quarantine=scan.quarantine.path if scan.quarantine else None,
        warnings=(f"unfinished: {left:,} texts are left; run the same command again to continue",),
        **_counts(scan),
    )
    _show_quarantine(reporter, run, _read_quarantine(run, scan))
    key = artifact_key(run.collection, "run")
    reporter.show_markdown(key, run_markdown(result), f"{run.collection}: unfinished, {left:,} texts are left")
    reporter.info(f"nothing was committed: {left:,} texts are left for the next run")
    return result


def _show(reporter: Reporter, run: Run, result: RunReport, page: str | None, path: str) -> None:
    """Show the report: with plots of its page, or as text if it has none."""
    key, markdown = artifact_key(run.collection, "run"), run_markdown(result)
    if page is None:
        lines = f"{markdown}\n\n{report_line(run.address(path))}"
        reporter.show_markdown(key, lines, f"{run.collection}: snapshot {result.snapshot}")
        return
    reporter.show_page(
        run.store,
        page,
        key=key,
        markdown=markdown,
        plots=(CHUNK_LENGTHS, SIMILARITIES, MAP),
        report_url=run.config.runtime.report_url,
    )


def _draw_page(
    reporter: Reporter,
    run: Run,
    result: RunReport,
    checked: CheckResult | None,
    quarantined: Sequence[QuarantinedInput],
    verdict: Verdict | None,
) -> str | None:
    """Write the report as a page unless the snapshot is too large; return its path in the store."""
    if result.chunks > run.config.runtime.report_chunks:
        return None
    try:
        from isospace.evaluation.reports.page import write_page
        from isospace.pipeline.run_page import RunResult, run_page
        from isospace.search.open_index import open_index

        made = RunResult(
            report=result,
            recipe=run.config.recipe,
            encoder=run_record(run),
            query_encoder=run_query_record(run),
            checked=checked,
            quarantined=quarantined,
            disk=disk_usage(run.store, run.collection, encoder_ids=run.encoder_ids),
            gate_report=f"../../{verdict.report}" if verdict is not None and verdict.report else None,
        )
        # The page embeds no text: a run that only removed documents has loaded no model, and needs none here.
        with open_index(run.store, run.collection, str(result.snapshot), encode=False) as index:
            page = run_page(run.store, made, index.view)
        path = write_page(run.store, run.run_id, page, collection=run.collection, with_json=False)
        reporter.info(f"wrote {path}")
        return path
    except Exception as error:
        # The snapshot is committed: a page that cannot be written, for whatever reason, must not fail the run.
        reporter.warning(f"the page of the report could not be written: {error}")
        return None


def _counts(scan: Scan) -> dict[str, Any]:
    """Return the fields of a report that a scan has."""
    names = ("added", "changed", "unchanged", "removed", "stale", "forgotten", "notes")
    return {name: getattr(scan, name) for name in names}


def _read_quarantine(run: Run, scan: Scan) -> list[QuarantinedInput]:
    """Return the quarantined inputs of a scan; none if they cannot be read, which must not fail the run."""
    if scan.quarantine is None:
        return []
    try:
        return read_inputs(run.store, scan.quarantine)
    except IsospaceError:
        return []


def _show_quarantine(reporter: Reporter, run: Run, inputs: Sequence[QuarantinedInput]) -> None:
    if not inputs:
        return
    note = (
        f"The run went on, since they are within `runtime.max_quarantined_share` "
        f"({run.config.runtime.max_quarantined_share:.0%} of all documents). All of them: "
        f"`isospace quarantine {run.config.runtime.store} {run.collection}`"
    )
    markdown = quarantine_markdown(run.collection, inputs, note)
    description = f"{run.collection}: {len(inputs):,} inputs quarantined"
    reporter.show_markdown(artifact_key(run.collection, "quarantine"), markdown, description)


def _spent(run: Run, plan: PlanReport, encoded: list[EncodedShard]) -> dict[str, Any]:
    """Return what a run spent on encoding and what it reused, and record its encoding rate."""
    tokens, seconds = sum(e.tokens for e in encoded), sum(e.seconds for e in encoded)
    # A batch takes as long as the provider likes, which says nothing about the next one.
    if encoded and not in_batches(run.config):
        pool = run_pool(run)
        elapsed = seconds / pool.size
        if run_record(run).served is not None:
            # Shards wait for one provider at the same time, and no device works meanwhile.
            seconds = elapsed = seconds / min(pool.size, len(encoded))
        record_rate(run.store, run.encoder_id, pool.place, tokens, elapsed)
    price, token_price = run.config.runtime.price_per_device_hour, token_price_of(run.config)
    billed = sum(e.billed_tokens for e in encoded)
    money = token_price * billed / 1e6 if token_price is not None else None
    add_billed(run.store, run.collection, token_price, runs=1 if billed else 0)
    if money is None and price is not None:
        money = price * seconds / 3600.0
    return {
        "encoded": sum(e.chunks for e in encoded),
        "tokens": tokens,
        "seconds": seconds,
        "reused": plan.reused_texts,
        "money": money,
        "billed_tokens": billed,
        "price_key": plan.token_price_key if token_price is not None else "",
        "resent_texts": sum(e.resent_texts for e in encoded),
    }


SUMMARIZE = Stage("write report", summarize, opening=openings.summarize)
REPORT_UNFINISHED = Stage("write report", report_unfinished, opening=openings.summarize)
