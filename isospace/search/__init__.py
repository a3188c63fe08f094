"""Search a snapshot: vectors, BM25, filters, fusion, reranking."""
