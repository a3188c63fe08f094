"""Reports for people: one self-contained page, and the same as JSON."""
