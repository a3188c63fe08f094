"""Number formats that a network computes in, and the tolerance of each against the reference."""

from __future__ import annotations

from typing import Literal

Precision = Literal["float32", "float16", "bfloat16", "int8"]
# Minimum cosine between a vector and the same text's vector in the encoder's reference, for any batch, thread count,
# backend, and processor. In our measurements, float32 engines stayed above 1 - 1e-6. The other precisions round so
# coarsely that two processors differ from each other by about as much as from float32.
MIN_COSINE: dict[Precision, float] = {"float32": 0.99999, "float16": 0.9999, "bfloat16": 0.995, "int8": 0.98}
