"""The hash by which contents are compared."""

import hashlib


def content_hash(data: bytes) -> str:
    """Return the BLAKE2b hash of a picture's or a caption's bytes as 32 hexadecimal digits."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()
