"""Models as graphs: pooling inside, export, int8, unpadded batches."""
