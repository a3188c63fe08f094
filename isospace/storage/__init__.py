"""Files in the store: local folder or S3, Parquet, paths, hashing, leases."""
