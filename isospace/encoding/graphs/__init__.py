"""Models as graphs: pooling inside the graph, export, int8, unpadded batches."""
