"""RAG models on torch: question encoder and generator as one network."""
