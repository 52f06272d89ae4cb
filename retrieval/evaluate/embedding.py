"""Embed each distinct picture and each distinct text once, for an evaluation."""

from __future__ import annotations

from contextlib import closing
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from retrieval.encoder.embedding import embed_images
from retrieval.images.pipeline import read_distinct_images

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from retrieval.encoder import Encoder
    from retrieval.encoder.embedding import EmbeddedImage
    from retrieval.images import ImageSource
    from retrieval.images.pipeline import DistinctImages, Wanted
    from retrieval.metrics import Rows

TEXT_BATCH_SIZE = 1024  # between two steps of the progress


def embed_distinct_images(
    encoder: Encoder, sources: Sequence[ImageSource], advance: Callable[[int], None]
) -> tuple[DistinctImages, Rows]:
    """Return the distinct pictures and their rows, (n, d); `advance` is called with the number of files done."""
    rows: dict[str, Rows] = {}

    def read(files: list[ImageSource], wanted: Wanted) -> Generator[EmbeddedImage, None, None]:
        with closing(embed_images(encoder, files, wanted=wanted)) as batches:
            yield from chain.from_iterable(batches)

    images = read_distinct_images(sources, read, receive=rows.__setitem__, progress=lambda _done, _total: advance(1))
    stacked = np.array([rows[content] for content in images.contents], np.float32)
    return images, stacked.reshape(-1, encoder.dimension)


def embed_texts(encoder: Encoder, texts: Sequence[str], advance: Callable[[int], None]) -> Rows:
    """Return the rows of the texts, (t, d); `advance` is called with the number of texts done."""
    rows = np.empty((len(texts), encoder.dimension), np.float32)
    for start in range(0, len(texts), TEXT_BATCH_SIZE):
        batch = texts[start : start + TEXT_BATCH_SIZE]
        rows[start : start + len(batch)] = encoder.encode_texts(batch)
        advance(len(batch))
    return rows
