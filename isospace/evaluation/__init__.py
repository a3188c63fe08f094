"""Query sets, metrics, comparison of snapshots, and the gate."""
