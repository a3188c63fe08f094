"""Maintain a store: compact, vacuum, forget, verify."""
