"""From sources to chunks: readers, parsers, chunking; and files of queries."""
