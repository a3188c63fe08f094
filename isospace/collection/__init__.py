"""A collection on disk: snapshots, aliases, raw vectors, segments, tombstones."""
