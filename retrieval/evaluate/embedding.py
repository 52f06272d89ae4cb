"""Embed each distinct picture and each distinct text once, for an evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from retrieval.encoder import embed_images
from retrieval.images import content_hash
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
    files: dict[tuple[object, ...], int] = {}
    file_of_source = [files.setdefault((source.path, source.member), len(files)) for source in sources]
    _, first = np.unique(np.array(file_of_source, np.int64), return_index=True)
    pictures = _embed_files(encoder, [sources[number] for number in first], meter)
    meter.add(len(sources) - len(files))
    return Pictures(pictures.rows, pictures.contents, pictures.numbers[file_of_source], pictures.skipped)


def embed_texts(encoder: Encoder, texts: Sequence[str], meter: Meter) -> Rows:
    """The rows of the texts, (t, d)."""
    rows = np.empty((len(texts), encoder.dimension), np.float32)
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        part = slice(start, start + TEXTS_AT_ONCE)
        rows[part] = encoder.encode_texts(texts[part])
        meter.add(len(texts[part]))
    return rows


def _embed_files(encoder: Encoder, files: Sequence[ImageSource], meter: Meter) -> Pictures:
    rows = np.empty((len(files), encoder.dimension), np.float32)
    contents: list[str] = []
    numbers = np.full(len(files), -1)
    reasons: dict[int, str] = {}
    seen = _Seen(len(files))
    for batch in embed_images(encoder, files, wanted=seen.is_new):
        start, stop = len(contents), len(contents) + len(batch.rows)
        rows[start:stop] = batch.rows
        numbers[list(batch.positions)] = np.arange(start, stop)
        contents += [seen.hashes[position] for position in batch.positions]
        reasons |= {position: str(error) for position, error in batch.failures}
        meter.add(len(batch.positions) + len(batch.failures) + len(batch.unwanted))
    first = seen.first_of_each()
    skipped = [Skipped(files[bad].name, reasons[first[bad]]) for bad in np.flatnonzero(numbers[first] < 0).tolist()]
    return Pictures(rows[: len(contents)], tuple(contents), numbers[first], tuple(skipped))


class _Seen:
    """Which contents came by, hashed on the threads that read them, so that an equal file is not decoded again."""

    def __init__(self, count: int) -> None:
        self.hashes = [""] * count
        self._first: dict[str, int] = {}

    def is_new(self, number: int, data: bytes) -> bool:
        """Note the content of a file; only the first of equal ones is wanted (`setdefault` decides in one step)."""
        self.hashes[number] = content_hash(data)
        return self._first.setdefault(self.hashes[number], number) == number

    def first_of_each(self) -> list[int]:
        """The file of equal content that was looked at, for each file; itself where it was never read."""
        return [self._first.get(content, number) for number, content in enumerate(self.hashes)]
