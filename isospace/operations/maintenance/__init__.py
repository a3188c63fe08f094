"""Keep a store in order: compact, vacuum, forget, verify."""
