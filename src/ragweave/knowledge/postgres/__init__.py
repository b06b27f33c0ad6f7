"""Knowledge bases in PostgreSQL with pgvector; needs the extra "pgvector"."""
