"""Search in one snapshot: what is stored of it locally, how candidates are found, rescored, fused and reranked."""
