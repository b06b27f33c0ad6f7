"""Training on your own questions, step by step."""
