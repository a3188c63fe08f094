"""Train a small cross-encoder from the first layers of an encoder and pairs of query and text.

With a few thousand pairs of full texts alone, the loss stays at chance level for a long time. Training therefore has
stages, from short, easy pairs to the intended ones; each continues from the weights of the one before.
"""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isospace.errors import ConfigError, EncoderError

_LOG = logging.getLogger(__name__)
_WEIGHT_DECAY = 0.01
_MAX_GRADIENT_NORM = 1.0
# Share of all steps. The head is new, and its first gradients would destroy what the layers have learned.
_WARM_UP = 0.1
_LOGGED_STEPS = 50


@dataclass(frozen=True, slots=True)
class Pair:
    """A query, a text, and whether the text answers it."""

    query: str
    text: str
    relevant: bool


@dataclass(frozen=True, slots=True)
class Stage:
    """Pairs that are used once each, in a random order.

    Attributes
    ----------
    pairs
        Relevant and irrelevant pairs.
    max_tokens
        Query and text together are truncated to this number of tokens.
    """

    pairs: Sequence[Pair]
    max_tokens: int


def train_reranker(
    start: Path | str,
    stages: Sequence[Stage],
    target: Path | str,
    *,
    layers: int | None = None,
    max_tokens: int = 256,
    batch: int = 16,
    rate: float = 2e-4,
    seed: int = 0,
) -> None:
    """Train a cross-encoder with one label on a CPU, and save it for `open_reranker`.

    On one machine, with the same libraries and number of threads, the same arguments give the same files.

    Parameters
    ----------
    start
        Local folder of a sentence-transformers or transformers model (BERT or similar) with the initial weights.
    stages
        Stages of the training, in order.
    target
        Folder to save the model to, with weights in safetensors.
    layers
        Number of first layers to keep; all if None.
    max_tokens
        Limit of the trained model for query and text together.
    batch
        Pairs per step.
    rate
        Highest learning rate; it rises over the first tenth of the steps, then falls to zero.
    seed
        Seed of the head's weights and of the order of pairs.

    Raises
    ------
    ConfigError
        If a stage lacks relevant or irrelevant pairs, or a number is out of range.
    EncoderError
        If the initial model cannot be loaded.
    """
    import torch

    _require_usable(stages, batch, rate)
    # Do not change the random state of the caller.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _untrained(Path(start), layers, max_tokens)
        _fit(model, stages, batch, rate, random.Random(seed))
    model.max_seq_length = max_tokens
    model.save_pretrained(str(target), create_model_card=False)


def _require_usable(stages: Sequence[Stage], batch: int, rate: float) -> None:
    if not stages:
        raise ConfigError("stages is empty; expected one or more stages with pairs. Add a stage.")
    for number, stage in enumerate(stages):
        relevant = sum(pair.relevant for pair in stage.pairs)
        if not 0 < relevant < len(stage.pairs):
            raise ConfigError(
                f"stage {number}: {relevant} of its {len(stage.pairs)} pairs are relevant; expected both relevant and "
                "irrelevant pairs. Add the missing kind."
            )
    if batch < 1 or not rate > 0:
        raise ConfigError(f"batch = {batch}, rate = {rate}; expected a batch of 1 or more and a rate above 0.")


def _untrained(start: Path, layers: int | None, max_tokens: int) -> Any:
    """Return a `CrossEncoder` with the first layers of a model and a randomly initialized head."""
    from sentence_transformers import CrossEncoder
    from transformers import AutoConfig

    try:
        own = int(AutoConfig.from_pretrained(str(start), local_files_only=True).num_hidden_layers)
        if layers is not None and not 1 <= layers <= own:
            raise ConfigError(f"layers = {layers}; expected 1 to {own}, the number of layers of {start.name}.")
        with _quiet():
            return CrossEncoder(
                str(start),
                num_labels=1,
                max_length=max_tokens,
                device="cpu",
                local_files_only=True,
                config_kwargs={"num_hidden_layers": layers or own},
            )
    except (OSError, ValueError, RuntimeError, AttributeError) as error:
        reason = str(error).split("\n", 1)[0]
        raise EncoderError(
            f"model {start}: no cross-encoder can start from it ({reason}). Use the folder of a BERT model."
        ) from error


def _fit(model: Any, stages: Sequence[Stage], batch: int, rate: float, chance: random.Random) -> None:
    import torch

    # Embeddings are frozen: a few thousand pairs would move the words they contain away from all other words.
    for parameter in model.model.get_input_embeddings().parameters():
        parameter.requires_grad_(False)
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    steps = sum(-(-len(stage.pairs) // batch) for stage in stages)
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _share_of_rate(step, steps))
    losses = []
    for loss in _losses(model, stages, batch, chance):
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, _MAX_GRADIENT_NORM)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if len(losses) % _LOGGED_STEPS == 0:
            _LOG.info("step %d of %d: loss %.3f", len(losses), steps, sum(losses[-_LOGGED_STEPS:]) / _LOGGED_STEPS)


def _losses(model: Any, stages: Sequence[Stage], batch: int, chance: random.Random) -> Iterator[Any]:
    """Yield the loss of each batch, before the backward pass."""
    import torch
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss

    loss = BinaryCrossEntropyLoss(model)
    # No dropout: no pair is used twice, and dropout would only slow the training down.
    model.eval()
    for stage in stages:
        model.max_seq_length = stage.max_tokens
        pairs = chance.sample(list(stage.pairs), len(stage.pairs))
        for start in range(0, len(pairs), batch):
            in_batch = pairs[start : start + batch]
            labels = torch.tensor([float(pair.relevant) for pair in in_batch])
            yield loss([[pair.query for pair in in_batch], [pair.text for pair in in_batch]], labels)


def _share_of_rate(step: int, steps: int) -> float:
    rising = max(1, round(_WARM_UP * steps))
    return (step + 1) / rising if step < rising else (steps - step) / max(1, steps - rising)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the library's warnings about the new head and the missing layers: both are intended."""
    from transformers.utils import logging as transformers_logging

    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
