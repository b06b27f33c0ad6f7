"""Text in, `Answer` out: loading, the embedded model, streaming."""
