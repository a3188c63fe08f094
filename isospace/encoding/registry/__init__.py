"""Encoders in the store: files, identity, reference vectors, presets."""
