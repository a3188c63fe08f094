"""A run: its configuration, its stages, and their order."""
