"""Distill an encoder into a static model: one vector for each token, fitted to the vectors of a collection."""
