"""Encoders: text to raw vectors."""
