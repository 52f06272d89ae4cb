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

TEXTS_AT_ONCE = 1024  # between two steps of the progress


class Meter:
    """Counts what is done and tells it to a callback of (done, total), if there is one."""

    def __init__(self, progress: Callable[[int, int], None] | None, *, total: int) -> None:
        self._progress, self._done, self._total = progress, 0, total

    def add(self, count: int) -> None:
        """Say that so many more are done."""
        self._done += count
        if self._progress is not None:
            self._progress(self._done, self._total)


@dataclass(frozen=True, slots=True)
class Pictures:
    """The distinct pictures that could be read.

    Attributes:
        rows: (n, d) unit rows.
        contents: (n,) the content hash of each.
        numbers: which of them each source shows, -1 for one that could not be read.
        skipped: the sources that could not be read, each file once.
    """

    rows: Rows
    contents: tuple[str, ...]
    numbers: Ids
    skipped: tuple[Skipped, ...]


def embed_pictures(encoder: Encoder, sources: Sequence[ImageSource], meter: Meter) -> Pictures:
    """Read each file once and encode each content once, however many of the sources name it."""
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
        meter.add(len(batch))
    meter.add(len(sources) - len(images.files))
    distinct = images.distinct()
    order = [row_of_content[content] for content in distinct.contents]  # which of equal files is decoded is chance
    rows = rows[: len(order)] if order == sorted(order) else rows[order]
    skipped = tuple(Skipped(source.name, reason) for source, reason in distinct.failures)
    return Pictures(rows, distinct.contents, distinct.numbers, skipped)


def embed_texts(encoder: Encoder, texts: Sequence[str], meter: Meter) -> Rows:
    """The rows of the texts, (t, d)."""
    rows = np.empty((len(texts), encoder.dimension), np.float32)
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        part = slice(start, start + TEXTS_AT_ONCE)
        rows[part] = encoder.encode_texts(texts[part])
        meter.add(len(texts[part]))
    return rows
