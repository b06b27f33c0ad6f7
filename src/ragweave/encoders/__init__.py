"""Text to vectors or scores: bi-encoders, sparse encoders, rerankers and pooling."""
