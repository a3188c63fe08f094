"""Work on a store beside the pipeline: audit, maintenance, export, model comparison."""
