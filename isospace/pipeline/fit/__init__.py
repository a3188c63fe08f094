"""The fit stage: draw a sample, compare candidate fits, and seal a space."""
