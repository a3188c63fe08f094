"""Keep a store small and lawful: leases, vacuum, compaction, forgetting."""
