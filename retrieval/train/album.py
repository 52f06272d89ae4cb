"""The distinct pictures of a training run: each opened once, damaged ones named, kept in memory while that lasts."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import RetrievalError
from retrieval.images import ImageSource, ahead, content_hash, cores, open_image
from retrieval.pairs import Pair, Skipped

if TYPE_CHECKING:
    from collections.abc import Generator

    from PIL import Image

    from retrieval.train.crops import Crops

Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Album:
    """The distinct pictures of a set of pairs, each opened once, and the first of them kept in memory.

    Attributes:
        sources: where each picture is.
        contents: the hash of each picture's bytes.
        numbers: which picture each pair shows; -1 for one that cannot be read or has no caption.
        framed: pictures kept in memory, ready for `Crops.cut`.
        skipped: what cannot be learned from, and why.
    """

    sources: tuple[ImageSource, ...]
    contents: tuple[str, ...]
    numbers: Ids
    framed: Mapping[int, "Image.Image"]
    skipped: tuple[Skipped, ...]

    def cut(self, number: int, crops: "Crops", chance: NDArray[np.float64]) -> NDArray[np.uint8]:
        """A crop of a picture, bytes (height, width, 3)."""
        framed = self.framed.get(number)
        return crops.cut(_framed(self.sources[number].read(), crops) if framed is None else framed, chance)


def open_album(pairs: Sequence[Pair], crops: "Crops", *, cache_bytes: int, threads: int | None = None) -> Album:
    """Open every captioned picture once, on threads: what is damaged is known before training starts."""
    files: dict[tuple[object, ...], int] = {}
    sources: list[ImageSource] = []
    file_of_pair = np.full(len(pairs), -1)
    for place, pair in enumerate(pairs):
        if any(caption.strip() for caption in pair.captions):
            file = files.setdefault((pair.image.path, pair.image.member), len(files))
            sources += [pair.image] * (file == len(sources))
            file_of_pair[place] = file
    found = _Found(cache_bytes)
    opened = ahead(lambda source: _opened(source, crops), sources, threads=threads or cores())
    with closing(cast("Generator[Any, None, None]", opened)):
        for source, outcome in zip(sources, opened, strict=True):
            found.add(source, outcome)
    silent = [
        Skipped(pair.image.name, "has no caption to learn from") for pair in _without_caption(pairs, file_of_pair)
    ]
    numbers = np.append(np.array(found.number_of_file, np.int64), -1)[file_of_pair]
    return Album(tuple(found.sources), tuple(found.contents), numbers, found.framed, (*found.skipped, *silent))


class _Found:
    """Numbers the pictures as they are opened; equal bytes are one picture."""

    def __init__(self, cache_bytes: int) -> None:
        self.sources: list[ImageSource] = []
        self.contents: dict[str, int] = {}
        self.framed: dict[int, Image.Image] = {}
        self.skipped: list[Skipped] = []
        self.number_of_file: list[int] = []
        self._left = cache_bytes

    def add(self, source: ImageSource, outcome: "tuple[str, Image.Image] | RetrievalError") -> None:
        if isinstance(outcome, RetrievalError):
            self.skipped.append(Skipped(source.name, str(outcome)))
            self.number_of_file.append(-1)
            return
        content, framed = outcome
        number = self.contents.setdefault(content, len(self.contents))
        self.number_of_file.append(number)
        if number == len(self.sources):
            self.sources.append(source)
            self._keep(number, framed)

    def _keep(self, number: int, framed: "Image.Image") -> None:
        """Keep a picture while the budget lasts; Pillow takes four bytes a pixel."""
        self._left -= 4 * framed.width * framed.height
        if self._left >= 0:
            self.framed[number] = framed


def _opened(source: ImageSource, crops: "Crops") -> "tuple[str, Image.Image]":
    data = source.read()
    return content_hash(data), _framed(data, crops)


def _framed(data: bytes, crops: "Crops") -> "Image.Image":
    return crops.frame(open_image(data, size=max(crops.height, crops.width)))


def _without_caption(pairs: Sequence[Pair], file_of_pair: Ids) -> list[Pair]:
    return [pairs[place] for place in np.flatnonzero(file_of_pair < 0).tolist()]
