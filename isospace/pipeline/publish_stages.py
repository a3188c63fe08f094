"""The last stages of a run: commit the snapshot, build its search files, judge it, and move the alias."""

from __future__ import annotations

from isospace.collection.alias import aliases, held_message
from isospace.collection.disk_usage import size_text
from isospace.collection.tombstones import require_no_newer_tombstone
from isospace.errors import IntegrityError
from isospace.evaluation.baseline_sample import read_reference
from isospace.evaluation.gate.run_gate import gate_snapshot
from isospace.evaluation.gate.verdict_markdown import verdict_markdown
from isospace.evaluation.gate.verdicts import REJECTED, Verdict
from isospace.evaluation.reports.artifacts import artifact_key
from isospace.pipeline import openings
from isospace.pipeline.chunk import ChunkPart
from isospace.pipeline.commit import Commit, commit_snapshot, promote_new, why_unmoved
from isospace.pipeline.counted import counted
from isospace.pipeline.executor import ON_STORE_FAILURE, Reporter, Stage
from isospace.pipeline.learn_recall import prepare_recall
from isospace.pipeline.resources import driver_engine, run_encoder, run_space
from isospace.pipeline.run import Run
from isospace.pipeline.scan.diff import Scan
from isospace.pipeline.segment import Segment
from isospace.pipeline.sparse.segment import SparseParts
from isospace.search.lexical_files import build_lexical
from isospace.search.remote.publish import publish_snapshot
from isospace.search.sql_database import build_serving
from isospace.storage.hashing import shortened_id


def commit(
    reporter: Reporter,
    run: Run,
    scan: Scan,
    space_id: str,
    parts: list[ChunkPart],
    segments: list[Segment],
    sparse: SparseParts | None = None,
) -> Commit:
    """Commit the snapshot, which makes it visible."""
    committed = commit_snapshot(run, scan, space_id, parts, segments, sparse)
    manifest = committed.manifest
    state = "committed" if committed.is_new else "nothing has changed: still at"
    reporter.info(
        f"{state} snapshot {manifest.sequence} ({shortened_id(manifest.snapshot_id)}): "
        f"{counted(manifest.documents, 'document')}, {counted(manifest.chunks, 'chunk')}"
    )
    for warning in (*([committed.warning] if committed.warning else []), *committed.metadata):
        reporter.warning(warning)
    return committed


def prepare_search(reporter: Reporter, run: Run, committed: Commit) -> None:
    """Build the serving database and the BM25 index, draw the baseline sample of audits, and learn recall."""
    manifest, runtime = committed.manifest, run.config.runtime
    space = run_space(run, manifest.space_id)
    if problem := draw_baseline(run, committed, space.record.input_dimension):
        reporter.warning(f"audits will have no baseline to compare with: {problem}")
    build_serving(
        run.store,
        manifest,
        space,
        run.scratch,
        table_rows=runtime.serving_table_rows,
        memory_mb=2 * runtime.memory_mb,
    )
    if runtime.lexical_chunks is not None:
        reporter.warning(
            f"runtime.lexical_chunks={runtime.lexical_chunks} has no effect any more: a BM25 index has no limit. Leave "
            "it out; recipe.lexical.kind=none builds no index"
        )
    if words := build_lexical(run.store, manifest, run.config.recipe.lexical):
        reporter.info(
            f"built the search files of snapshot {manifest.sequence}, with a BM25 index: words of "
            f"{counted(words.built, 'part')} built, {words.existing:,} existed"
        )
    else:
        reporter.info(f"the search files of snapshot {manifest.sequence} are complete")
    if learned := prepare_recall(run, manifest, space):
        reporter.info(learned)
    if run.config.recipe.search.remote and (done := publish_snapshot(run.store, manifest, space, run.scratch)):
        reporter.info(
            f"published {counted(done.groups, 'group')} for searches without a local copy, {done.written} of them new "
            f"({size_text(done.size)})"
        )
    # If documents were forgotten meanwhile, these files may hold them, and the snapshot may have been replaced.
    require_no_newer_tombstone(run.store, run.collection, run.tombstones)


