"""Sparse encoders: one weight per token of a vocabulary, beside the dense encoder of a recipe."""
