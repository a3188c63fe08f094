"""The gate: rules that a new snapshot has to hold before an alias moves to it."""
