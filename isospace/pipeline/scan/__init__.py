"""The scan stage: compare the source with the collection."""
