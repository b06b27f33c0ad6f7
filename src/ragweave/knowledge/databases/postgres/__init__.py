"""A knowledge base in PostgreSQL, with the extension pgvector."""
