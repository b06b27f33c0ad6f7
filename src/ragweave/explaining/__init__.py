"""From posteriors to what people look at: tokens with their texts, the words that support them, and pictures."""
