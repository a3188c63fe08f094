"""Quantizers: how vectors are encoded, decoded, and scored.

A code is a pure function of one vector and of parameters that were fitted once, on the sample of the space. Float
queries are scored against decoded values, with the stored scales, and never against the raw codes.
"""

from isospace.transform.quantizers.base import Quantizer, fit_quantizer, load_quantizer

__all__ = ["Quantizer", "fit_quantizer", "load_quantizer"]
