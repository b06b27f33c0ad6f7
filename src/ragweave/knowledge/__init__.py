"""From documents to a knowledge base: readers, chunking, embedding and the versioned store."""
