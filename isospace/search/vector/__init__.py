"""Vector search: candidate kernels, top-k, exact rescoring."""
