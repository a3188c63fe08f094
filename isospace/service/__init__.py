"""The query service: embeddings, search and reranking over HTTP, for one collection."""
