"""The encode stage: plan encoding shards, run workers."""
