"""The service: a pipeline behind HTTP, with batching, limits, keys, metrics and a page."""
