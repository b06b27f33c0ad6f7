"""Text to vectors or scores: bi-encoders, cross-encoders and their pooling."""
