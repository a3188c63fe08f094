"""An index of raw vectors: which file holds the vector of a chunk hash, without reading all files.

It has levels, as a log-structured merge tree has (O'Neil et al., "The log-structured merge-tree", 1996): immutable
files of entries sorted by chunk hash. A run adds what it encoded as a small level, and levels of about the same size
are merged. The index can always be made again from the files of raw vectors.
"""
