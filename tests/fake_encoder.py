"""A deterministic encoder without a model: a picture's mean colour and the colours that a text names share a space."""

import hashlib
from collections.abc import Sequence

import numpy as np

COLORS = {"red": (1, 0, 0), "green": (0, 0.5, 0), "blue": (0, 0, 1), "white": (1, 1, 1), "black": (0, 0, 0)}
DIMENSION = 24
SHADES = 3  # the first columns; the others keep different pictures and texts apart


class FakeEncoder:
    """Encodes at once, and counts what it encoded."""

    def __init__(self, *, name: str = "fake/one", fingerprint: str = "0123456789abcdef", batch_size: int = 8) -> None:
        """Begin with nothing encoded."""
        self.name = name
        self.dimension = DIMENSION
        self.device = "cpu"
        self.image_fingerprint = f"image{fingerprint}"
        self.text_fingerprint = f"text{fingerprint}"
        self.image_size = 8
        self.batch_size = batch_size
        self.images: int = 0
        self.texts: list[str] = []

    def prepare(self, image):
        """Shrink the picture."""
        return np.asarray(image.resize((8, 8)), np.float32) / 255

    def encode_prepared(self, prepared):
        """One row for each prepared picture."""
        self.images += len(prepared)
        rows = [_row(pixels.mean((0, 1)), pixels.tobytes()) for pixels in prepared]
        return np.array(rows, np.float32).reshape(len(rows), DIMENSION)

    def encode_images(self, images):
        """One row for each picture."""
        return self.encode_prepared([self.prepare(image) for image in images])

    def encode_texts(self, texts: Sequence[str]):
        """One row for each text."""
        self.texts += texts
        rows = [_row(_named_color(text), text.encode()) for text in texts]
        return np.array(rows, np.float32).reshape(len(rows), DIMENSION)


def _named_color(text: str) -> np.ndarray:
    named = [COLORS[word] for word in text.lower().split() if word in COLORS]
    return np.mean(named, axis=0) if named else np.full(SHADES, 0.45)


def _row(color, content: bytes) -> np.ndarray:
    seed = int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")
    row = np.random.default_rng(seed).normal(scale=0.02, size=DIMENSION)
    row[:SHADES] += 2 * np.asarray(color) - 1  # so that black has a direction too
    return row / np.linalg.norm(row)
