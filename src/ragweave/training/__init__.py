"""Training: question encoder and generator together, from questions and answers."""
