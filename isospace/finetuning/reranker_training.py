"""Train a small cross-encoder: the first layers of an encoder, a new head, and pairs of query and text.

Full texts alone teach it nothing for long: with a few thousand pairs the loss stays where guessing puts it. Stages go
from short, easy pairs to those it is meant for, and each begins where the one before it ended.
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
_LONGEST_GRADIENT = 1.0
# Of all steps; the head is new, and its first gradients would undo what the layers know.
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
    """Pairs that are seen once each, in an order drawn by the seed.

    Attributes
    ----------
    pairs
        Relevant ones and others.
    max_tokens
        Both texts of a pair together are cut to so many tokens.
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

    The same arguments give the same files on one machine with the same libraries and number of threads.

    Parameters
    ----------
    start
        Local folder of a sentence-transformers or transformers model, BERT or alike, whose weights it starts from.
    stages
        What it learns from, in this order.
    target
        Folder it is saved to, with weights in safetensors.
    layers
        How many of the first layers are kept; all of them if empty.
    max_tokens
        Limit of the trained model for a query and a text together.
    batch
        Pairs a step.
    rate
        Highest learning rate; it rises over the first tenth of the steps, and falls to zero.
    seed
        Of the head's weights and of the order.

    Raises
    ------
    ConfigError
        If a stage lacks relevant pairs or others, or a number cannot be.
    EncoderError
        If the model to start from cannot be loaded.
    """
    import torch

    _require_usable(stages, batch, rate)
    # A fork: whoever calls this has random numbers of their own.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _untrained(Path(start), layers, max_tokens)
        _fit(model, stages, batch, rate, random.Random(seed))
    model.max_seq_length = max_tokens
    model.save_pretrained(str(target), create_model_card=False)


def _require_usable(stages: Sequence[Stage], batch: int, rate: float) -> None:
    if not stages:
        raise ConfigError("stages: there is none; expected one or more, each with pairs. Give pairs to learn from.")
    for number, stage in enumerate(stages):
        relevant = sum(pair.relevant for pair in stage.pairs)
        if not 0 < relevant < len(stage.pairs):
            raise ConfigError(
                f"stage {number}: {relevant} of its {len(stage.pairs)} pairs are relevant; expected some, and not all. "
                "Add texts of the other kind."
            )
    if batch < 1 or not rate > 0:
        raise ConfigError(f"batch = {batch}, rate = {rate}; expected a batch of 1 or more, and a positive rate.")


def _untrained(start: Path, layers: int | None, max_tokens: int) -> Any:
    """Return a `CrossEncoder` with the first layers of a model, and a head of random weights."""
    from sentence_transformers import CrossEncoder
    from transformers import AutoConfig

    try:
        own = int(AutoConfig.from_pretrained(str(start), local_files_only=True).num_hidden_layers)
        if layers is not None and not 1 <= layers <= own:
            raise ConfigError(f"layers = {layers}; expected 1 to {own}, which {start.name} has.")
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
            f"model {start}: no cross-encoder can start from it ({reason}). Give the folder of a BERT model."
        ) from error


def _fit(model: Any, stages: Sequence[Stage], batch: int, rate: float, chance: random.Random) -> None:
    import torch

    # Words that a few thousand pairs do not hold would stay where they were, and those they hold would move away from
    # them.
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
        torch.nn.utils.clip_grad_norm_(weights, _LONGEST_GRADIENT)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if len(losses) % _LOGGED_STEPS == 0:
            _LOG.info("step %d of %d: loss %.3f", len(losses), steps, sum(losses[-_LOGGED_STEPS:]) / _LOGGED_STEPS)


def _losses(model: Any, stages: Sequence[Stage], batch: int, chance: random.Random) -> Iterator[Any]:
    """Yield the loss of each batch, with its gradients still to be computed."""
    import torch
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss

    loss = BinaryCrossEntropyLoss(model)
    # No dropout: no pair is seen twice, and it only slows what is slow already.
    model.eval()
    for stage in stages:
        model.max_seq_length = stage.max_tokens
        pairs = chance.sample(list(stage.pairs), len(stage.pairs))
        for start in range(0, len(pairs), batch):
            some = pairs[start : start + batch]
            labels = torch.tensor([float(pair.relevant) for pair in some])
            yield loss([[pair.query for pair in some], [pair.text for pair in some]], labels)


def _share_of_rate(step: int, steps: int) -> float:
    rising = max(1, round(_WARM_UP * steps))
    return (step + 1) / rising if step < rising else (steps - step) / max(1, steps - rising)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library from reporting that the head is new and layers are left out: both are wanted."""
    from transformers.utils import logging as transformers_logging

    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
