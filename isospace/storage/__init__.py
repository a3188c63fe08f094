"""Files in the store: local folder or object store, Parquet, paths, hashing, leases."""
