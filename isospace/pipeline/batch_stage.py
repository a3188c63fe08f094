"""The stage that encodes through a provider's Batch API, in place of the encoding shards."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.counted import counted
from isospace.pipeline.encode.batches.records import is_record
from isospace.pipeline.encode.mixed_bits import judge_mixture
from isospace.pipeline.encode.shards import EncodedShard, EncodePlan, encoder_origin
from isospace.pipeline.executor import ON_STORE_FAILURE, Reporter, Stage
from isospace.pipeline.resources import run_document_encoder
from isospace.pipeline.run import Run

if TYPE_CHECKING:
    from isospace.encoding.served.encoder import ServedEncoder


def in_batches(config: PipelineConfig) -> bool:
    """Return whether a config sends documents as batches."""
    return config.runtime.endpoint is not None and config.runtime.endpoint.batches is not None


def encode_batches(reporter: Reporter, run: Run, plan: EncodePlan) -> list[EncodedShard]:
    """Submit the texts without raw vectors as batches, wait for them, and write their vectors."""
    # httpx is in an extra, and most runs have no use for it.
    from isospace.pipeline.encode.batches.wait import encode_in_batches

    encoder = cast("ServedEncoder", run_document_encoder(run))
    if warning := judge_mixture(run.config.runtime.mixed_bits, plan.stored, (encoder_origin(encoder),)):
        reporter.warning(warning)
    done = encode_in_batches(reporter, run, plan.shards, encoder)
    if done:
        texts, billed = sum(shard.chunks for shard in done), sum(shard.billed_tokens for shard in done)
        reporter.info(
            f"encoded {counted(texts, 'text')} in batches, {counted(billed, 'token')} billed, in "
            f"{done[0].seconds / 60:,.1f} min ({done[0].worker})"
        )
    return done


def warn_of_batches(reporter: Reporter, run: Run) -> None:
    """Warn if texts that are about to be sent one request at a time are under way in batches."""
    if run.config.recipe.encoder.kind != "served":
        return
    paths = [stat.path for stat in run.store.walk(run.paths.batches) if is_record(stat.path)]
    if paths:
        reporter.warning(
            f"{counted(len(paths), 'file')} under {run.paths.batches}: batches that were submitted and not fetched. "
            "Their texts are sent again now, and paid twice. Set runtime.endpoint.batch.enabled=true to wait for them"
        )


def _opening(run: Run, plan: EncodePlan) -> str:
    texts, tokens = counted(plan.to_encode, "text"), counted(plan.tokens, "token")
    return f"has {texts} with {tokens} encoded through the provider's Batch API, and waits for them"


# Without the tag of encoding shards: waiting takes no slot from runs that encode.
ENCODE_BATCHES = Stage("encode in batches", encode_batches, ON_STORE_FAILURE, opening=_opening)
