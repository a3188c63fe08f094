"""Encoders in the store: files, record, reference vectors, presets."""
