"""The `isospace` command."""
