"""Where an answer came from: posteriors per answer and per token, and how they are shown."""
