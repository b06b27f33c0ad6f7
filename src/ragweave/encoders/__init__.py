"""Text to vectors or scores: bi-encoders, cross-encoders, late interaction and pooling."""
