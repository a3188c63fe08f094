"""The gate: rules that a snapshot must pass before an alias moves to it."""
