"""Keep what is trained on apart from what is measured: by document, near-duplicates included."""

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
# Of the phrases: below it, two texts on one subject share their phrases; above it, one is a copy of the other.
NEAR_DUPLICATE = 0.7
_FEWEST_HELD_OUT = 20


@dataclass(frozen=True, slots=True)
class Leakage:
    """What was left out, so that nothing measured was trained on: numbers of pairs.

    Attributes
    ----------
    evaluated_documents
        Of documents that answer the evaluation set.
    evaluated_duplicates
        Of near-duplicates of these.
    evaluated_queries
        Whose anchor is a query of the evaluation set, or nearly one.
    held_out_duplicates
        Whose text, or anchor, is nearly that of a held-out pair.
    repeated
        The same anchor and positive as another.
    """

    evaluated_documents: int
    evaluated_duplicates: int
    evaluated_queries: int
    held_out_duplicates: int
    repeated: int

    def as_dict(self) -> dict[str, int]:
        """Return the numbers by name."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Split:
    """Pairs to train on, pairs to stop by, and what was left out of both."""

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
    """Split pairs by document.

    Parameters
    ----------
    examples
        All pairs.
    evaluated
        Texts of the documents that answer the evaluation set, by doc_id: nothing is learned from these, or from texts
        of which 70 % of the three-word phrases are theirs (Jaccard, estimated by MinHash, Broder 1997).
    queries
        Texts of its queries.
    share
        Of the documents that is held out.
    seed
        Of the choice.

    Returns
    -------
    Split

    Raises
    ------
    ConfigError
        If too few pairs are held out to stop by, or none is left to train on.
    """
    unique = list({(e.anchor, e.positive): e for e in examples}.values())
    asked = {_normal(text) for text in queries}
    apart = [e for e in unique if e.doc_id not in evaluated]
    like_queries = near_duplicates([e.anchor for e in apart], asked)
    unasked = [e for n, e in enumerate(apart) if n not in like_queries and _normal(e.anchor) not in asked]
    of_evaluated = near_duplicates([e.positive for e in unasked], evaluated.values())
    kept = [e for n, e in enumerate(unasked) if n not in of_evaluated]
    held_out = [e for e in kept if _drawn(e.doc_id, seed) < share]
    rest = [e for e in kept if _drawn(e.doc_id, seed) >= share]
    anchors = {_normal(e.anchor) for e in held_out}
    of_held_out = near_duplicates([e.positive for e in rest], [e.positive for e in held_out])
    training = [e for n, e in enumerate(rest) if n not in of_held_out and _normal(e.anchor) not in anchors]
    if len(held_out) < _FEWEST_HELD_OUT or not training:
        raise ConfigError(
            f"finetune.training.held_out_share = {share}: of {len(kept)} pairs {len(held_out)} are held out and "
            f"{len(training)} are left; expected at least {_FEWEST_HELD_OUT} held out, since nothing else tells when a "
            "model is overfitted, and more to train on. Give more pairs, or change the share."
        )
    leakage = Leakage(
        evaluated_documents=len(unique) - len(apart),
        evaluated_queries=len(apart) - len(unasked),
        evaluated_duplicates=len(of_evaluated),
        held_out_duplicates=len(rest) - len(training),
        repeated=len(examples) - len(unique),
    )
    return Split(tuple(training), tuple(held_out), leakage)


def near_duplicates(texts: Sequence[str], others: Iterable[str], *, threshold: float = NEAR_DUPLICATE) -> Set[int]:
    """Return the positions of the texts that are nearly equal to one of the others.

    Raises
    ------
    ConfigError
        If the package that finds them is missing.
    """
    try:
        from datasketch import MinHashLSH
    except ModuleNotFoundError as error:
        raise ConfigError(missing_package("datasketch", "the search for near-duplicates")) from error
    # A copy that is missed is worse than a pair that is compared for nothing.
    index = MinHashLSH(threshold=threshold, num_perm=_PERMUTATIONS, weights=(0.1, 0.9))
    known = {}
    sketched = _sketcher()
    for number, text in enumerate(others):
        if (sketch := sketched(text)) is not None:
            known[str(number)] = sketch
            index.insert(str(number), sketch)
    found = set()
    for number, text in enumerate(texts):
        sketch = sketched(text)
        if sketch is not None and any(sketch.jaccard(known[key]) >= threshold for key in index.query(sketch)):
            found.add(number)
    return found


def is_near_duplicate(text: str, of: frozenset[str], *, threshold: float = NEAR_DUPLICATE) -> bool:
    """Compare a text with the phrases of another, exactly; see `phrases`."""
    own = phrases(text)
    union = len(own | of)
    return bool(union) and len(own & of) >= threshold * union


def phrases(text: str) -> frozenset[str]:
    """Return every three words in a row of a text; all of it where it is shorter."""
    words = _WORD.findall(text.lower())
    size = min(_PHRASE_WORDS, len(words))
    return frozenset(" ".join(words[n : n + size]) for n in range(len(words) - size + 1)) if words else frozenset()


def _sketcher() -> Callable[[str], Any]:
    from datasketch import MinHash

    def sketch(text: str) -> Any:
        found = phrases(text)
        if not found:
            return None
        made = MinHash(num_perm=_PERMUTATIONS, seed=1)
        made.update_batch([phrase.encode() for phrase in sorted(found)])
        return made

    return sketch


def _normal(text: str) -> str:
    return " ".join(_WORD.findall(text.lower()))


def _drawn(doc_id: str, seed: int) -> float:
    """Return a number in [0, 1) that belongs to the document: the same whatever other documents there are."""
    digest = hashlib.sha256(f"{seed}:{doc_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
