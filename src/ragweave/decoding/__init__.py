"""Decoding the mixture: the cache that beams share, and the search of RAG-Sequence."""
