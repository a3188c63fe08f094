"""Audit what an alias serves: drift, frozen queries, logged queries."""
