"""Search by words: tokens, spelling, BM25 over FTS5."""
