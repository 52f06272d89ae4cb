"""Search pictures by text and texts by picture."""
