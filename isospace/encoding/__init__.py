"""Encoders, which turn text into raw vectors."""
