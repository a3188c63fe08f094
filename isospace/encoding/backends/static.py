"""Static models with NumPy alone: the mean of the vectors of a text's tokens.

Every sum is exact, so that a vector's bits depend on the text and the table alone: not on the batch, the order of the
tokens, the processor, or the version of NumPy. For each dimension, the components of all tokens are rounded to
multiples of a power of two. It is so small that only components are rounded that are tiny beside the largest one, and
so large that float64 adds as many multiples as a text has tokens without rounding. What follows (a division, a root) is
rounded correctly everywhere (IEEE 754).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from isospace.encoding.backends.base import BackendName, processor
from isospace.encoding.batching import Batch, equal_length_batches, put_rows
from isospace.encoding.static_model import TokenTable, read_table
from isospace.transform.affine import sum_of_squares
from isospace.transform.vectors import Float32

# The vectors of the tokens of one call stay in the processor's cache.
BATCH_TOKENS = 1024
# Bits of a sum: float64 represents every integer of so many.
_SUM_BITS = 53
_NORM_BITS = 25


@dataclass(frozen=True, slots=True)
class StaticBackend:
    """A table of token vectors.

    Attributes
    ----------
    table
        The vectors of the tokens.
    scale
        (d,) float32 powers of two: a component, multiplied by it, is rounded to an integer.
    normalizes
        Whether vectors are scaled to unit length.
    batch_tokens
        Maximum number of tokens per call.
    """

    table: TokenTable
    scale: Float32
    normalizes: bool
    batch_tokens: int
    name: BackendName = "static"
    device: str = "cpu"
    halvings: int = 0
    is_batch_invariant: bool = True

    def engine(self) -> dict[str, str]:
        """Describe the engine; its name has no version, since the bits depend on none."""
        return {
            "engine": "static",
            "device": self.device,
            "processor": processor(),
            "instructions": "any",
            "precision": "float32",
        }

    def batches(self, lengths: Sequence[int]) -> list[list[int]]:
        """Group rows by exact length."""
        return equal_length_batches(lengths, self.batch_tokens)

    def run(self, batches: Iterable[Batch], into: Float32) -> None:
        """Compute batches one after the other; the pooling weights of a batch are not used."""
        for batch in batches:
            if batch.is_padded:
                rows = [self.vectors(batch.ids[n : n + 1, :length]) for n, length in enumerate(batch.lengths)]
                put_rows(into, batch.rows, np.concatenate(rows))
            else:
                put_rows(into, batch.rows, self.vectors(batch.ids))

    def vectors(self, ids: npt.NDArray[np.int64]) -> Float32:
        """Return the (n, d) float32 vectors of n texts with equally many tokens, given as (n, length) IDs."""
        # Multiplication by a power of two is exact, forth and back.
        integers = np.rint(self.table.rows(ids) * self.scale)
        sums = integers.sum(axis=1, dtype=np.float64)
        if self.normalizes:
            return _unit(sums / self.scale)
        means: Float32 = (sums / ids.shape[1] / self.scale).astype(np.float32)
        return means


def _unit(sums: npt.NDArray[np.float64]) -> Float32:
    """Return (n, d) rows at unit length; their lengths are computed exactly, from 26 bits of each component."""
    _, exponents = np.frexp(np.abs(sums).max(axis=1, keepdims=True))
    lengths = np.sqrt(sum_of_squares(np.rint(np.ldexp(sums, _NORM_BITS - exponents))))[:, None]
    lengths = np.ldexp(np.where(lengths == 0, 1.0, lengths), exponents - _NORM_BITS)
    result: Float32 = (sums / lengths).astype(np.float32)
    return result


def static_backend(
    table: TokenTable, *, limit: int, normalizes: bool, batch_tokens: int | None = None
) -> StaticBackend:
    """Return the backend of a table that is in memory, for texts of up to `limit` tokens."""
    _, exponents = np.frexp(table.bounds)
    # float32 has no larger powers than the last; components that need them are zero for every purpose.
    bits = np.clip(_SUM_BITS - limit.bit_length() - exponents, -120, 120)
    return StaticBackend(table, np.exp2(bits).astype(np.float32), normalizes, batch_tokens or BATCH_TOKENS)


def open_static(weights: Path, *, limit: int, normalizes: bool, batch_tokens: int | None) -> StaticBackend:
    """Open the table in a safetensors file; raise EncoderError if it cannot be read."""
    return static_backend(read_table(weights), limit=limit, normalizes=normalizes, batch_tokens=batch_tokens)
