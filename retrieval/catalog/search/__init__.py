"""Searching: one request, or many at once, against records of one moment."""
