"""The training tutorial: train on your own questions, step by step."""
