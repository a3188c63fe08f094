"""What writers and readers of published groups agree on."""

from __future__ import annotations

import hashlib

INDEX = "index"
"""The object that is read whole, and tells where the blocks of the others are."""
PLAIN_ROWS = 512
"""Rows of a block of codes in a space without cells."""
POSTINGS_BLOCK = 8_192
IDS_BLOCK = 4_096
VOCABULARY = ("words", "word_ends", "starts", "lengths")
"""Blocks of `words`."""


def hash_of(chunk_id: str) -> int:
    """Return 64 bits of the SHA-256 of a chunk ID."""
    return int.from_bytes(hashlib.sha256(chunk_id.encode("utf-8", "surrogatepass")).digest()[:8], "little")
