"""The HTTP service: batching, limits, keys, metrics, OpenAI-compatible endpoints and a web page."""
