"""A uniform sample of texts: the smallest keyed hashes of their chunk hashes.

The sample depends only on the set of texts and the seed, not on order, shards, or machine. The samples of two sets
merge into the sample of their union. (Bottom-k sampling; Cohen and Kaplan, "Summarizing data using bottom-k sketches",
2007.)
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable


def sample_key(item: bytes, seed: int) -> bytes:
    """Return the key of a hash: 16 bytes, which are compared as bytes."""
    return hashlib.blake2b(item, digest_size=16, key=seed.to_bytes(16, "little", signed=True)).digest()


def bottom_k(hashes: Iterable[bytes], size: int, seed: int) -> list[bytes]:
    """Draw at most `size` of the 32-byte hashes, in the order of their keys; repeated hashes count once."""
    smallest: dict[bytes, bytes] = {}
    for block in _blocks(hashes, max(2 * size, 10_000)):
        keyed = {sample_key(item, seed): item for item in block}
        smallest = dict(heapq.nsmallest(size, (smallest | keyed).items()))
    return [item for _, item in sorted(smallest.items())]


def _blocks(items: Iterable[bytes], size: int) -> Iterable[list[bytes]]:
    block: list[bytes] = []
    for item in items:
        block.append(item)
        if len(block) >= size:
            yield block
            block = []
    yield block
