"""Audit the snapshot that an alias serves: drift, frozen queries, logged queries."""
