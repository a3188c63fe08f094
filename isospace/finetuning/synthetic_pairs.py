"""Generate questions about chunks with an OpenAI-compatible API or a local seq2seq model."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from isospace.errors import ConfigError, EncoderError
from isospace.finetuning.config import GeneratedPairs
from isospace.finetuning.examples import Example
from isospace.finetuning.pairs import passages_of
from isospace.ingest.pseudo_queries import Passage
from isospace.search.options import SearchOptions
from isospace.search.view import View
from isospace.storage.cache import cache_folder

Generator = Callable[[str], str]
"""Takes a prompt and returns the model's answer."""

_LOCAL = "local:"
_NUMBERING = re.compile(r"^\s*(?:[-*•]|\(?\d{1,2}[.):])\s*")
_REFUSAL = re.compile(
    r"\b(?:i(?:'m| am) sorry|i can(?:no|')t|i am unable|as an ai|cannot (?:help|assist|comply)|no questions?\b)",
    re.IGNORECASE,
)
_MIN_WORDS, _MAX_WORDS = 3, 40
_ATTEMPTS = 5
_TIMEOUT_SECONDS = 120.0
_BLOCK = 64


def open_generator(spec: GeneratedPairs) -> Generator:
    """Return a function that sends prompts to the model.

    Raises
    ------
    ConfigError
        If the variable of the API key is not set, or a local model cannot be loaded.
    """
    if spec.endpoint.startswith(_LOCAL):
        return _local(Path(spec.endpoint.removeprefix(_LOCAL)))
    key = os.environ.get(spec.key_variable) if spec.key_variable else None
    if spec.key_variable and not key:
        raise ConfigError(
            f"finetune.pairs.key_variable: ${spec.key_variable} is not set. Export the API key in this variable."
        )
    return _remote(spec, key)


def generate_pairs(
    view: View, spec: GeneratedPairs, generator: Generator, *, seed: int
) -> tuple[list[Example], dict[str, int]]:
    """Generate questions about chunks, one chunk per document, and keep those that find their document.

    Parameters
    ----------
    view
        The collection, opened with its encoder.
    spec
        Settings of the generation.
    generator
        Answers prompts; its answers are cached on this machine by endpoint, model, and prompt.
    seed
        Seed for the choice of chunks.

    Returns
    -------
    tuple
        The pairs, and the numbers of lines left out, by reason.
    """
    passages = passages_of(view)
    selected = _one_per_document(passages, spec.most, seed)
    dropped = {"refusals": 0, "unusable": 0, "repeated": 0, "inconsistent": 0}
    seen: set[str] = set()
    generated: list[tuple[str, Passage]] = []
    for passage in selected:
        prompt = spec.template.format(count=spec.count, text=passage.prefix + passage.text)
        for line in _cached_answer(spec, prompt, generator).splitlines()[: 4 * spec.count]:
            question = usable_question(line, dropped)
            if question is None:
                continue
            if question.casefold() in seen:
                dropped["repeated"] += 1
                continue
            seen.add(question.casefold())
            generated.append((question, passage))
    consistent = _consistent(view, generated, spec.found_within)
    dropped["inconsistent"] = len(generated) - sum(consistent)
    pairs = [
        Example(question, passage.prefix + passage.text, passage.doc_id, "generated")
        for (question, passage), keep in zip(generated, consistent, strict=True)
        if keep
    ]
    return pairs, dropped


def usable_question(line: str, dropped: dict[str, int]) -> str | None:
    """Return the question in a line, without its number; None for refusals and unusable lines."""
    text = " ".join(_NUMBERING.sub("", line).strip().strip('"').split())
    if not text:
        return None
    if _REFUSAL.search(text):
        dropped["refusals"] += 1
        return None
    if not _MIN_WORDS <= max(len(text.split()), len(text) // 8) <= _MAX_WORDS or text.endswith(":"):
        dropped["unusable"] += 1
        return None
    return text


def _one_per_document(passages: Sequence[Passage], most: int, seed: int) -> list[Passage]:
    chance = random.Random(seed)
    order = chance.sample(range(len(passages)), len(passages))
    first: dict[str, Passage] = {}
    for row in order:
        first.setdefault(passages[row].doc_id, passages[row])
    return list(first.values())[:most]


def _cached_answer(spec: GeneratedPairs, prompt: str, generator: Generator) -> str:
    """Return the cached or new answer to a prompt; interrupted runs do not pay for an answer twice."""
    name = hashlib.sha256(json.dumps([spec.endpoint, spec.model, prompt]).encode()).hexdigest()
    path = cache_folder() / "finetune" / "generated" / f"{name}.json"
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["answer"])
    except (OSError, ValueError, KeyError):
        pass
    answer = generator(prompt)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps({"answer": answer}), encoding="utf-8")
    temporary.replace(path)
    return answer


def _consistent(view: View, questions: Sequence[tuple[str, Passage]], within: int) -> list[bool]:
    """Tell for each question whether the base model finds its document (Dai et al., arXiv:2209.11755)."""
    owners, names = view.copy.owners, np.array(view.copy.documents["doc_id"].to_pylist())
    options = SearchOptions(k=min(within, len(view.copy)))
    consistent: list[bool] = []
    for start in range(0, len(questions), _BLOCK):
        block = questions[start : start + _BLOCK]
        texts = [question for question, _ in block]
        rankings = view.rank(texts, view.space.embed(texts, "query"), options)
        for (_, passage), ranking in zip(block, rankings, strict=True):
            consistent.append(any(names[owners[row]] == passage.doc_id for row, _ in ranking.rows))
    return consistent


def _remote(spec: GeneratedPairs, key: str | None) -> Generator:
    import httpx

    client = httpx.Client(timeout=_TIMEOUT_SECONDS, headers={"Authorization": f"Bearer {key}"} if key else {})
    url = f"{spec.endpoint.rstrip('/')}/chat/completions"

    def ask(prompt: str) -> str:
        body = {"model": spec.model, "temperature": 0.0, "messages": [{"role": "user", "content": prompt}]}
        problem = ""
        for attempt in range(_ATTEMPTS):
            try:
                response = client.post(url, json=body)
            except httpx.HTTPError as error:
                problem = type(error).__name__
            else:
                if response.status_code == 200:
                    return _content(url, response)
                problem = f"status {response.status_code}"
                if response.status_code < 500 and response.status_code != 429:
                    break
            time.sleep(0.2 * 3**attempt)
        raise EncoderError(
            f"{url}: gave no answer ({problem}). Check finetune.pairs.endpoint, model, and key_variable."
        )

    return ask


def _content(url: str, response: Any) -> str:
    try:
        return str(response.json()["choices"][0]["message"]["content"] or "")
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise EncoderError(
            f"{url}: the response is not a chat completion ({response.text[:120]!r}). Check finetune.pairs.endpoint."
        ) from error


def _local(folder: Path) -> Generator:
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        model = AutoModelForSeq2SeqLM.from_pretrained(str(folder), local_files_only=True, use_safetensors=True).eval()
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"finetune.pairs.endpoint = 'local:{folder}': no seq2seq model in safetensors ({reason}). Use the folder "
            "of such a model."
        ) from error

    def ask(prompt: str) -> str:
        inputs = tokenizer(prompt, return_tensors="pt", truncation=True, max_length=512)
        with torch.inference_mode():
            answer = model.generate(**inputs, max_new_tokens=160, num_beams=1, do_sample=False)
        return str(tokenizer.decode(answer[0], skip_special_tokens=True))

    return ask
