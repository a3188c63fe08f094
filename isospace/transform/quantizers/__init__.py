"""Quantizers: what is stored of a vector, how it is scored, and what it costs in exactness.

Each is a pure function of one vector and of parameters that were fitted once, on the sample of the space. A float query
is scored against codes through the stored scales, never against the raw codes.
"""

from isospace.transform.quantizers.base import Quantizer, fit_quantizer, load_quantizer

__all__ = ["Quantizer", "fit_quantizer", "load_quantizer"]
