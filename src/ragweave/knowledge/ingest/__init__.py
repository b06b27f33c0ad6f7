"""The write side of a knowledge base: loaders, chunking, transactions, embedding engines."""
