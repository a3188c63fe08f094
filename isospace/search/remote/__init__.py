"""Search a snapshot in its store, by ranges of published files, without a local copy."""
