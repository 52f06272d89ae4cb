"""Full-text search: tokenizer, spelling correction, and BM25 over SQLite's FTS5."""
