"""Fine-tune an encoder on a collection."""
