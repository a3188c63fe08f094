"""Parsers for untrusted files, run in a subprocess."""
