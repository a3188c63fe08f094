"""Benchmarks: measurements run by hand, side by side with a peer; no test depends on their timings."""
