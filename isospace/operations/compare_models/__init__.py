"""Compare encoders and transforms on one corpus and its queries."""
