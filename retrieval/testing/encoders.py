"""The contract of an encoder."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy import testing
from PIL import Image

from index.vectors import Rows
from retrieval.encoder import Encoder, load_encoder

Input = TypeVar("Input")

TEXTS = ("a red ball", "", "two dogs run across a meadow", "日本語のテキスト", "word " * 200)


def check_encoder(load: Callable[[], Encoder], *, tolerance: float = 1e-4, by_name: bool = True) -> None:
    """Load an encoder twice, and encode the same images and texts by both, in different batches, orders and threads.

    Args:
        load: Returns the encoder.
        tolerance: How far a number of a row may depend on what shares its batch.
        by_name: Load the second by `load_encoder` and its name; False where it is only passed as an object.
    """
    encoder = load()
    again = load_encoder(encoder.name, device=encoder.device) if by_name else load()
    testing.assert_equal(encoder.device in {"cpu", "cuda"}, True)  # noqa: FBT003
    for attribute in ("name", "dimension", "image_size", "image_fingerprint", "text_fingerprint"):
        testing.assert_equal(getattr(encoder, attribute), getattr(again, attribute))
    testing.assert_array_less(0, [encoder.dimension, encoder.image_size, encoder.batch_size])
    images = _draw_images(encoder.batch_size + 3, side=encoder.image_size + 8)
    _check_rows(encoder, encoder.encode_texts, TEXTS, tolerance=tolerance)
    _check_rows(encoder, encoder.encode_images, images, tolerance=tolerance)
    prepared = [encoder.prepare(image) for image in images]
    _check_rows(encoder, encoder.encode_prepared, prepared, tolerance=tolerance)
    testing.assert_allclose(encoder.encode_prepared(prepared), again.encode_images(images), rtol=0, atol=tolerance)
    with ThreadPoolExecutor(4) as pool:
        for texts in pool.map(encoder.encode_texts, [TEXTS] * 8):
            testing.assert_allclose(texts, again.encode_texts(TEXTS), rtol=0, atol=tolerance)


def _check_rows(
    encoder: Encoder, encode: Callable[[Sequence[Input]], Rows], inputs: Sequence[Input], *, tolerance: float
) -> None:
    """Check form, length, order, and that a row depends on its input only."""
    rows = encode(inputs)
    testing.assert_equal(rows.dtype, np.dtype(np.float32))
    testing.assert_equal(rows.shape, (len(inputs), encoder.dimension))
    testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
    testing.assert_equal(encode(inputs[:0]).shape, (0, encoder.dimension))
    testing.assert_allclose(encode(inputs[::-1])[::-1], rows, rtol=0, atol=tolerance)
    testing.assert_allclose(np.concatenate([encode([one]) for one in inputs]), rows, rtol=0, atol=tolerance)


def _draw_images(count: int, *, side: int) -> list[Image.Image]:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (count, side, side, 3), np.uint8)
    pixels[::2] //= 4  # dark ones too
    return [Image.fromarray(one) for one in pixels]
