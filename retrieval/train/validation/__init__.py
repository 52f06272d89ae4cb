"""Validation: ranking held-out pairs, model selection, comparison with the starting model."""
