"""The exact transform and the sealed space, in NumPy alone."""
