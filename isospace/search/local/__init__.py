"""The local copy of a snapshot: groups of its parts as memory-mapped files, shared between snapshots."""
