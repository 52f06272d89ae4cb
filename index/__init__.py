"""Vectors in, ranked ids out: exact and approximate search by cosine, on FAISS."""
