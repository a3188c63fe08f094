"""A run in the test's own process: the real pipeline with the local executor."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

from isospace.encoding.encoder import SentenceEncoder
from isospace.encoding.registry.register import prepare_encoder
from isospace.pipeline import embed
from isospace.pipeline.config import PipelineConfig, engine_of
from isospace.pipeline.local_executor import LocalExecutor
from isospace.pipeline.run_report import RunReport
from isospace.storage.hashing import fingerprint
from isospace.storage.store import Store, open_store

# Preparing an encoder loads and exports its model: once for all stores of a session. Files are taken by content only.
_POOL = Path(tempfile.mkdtemp(prefix="isospace-tests-"))
atexit.register(shutil.rmtree, _POOL, ignore_errors=True)


def prepared(store: Store, config: PipelineConfig) -> SentenceEncoder:
    """Prepare an encoder as a run does, from what another test has exported of the same model if there is any."""
    pool = _POOL / fingerprint([config.recipe.encoder.model_dump(mode="json"), engine_of(config.runtime).backend])
    if store.root is None:
        return prepare_encoder(store, config.recipe.encoder, engine_of(config.runtime))
    target = store.root / "encoders"
    if pool.is_dir() and not target.exists():
        shutil.copytree(pool, target)
    is_new = not target.exists()
    encoder = prepare_encoder(store, config.recipe.encoder, engine_of(config.runtime))
    if is_new and not pool.exists():
        shutil.copytree(target, pool)
    return encoder


def embed_inline(config: PipelineConfig) -> RunReport:
    """Embed a corpus in this process.

    The report has no page, which costs more than the run, and no lease is held: tests start a run inside another one.
    """
    prepared(open_store(config.runtime.store), config)
    quick = config.runtime.model_copy(update={"report_chunks": 0})
    with patch.object(embed, "run_lease", lambda *_, **__: nullcontext()):
        return embed.embed_corpus(config.model_copy(update={"runtime": quick}), LocalExecutor())
