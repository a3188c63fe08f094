"""Frozen queries, what is measured on them, and how two versions compare."""
