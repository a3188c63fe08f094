"""Configuration of the sparse encoder."""

from __future__ import annotations

from pydantic import Field

from isospace.storage.spec import SpecModel
from isospace.transform.sparse import Bits


class SparseSpec(SpecModel):
    """A sparse encoder beside the dense one, for the modes sparse and hybrid."""

    model: str
    """A model of sentence-transformers' `SparseEncoder` (SPLADE, or one with an inference-free query side): a local
    folder, `package:NAME` for a model in an installed package, or a name on the Hugging Face Hub with `revision`."""
    revision: str | None = None
    """For a model on the Hub: the full commit hash, 40 hexadecimal digits."""
    max_tokens: int | None = Field(default=None, ge=8)
    """Longest input, including special tokens; the model's own limit if empty. Longer texts are cut, and counted."""
    bits: Bits = 8
    """Bits of a stored weight."""
