"""Approximate search over the cells of a space, with a declared recall."""
