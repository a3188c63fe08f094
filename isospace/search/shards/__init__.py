"""Search over several processes: each has some of the parts of a snapshot, and one asks them all."""
