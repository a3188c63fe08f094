"""Keep training pairs and evaluation data apart: by document, near-duplicates included."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from typing import Any

from isospace.errors import ConfigError, missing_package
from isospace.finetuning.examples import Example

_WORD = re.compile(r"\w+")
_PHRASE_WORDS = 3
_PERMUTATIONS = 128
# Share of common phrases (Jaccard): texts on the same subject stay below it, copies of a text exceed it.
NEAR_DUPLICATE = 0.7
_MIN_HELD_OUT = 20


@dataclass(frozen=True, slots=True)
class Leakage:
    """Numbers of pairs that were left out to keep evaluation data out of training, by reason.

    Attributes
    ----------
    evaluated_documents
        The positive is from a relevant document of the evaluation set.
    evaluated_duplicates
        The positive is a near-duplicate of such a document.
    evaluated_queries
        The anchor is a query of the evaluation set, or a near-duplicate of one.
    held_out_duplicates
        The positive is a near-duplicate of a held-out one, or the anchor is equal.
    repeated
        Anchor and positive are those of another pair.
    """

    evaluated_documents: int
    evaluated_duplicates: int
    evaluated_queries: int
    held_out_duplicates: int
    repeated: int

    def as_dict(self) -> dict[str, int]:
        """Return the numbers by reason."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Split:
    """Training pairs, held-out pairs for early stopping, and the numbers of pairs left out of both."""

    training: tuple[Example, ...]
    held_out: tuple[Example, ...]
    leakage: Leakage


def split_examples(
    examples: Sequence[Example],
    *,
    evaluated: Mapping[str, str],
    queries: Iterable[str],
    share: float,
    seed: int,
) -> Split:
    """Split pairs into training and held-out pairs, by document.

    Parameters
    ----------
    examples
        All pairs.
    evaluated
        Texts of the relevant documents of the evaluation set, by doc_id. Pairs from these documents are left out, and
        so are pairs that share 70 % of the three-word phrases with one (Jaccard, estimated with MinHash, Broder 1997).
    queries
        Texts of the queries of the evaluation set.
    share
        Share of the documents whose pairs are held out.
    seed
        Seed for choosing these documents.

    Raises
    ------
    ConfigError
        If too few pairs are held out for early stopping, or none is left for training.
    """
    unique = list({(e.anchor, e.positive): e for e in examples}.values())
    normal_queries = {_normalize(text) for text in queries}
    of_other_documents = [e for e in unique if e.doc_id not in evaluated]
    like_queries = near_duplicates([e.anchor for e in of_other_documents], normal_queries)
    without_queries = [
        e
        for n, e in enumerate(of_other_documents)
        if n not in like_queries and _normalize(e.anchor) not in normal_queries
    ]
    like_evaluated = near_duplicates([e.positive for e in without_queries], evaluated.values())
    usable = [e for n, e in enumerate(without_queries) if n not in like_evaluated]
    held_out = [e for e in usable if _random_number(e.doc_id, seed) < share]
    rest = [e for e in usable if _random_number(e.doc_id, seed) >= share]
    anchors = {_normalize(e.anchor) for e in held_out}
    like_held_out = near_duplicates([e.positive for e in rest], [e.positive for e in held_out])
    training = [e for n, e in enumerate(rest) if n not in like_held_out and _normalize(e.anchor) not in anchors]
    if len(held_out) < _MIN_HELD_OUT or not training:
        raise ConfigError(
            f"finetune.training.held_out_share = {share}: of {len(usable)} pairs {len(held_out)} are held out and "
            f"{len(training)} are left for training; expected at least {_MIN_HELD_OUT} held out, needed to detect "
            "overfitting, and at least one left. Provide more pairs, or change the share."
        )
    leakage = Leakage(
        evaluated_documents=len(unique) - len(of_other_documents),
        evaluated_queries=len(of_other_documents) - len(without_queries),
        evaluated_duplicates=len(like_evaluated),
        held_out_duplicates=len(rest) - len(training),
        repeated=len(examples) - len(unique),
    )
    return Split(tuple(training), tuple(held_out), leakage)


def near_duplicates(texts: Sequence[str], others: Iterable[str], *, threshold: float = NEAR_DUPLICATE) -> Set[int]:
    """Return the positions of the texts that are near-duplicates of one of the others.

    Raises
    ------
    ConfigError
        If datasketch is not installed.
    """
    try:
        from datasketch import MinHashLSH
    except ModuleNotFoundError as error:
        raise ConfigError(missing_package("datasketch", "the search for near-duplicates")) from error
    # A copy that is missed is worse than a pair that is compared for nothing.
    index = MinHashLSH(threshold=threshold, num_perm=_PERMUTATIONS, weights=(0.1, 0.9))
    sketches = {}
    sketch_of = _sketcher()
    for number, text in enumerate(others):
        if (sketch := sketch_of(text)) is not None:
            sketches[str(number)] = sketch
            index.insert(str(number), sketch)
    duplicates = set()
    for number, text in enumerate(texts):
        sketch = sketch_of(text)
        if sketch is not None and any(sketch.jaccard(sketches[key]) >= threshold for key in index.query(sketch)):
            duplicates.add(number)
    return duplicates


def is_near_duplicate(text: str, of: frozenset[str], *, threshold: float = NEAR_DUPLICATE) -> bool:
    """Compare a text with the `phrases` of another by their exact Jaccard similarity."""
    own = phrases(text)
    union = len(own | of)
    return bool(union) and len(own & of) >= threshold * union


def phrases(text: str) -> frozenset[str]:
    """Return all sequences of three words in a text; the whole text if it is shorter."""
    words = _WORD.findall(text.lower())
    size = min(_PHRASE_WORDS, len(words))
    return frozenset(" ".join(words[n : n + size]) for n in range(len(words) - size + 1)) if words else frozenset()


def _sketcher() -> Callable[[str], Any]:
    from datasketch import MinHash

    def sketch(text: str) -> Any:
        text_phrases = phrases(text)
        if not text_phrases:
            return None
        result = MinHash(num_perm=_PERMUTATIONS, seed=1)
        result.update_batch([phrase.encode() for phrase in sorted(text_phrases)])
        return result

    return sketch


def _normalize(text: str) -> str:
    return " ".join(_WORD.findall(text.lower()))


def _random_number(doc_id: str, seed: int) -> float:
    """Return a number in [0, 1) for a document, independent of the other documents."""
    digest = hashlib.sha256(f"{seed}:{doc_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
