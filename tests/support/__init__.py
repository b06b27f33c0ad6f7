"""What tests share: tiny random models, and slow direct evaluations to compare them with."""
