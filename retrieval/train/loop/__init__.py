"""The training loop: steps, gradient caching, precision, callbacks."""
