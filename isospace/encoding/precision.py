"""What a network computes in, and how far its vectors may be from the encoder's reference."""

from __future__ import annotations

from typing import Literal

Precision = Literal["float32", "float16", "bfloat16", "int8"]
# Cosine that a vector must have with the same text's by the encoder's reference, whatever batch, thread
# count, backend or processor computed it. float32 engines were seen to stay above 1 - 1e-6; the others
# round so coarsely that kernels on two processors differ by about as much as they do from float32.
MIN_COSINE: dict[Precision, float] = {"float32": 0.99999, "float16": 0.9999, "bfloat16": 0.995, "int8": 0.98}
