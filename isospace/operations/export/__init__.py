"""Export a snapshot to FAISS, LanceDB, pgvector, or Qdrant."""
