"""Sources to chunks: readers, parsers, chunking, query files."""
