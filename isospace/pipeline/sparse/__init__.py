"""The sparse side of a run: plan, encode, seal the space, and write the segments."""
