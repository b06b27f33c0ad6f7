"""Versions of a knowledge base in Milvus, for reading."""
