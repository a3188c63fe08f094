"""The fit stage: sample, try candidates, seal a space."""