def ungated(run: Run, committed: Commit) -> str | None:
    """Return why the snapshot is not judged: the recipe has no rules, or the alias already names it; else None."""
    alias = run.config.runtime.promote_to
    current = aliases(run.store, run.collection).get(alias or "")
    if not run.config.recipe.gate.rules:
        return "no quality gate: recipe.gate has no rules"
    if current is not None and current.snapshot == committed.manifest.sequence:
        return f"no quality gate: {alias} already names snapshot {current.snapshot}"
    return None


def gate(reporter: Reporter, run: Run, committed: Commit) -> Verdict:
    """Judge the snapshot by the recipe's rules."""
    spec, alias = run.config.recipe.gate, run.config.runtime.promote_to
    verdict = gate_snapshot(
        run.store,
        committed.manifest,
        spec,
        against=alias or "production",
        run_id=run.run_id,
        engine=driver_engine(run.config),
        encoder=run_encoder(run),
    )
    _show_verdict(reporter, run, verdict)
    return verdict


def promote(reporter: Reporter, run: Run, committed: Commit, verdict: Verdict | None) -> str | None:
    """Move the alias, unless it is held or the gate rejected the snapshot; return the alias if it moved."""
    alias = run.config.runtime.promote_to
    held = held_message(run.store, run.collection, alias)
    if held:
        reporter.warning(held)
    elif verdict is not None and not verdict.passed:
        reporter.info(f"{alias} does not move, since the quality gate rejected snapshot {verdict.snapshot}")
    elif why := why_unmoved(run, committed):
        reporter.warning(why)
    moved = (verdict is None or verdict.passed) and promote_new(run, committed)
    numbers = {name: entry.snapshot for name, entry in aliases(run.store, run.collection).items()}
    listed = ", ".join(f"{name} names snapshot {number}" for name, number in numbers.items())
    reporter.info(f"{alias} moved; aliases: {listed}" if moved else f"no alias moved; aliases: {listed or 'none'}")
    return alias if moved else None


def draw_baseline(run: Run, committed: Commit, dimension: int) -> str | None:
    """Draw the baseline sample of audits unless it exists; return the problem if it cannot be drawn."""
    try:
        read_reference(run.store, committed.manifest, dimension)
    except IntegrityError as error:
        return str(error)
    return None


def _show_verdict(reporter: Reporter, run: Run, verdict: Verdict) -> None:
    if verdict.passed:
        reporter.info(verdict.describe())
    else:
        page = run.address(str(verdict.report))
        reporter.error(f"{verdict.describe()}. {_stays(run)} Look at {page}.")
        payload = {
            "name": "gate",
            "message": f"{verdict.describe()}.",
            "report": page,
            "remedy": "Production did not move. Look at the report.",
        }
        reporter.emit(REJECTED, verdict.collection, verdict.snapshot, payload)
    plots = ("Query by query", "Retrieval")
    markdown = verdict_markdown(verdict)
    reporter.show_page(
        run.store,
        str(verdict.report),
        key=artifact_key(run.collection, "gate"),
        markdown=markdown,
        plots=plots,
        report_url=run.config.runtime.report_url,
    )


def _stays(run: Run) -> str:
    """Return which snapshot the alias keeps naming."""
    alias = run.config.runtime.promote_to
    current = aliases(run.store, run.collection).get(alias or "")
    return "No alias moves." if current is None else f"{alias} stays at snapshot {current.snapshot}."


def _rejection(verdict: Verdict) -> str | None:
    """Return why a snapshot was rejected; None if it passed."""
    return None if verdict.passed else f"{verdict.describe()}. Look at {verdict.report}."


COMMIT = Stage("commit snapshot", commit, ON_STORE_FAILURE, opening=openings.commit)
PREPARE_SEARCH = Stage("build search", prepare_search, ON_STORE_FAILURE, opening=openings.prepare_search)
GATE = Stage("quality gate", gate, opening=openings.gate, objection=_rejection)
# Not retried: an attempt that moved the alias before it failed would look like one that moved nothing.
PROMOTE = Stage("move alias", promote, opening=openings.promote)
