"""Operations on a store outside the pipeline: audit, maintenance, export, model comparison."""
