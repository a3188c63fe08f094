"""The exact transform and the sealed space; NumPy is the only numerical dependency."""
