"""The distinct pictures of a training run: each opened once, damaged ones named, kept in memory or on disk."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retrieval.concurrency import prefetch_map
from retrieval.errors import RetrievalError, TrainingError
from retrieval.hashing import content_hash
from retrieval.images import ImageSource, open_image
from retrieval.pairs import Pair, Skipped
from retrieval.train.data.near_duplicates import PerceptualHashes, group_near_duplicates, hash_image

if TYPE_CHECKING:
    from PIL import Image

    from retrieval.train.data.disk_cache import DiskCache
    from retrieval.train.data.transforms import TrainTransform

Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ImageCache:
    """The distinct pictures of a set of pairs, each opened once, the first of them kept in memory, others on disk.

    Attributes:
        sources: where each picture is.
        contents: the hash of each picture's bytes.
        prints: of each picture, by which near-duplicates are known.
        twins: of each picture, the least one that it is a near-duplicate of, or itself.
        numbers: which picture each pair shows; -1 for one that cannot be read or has no caption.
        framed: pictures kept in memory, ready for `TrainTransform.cut`.
        skipped: what cannot be learned from, and why.
        disk: further pictures, ready likewise; None for none.
    """

    sources: tuple[ImageSource, ...]
    content_hashes: tuple[str, ...]
    perceptual_hashes: PerceptualHashes
    duplicate_groups: Ids
    image_of_pair: Ids
    in_memory: Mapping[int, "Image.Image"]
    skipped: tuple[Skipped, ...]
    disk: "DiskCache | None" = None

    @property
    def is_complete(self) -> bool:
        """Whether no picture has to be decoded again."""
        return len(self.in_memory) + (0 if self.disk is None else len(self.disk)) == len(self.sources)

    def crop(self, number: int, transform: "TrainTransform", chance: NDArray[np.float64]) -> NDArray[np.uint8]:
        """A crop of a picture, bytes (height, width, 3).

        Raises:
            TrainingError: it can no longer be read.
        """
        framed = self.in_memory.get(number)
        if framed is None and self.disk is not None:
            framed = self.disk.get(number)
        return transform.random_resized_crop(self._framed(number, transform) if framed is None else framed, chance)

    def _framed(self, number: int, transform: "TrainTransform") -> "Image.Image":
        source = self.sources[number]
        try:
            return transform.resize(_decoded(source.read(), transform))
        except RetrievalError as error:
            raise gone(source, error) from error


def build_image_cache(
    pairs: Sequence[Pair],
    transform: "TrainTransform",
    *,
    cache_bytes: int,
    disk: "DiskCache | None" = None,
    threads: int | None = None,
    opened: Callable[[int, int], None] | None = None,
) -> ImageCache:
    """Open every captioned picture once, on threads: what is damaged is known before training starts.

    Args:
        pairs: what shows the pictures.
        transform: how they are framed.
        cache_bytes: of memory, for framed pictures.
        disk: takes those that memory does not.
        threads: that open pictures; one a core where it is None.
        opened: called with (done, total) after each file.
    """
    files: dict[tuple[object, ...], int] = {}
    sources: list[ImageSource] = []
    file_of_pair = np.full(len(pairs), -1)
    for place, pair in enumerate(pairs):
        if any(caption.strip() for caption in pair.captions):
            file = files.setdefault((pair.image.path, pair.image.member), len(files))
            sources += [pair.image] * (file == len(sources))
            file_of_pair[place] = file
    found = _Found(cache_bytes, disk)
    outcomes = prefetch_map(lambda source: _opened(source, transform), sources, threads=threads)
    with closing(outcomes):
        for done, (source, outcome) in enumerate(zip(sources, outcomes, strict=True), start=1):
            found.add(source, outcome)
            if opened is not None:
                opened(done, len(sources))
    silent = [
        Skipped(pair.image.name, "has no caption to learn from") for pair in _without_caption(pairs, file_of_pair)
    ]
    numbers = np.append(np.array(found.number_of_file, np.int64), -1)[file_of_pair]
    prints = PerceptualHashes.concatenate(found.prints)
    return ImageCache(
        sources=tuple(found.sources),
        content_hashes=tuple(found.contents),
        perceptual_hashes=prints,
        duplicate_groups=group_near_duplicates(prints),
        image_of_pair=numbers,
        in_memory=found.framed,
        skipped=(*found.skipped, *silent),
        disk=disk,
    )


def gone(source: ImageSource, error: RetrievalError) -> TrainingError:
    """What there is to say of a picture that could be read when the image_cache was opened."""
    return TrainingError(f"{source.name} could be read at first, but now {error}; put it back and resume")


class _Found:
    """Numbers the pictures as they are opened; equal bytes are one picture."""

    def __init__(self, cache_bytes: int, disk: "DiskCache | None") -> None:
        self.sources: list[ImageSource] = []
        self.contents: dict[str, int] = {}
        self.prints: list[PerceptualHashes] = []
        self.framed: dict[int, Image.Image] = {}
        self.skipped: list[Skipped] = []
        self.number_of_file: list[int] = []
        self._left, self._disk = cache_bytes, disk

    def add(self, source: ImageSource, outcome: "tuple[str, PerceptualHashes, Image.Image] | RetrievalError") -> None:
        if isinstance(outcome, RetrievalError):
            self.skipped.append(Skipped(source.name, str(outcome)))
            self.number_of_file.append(-1)
            return
        content, printed, framed = outcome
        number = self.contents.setdefault(content, len(self.contents))
        self.number_of_file.append(number)
        if number == len(self.sources):
            self.sources.append(source)
            self.prints.append(printed)
            self._keep(number, framed)

    def _keep(self, number: int, framed: "Image.Image") -> None:
        """Keep a picture while the budget lasts; Pillow takes four bytes a pixel."""
        self._left -= 4 * framed.width * framed.height
        if self._left >= 0:
            self.framed[number] = framed
        elif self._disk is not None:
            self._disk.keep(number, framed)


def _opened(
    source: ImageSource, transform: "TrainTransform"
) -> "tuple[str, PerceptualHashes, Image.Image] | RetrievalError":
    try:
        data = source.read()
        image = _decoded(data, transform)
    except RetrievalError as error:
        return error
    return content_hash(data), hash_image(image), transform.resize(image)


def _decoded(data: bytes, transform: "TrainTransform") -> "Image.Image":
    return open_image(data, size=max(transform.height, transform.width))


def _without_caption(pairs: Sequence[Pair], file_of_pair: Ids) -> list[Pair]:
    return [pairs[place] for place in np.flatnonzero(file_of_pair < 0).tolist()]
