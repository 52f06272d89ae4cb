"""The distinct images of a training run: each decoded once, damaged ones named, kept resized in memory or on disk."""

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from index.vectors import Ids
from retrieval.errors import RetrievalError, TrainingError
from retrieval.images import ImageSource, open_image
from retrieval.images.pipeline import read_distinct_images, read_images
from retrieval.pairs import Pair, Skipped
from retrieval.train.data.near_duplicates import (
    PERCEPTUAL_HASH,
    PerceptualHashes,
    group_near_duplicates,
    hash_image,
)

if TYPE_CHECKING:
    from retrieval.train.data.transforms import TrainTransform


_MAX_FRACTION_OF_FREE: Final = 0.5  # of what is free on the disk: checkpoints and whatever else runs need the rest


class DiskCache:
    """RGB images in a nameless file: nothing is left of it however the process ends.

    One thread writes, any number of threads read. A full disk ends the writing and loses nothing.
    """

    def __init__(self, folder: Path, budget: int, *, processes: int = 1) -> None:
        """Open an empty cache in a folder, which is created, for at most `budget` bytes and half of the free space.

        Both are for all `processes` of this machine together; a budget of 0 opens no file.

        Raises:
            TrainingError: there can be no file in the folder.
        """
        self._file: BinaryIO | None = None
        self._entries: dict[str, tuple[int, int, int]] = {}  # offset, width, height
        self._end, self._budget = 0, budget
        if not budget:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._budget = min(budget, int(_MAX_FRACTION_OF_FREE * shutil.disk_usage(folder).free)) // processes
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (it lives as long as this object)
        except OSError as error:
            raise TrainingError(
                f"The image cache cannot be written to {folder}: {error.strerror}. Name another cache_folder."
            ) from error

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, key: str, image: Image.Image) -> None:
        """Store an image, if there is room."""
        size = 3 * image.width * image.height
        if self._file is None or self._end + size > self._budget:
            return
        try:
            written = os.pwrite(self._file.fileno(), image.tobytes(), self._end)
        except OSError:  # full, or over the quota
            written = 0
        if written < size:
            self._budget = self._end
            return
        self._entries[key] = (self._end, image.width, image.height)
        self._end += size

    def get(self, key: str) -> Image.Image | None:
        """Return a stored image; None where it is not stored."""
        entry = self._entries.get(key)
        if entry is None or self._file is None:
            return None
        offset, width, height = entry
        return Image.frombytes("RGB", (width, height), os.pread(self._file.fileno(), 3 * width * height, offset))

    def close(self) -> None:
        """Free the space on the disk."""
        self._entries.clear()
        if self._file is not None:
            self._file.close()
            self._file = None


@dataclass(frozen=True, slots=True)
class ImageCache:
    """The distinct images of a set of pairs, the first of them cached in memory, further ones on disk."""

    sources: tuple[ImageSource, ...]  # where each image is
    content_hashes: tuple[str, ...]  # of each image's bytes
    perceptual_hashes: PerceptualHashes  # of each image, to find near-duplicates by
    duplicate_groups: Ids  # of each image, the first one that it is a near-duplicate of, or itself
    image_of_pair: Ids  # -1 where the image cannot be read or the pair has no caption
    in_memory: Mapping[str, Image.Image]  # resized images by content hash
    skipped: tuple[Skipped, ...]  # what cannot be used, and why
    disk: DiskCache | None = None  # further resized images by content hash

    @property
    def is_complete(self) -> bool:
        """Whether no image has to be decoded again."""
        return len(self.in_memory) + (0 if self.disk is None else len(self.disk)) == len(self.sources)

    def crop(self, image: int, transform: "TrainTransform", draws: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Return a random resized crop of an image, bytes (height, width, 3).

        Raises:
            TrainingError: it can no longer be read.
        """
        key = self.content_hashes[image]
        resized = self.in_memory.get(key)
        if resized is None and self.disk is not None:
            resized = self.disk.get(key)
        if resized is None:
            resized = transform.resize(reopen_image(self.sources[image], size=transform.decoded_side))
        return transform.random_resized_crop(resized, draws)


def reopen_image(source: ImageSource, *, size: int) -> Image.Image:
    """Return an image that could be read when the cache was built, as `open_image` does.

    Raises:
        TrainingError: it can no longer be read.
    """
    try:
        return open_image(source.read(), size=size)
    except RetrievalError as error:
        raise TrainingError(
            f"{source.name} could be read before training, but now it {error}. Put it back and resume."
        ) from error


def build_image_cache(
    pairs: Sequence[Pair],
    transform: "TrainTransform",
    *,
    cache_bytes: int,
    disk: DiskCache | None = None,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ImageCache:
    """Read the image of every captioned pair once, on threads: damaged ones are known before training starts.

    Resized images take up to `cache_bytes` of memory; `disk` stores the others. `threads` are one a core where None;
    `progress` is called with (done, total) after each file.
    """
    captioned = np.array([any(map(str.strip, pair.captions)) for pair in pairs], np.bool_)
    in_memory: dict[str, Image.Image] = {}
    perceptual_hashes: dict[str, PerceptualHashes] = {}
    memory_left = cache_bytes

    def receive(content_hash: str, prepared: tuple[PerceptualHashes, Image.Image]) -> None:
        nonlocal memory_left
        perceptual_hashes[content_hash], resized = prepared
        memory_left -= 4 * resized.width * resized.height  # Pillow takes four bytes a pixel
        if memory_left >= 0:
            in_memory[content_hash] = resized
        elif disk is not None:
            disk.put(content_hash, resized)

    images = read_distinct_images(
        [pairs[place].image for place in np.flatnonzero(captioned).tolist()],
        lambda files, wanted: read_images(
            files,
            lambda image: (hash_image(image), transform.resize(image)),
            size=transform.decoded_side,
            wanted=wanted,
            threads=threads,
        ),
        receive=receive,
        progress=progress,
    )
    image_of_pair = np.full(len(pairs), -1)
    image_of_pair[captioned] = images.numbers
    failures = [Skipped(source.name, reason) for source, reason in images.failures]
    uncaptioned = [
        Skipped(pair.image.name, "has no caption to learn from")
        for pair, used in zip(pairs, captioned, strict=True)
        if not used
    ]
    hashes = np.array([perceptual_hashes[content] for content in images.contents], PERCEPTUAL_HASH)
    return ImageCache(
        sources=images.sources,
        content_hashes=images.contents,
        perceptual_hashes=hashes,
        duplicate_groups=group_near_duplicates(hashes),
        image_of_pair=image_of_pair,
        in_memory=in_memory,
        skipped=(*failures, *uncaptioned),
        disk=disk,
    )
