"""Search by words: BM25 over postings that are kept with each segment, and scored with statistics of all."""
