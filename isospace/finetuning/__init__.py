"""Fine-tuning: pairs, negatives, training, and whether it paid."""
