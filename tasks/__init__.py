"""Prefect tasks: resolve references, call isospace, log, return a reference."""
