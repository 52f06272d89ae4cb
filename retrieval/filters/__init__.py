"""Filters on attributes: the `where` language, evaluated as masks over in-memory columns."""

from retrieval.filters.operators import Filter, filter_keys
from retrieval.filters.parser import parse_filter

__all__ = ["Filter", "filter_keys", "parse_filter"]
