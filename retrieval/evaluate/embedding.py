"""Embed each distinct picture and each distinct text once, for an evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from retrieval.encoder.embedding import embed_images
from retrieval.images.pipeline import Deduplicator
from retrieval.pairs import Skipped

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from retrieval.encoder import Encoder
    from retrieval.images import ImageSource
    from retrieval.metrics import Ids, Rows

TEXT_BATCH_SIZE = 1024  # between two steps of the progress


@dataclass(frozen=True, slots=True)
class EmbeddedImages:
    """The distinct readable pictures.

    Attributes:
        rows: (n, d) unit rows.
        contents: (n,) content hashes.
        numbers: Which of them each source shows, -1 for an unreadable one.
        skipped: The unreadable sources, each file once.
    """

    rows: Rows
    contents: tuple[str, ...]
    numbers: Ids
    skipped: tuple[Skipped, ...]


def embed_distinct_images(
    encoder: Encoder, sources: Sequence[ImageSource], advance: Callable[[int], None]
) -> EmbeddedImages:
    """Read each file once and encode each content once; `advance` is called with the number of sources done."""
    images = Deduplicator(sources)
    rows = np.empty((len(images.files), encoder.dimension), np.float32)
    row_of_content: dict[str, int] = {}
    for batch in embed_images(encoder, images.files, wanted=images.is_first):
        for image in batch:
            if image.prepared is not None and image.content is not None:
                rows[len(row_of_content)] = image.prepared
                row_of_content[image.content] = len(row_of_content)
            elif image.error is not None:
                images.add_failure(image.number, image.error)
        advance(len(batch))
    advance(len(sources) - len(images.files))
    distinct = images.distinct()
    order = [row_of_content[content] for content in distinct.contents]  # threads decide which of equal files is decoded
    rows = rows[: len(order)] if order == sorted(order) else rows[order]
    skipped = tuple(Skipped(source.name, reason) for source, reason in distinct.failures)
    return EmbeddedImages(rows, distinct.contents, distinct.numbers, skipped)


def embed_texts(encoder: Encoder, texts: Sequence[str], advance: Callable[[int], None]) -> Rows:
    """Return the rows of the texts, (t, d); `advance` is called with the number of texts done."""
    rows = np.empty((len(texts), encoder.dimension), np.float32)
    for start in range(0, len(texts), TEXT_BATCH_SIZE):
        batch = texts[start : start + TEXT_BATCH_SIZE]
        rows[start : start + len(batch)] = encoder.encode_texts(batch)
        advance(len(batch))
    return rows
