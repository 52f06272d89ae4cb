"""The one way from many files to prepared pictures: each distinct picture is decoded once, ahead on threads.

* `read_images` is for a stream, such as the items of a build: it yields what became of each file, in order, and a
  callback decides by content hash which pictures are decoded.
* `read_distinct_images` is for a set of files, such as training pairs: every prepared picture goes to a callback, and
  the function returns which file shows which picture.

Files of equal bytes are one picture, named by `content_hash`. An unreadable file is reported with its reason and never
stops the others.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from retrieval.concurrency import prefetch_map
from retrieval.errors import ImageError, RetrievalError
from retrieval.hashing import content_hash
from retrieval.images import open_image
from retrieval.images.sources import ImageSource

if TYPE_CHECKING:
    from PIL import Image

Prepared = TypeVar("Prepared")
Prepare: TypeAlias = "Callable[[Image.Image], Prepared]"
Wanted: TypeAlias = Callable[[int, str], bool]
Progress: TypeAlias = Callable[[int, int], None]
Read: TypeAlias = "Callable[[list[ImageSource], Wanted], Generator[ReadImage[Prepared], None, None]]"


@dataclass(frozen=True, slots=True)
class ReadImage(Generic[Prepared]):
    """The outcome of one source."""

    number: int  # the source, counted from 0
    content: str | None  # the content hash; None where the bytes cannot be read
    prepared: Prepared | None = None  # what `prepare` returned; None for an unreadable or unwanted picture
    error: ImageError | None = None  # why the picture is unreadable


@dataclass(frozen=True, slots=True)
class DistinctImages:
    """The distinct pictures of a list of sources, numbered in the order in which the sources first show them."""

    sources: tuple[ImageSource, ...]  # the first source of each picture
    contents: tuple[str, ...]  # the content hash of each picture
    numbers: NDArray[np.int64]  # (s,), the picture that each of the s given sources shows; -1 for an unreadable one
    failures: tuple[tuple[ImageSource, str], ...]  # each unreadable file, once, with the reason


def read_images(
    sources: Iterable[ImageSource],
    prepare: "Prepare[Prepared]",
    *,
    size: int | None,
    wanted: Wanted | None = None,
    threads: int | None = None,
    depth: int | None = None,
) -> Generator[ReadImage[Prepared], None, None]:
    """Yield the outcome of each source, in order, read and decoded ahead on threads.

    At most `depth` results are held at a time, so `sources` may be endless. Close the iterator (`contextlib.closing`)
    where it is not exhausted: that stops its threads.

    Args:
        sources: Taken one by one on the caller's thread.
        prepare: Called on the threads with each decoded picture, upright and RGB; a RetrievalError that it raises is
            that picture's failure.
        size: The least side in pixels that is needed, as for `open_image`.
        wanted: Called on the threads with the number of a source and its content hash; where it returns False the
            picture is not decoded. An error that it raises ends the iteration.
        threads: One a core where it is None.
        depth: As for `prefetch_map`.
    """

    def read(numbered: tuple[int, ImageSource]) -> ReadImage[Prepared]:
        number, source = numbered
        try:
            data = source.read()
        except ImageError as error:
            return ReadImage(number, None, error=error)
        content = content_hash(data)
        if wanted is not None and not wanted(number, content):
            return ReadImage(number, content)
        try:
            return ReadImage(number, content, prepared=prepare(open_image(data, size=size)))
        except RetrievalError as error:
            return ReadImage(number, content, error=ImageError(str(error)))

    return prefetch_map(read, enumerate(sources), threads=threads, depth=depth)


def read_distinct_images(
    sources: Sequence[ImageSource],
    read: "Read[Prepared]",
    *,
    receive: Callable[[str, Prepared], None],
    progress: Progress | None = None,
) -> DistinctImages:
    """Read each file once and decode each distinct picture once; return which source shows which picture.

    Args:
        sources: Sources of one file (same path and member) are read once.
        read: Called with the files and `wanted`; a call of `read_images`, perhaps with more work on what that yields.
        receive: Called on the caller's thread with the content hash of each picture and its `prepared`.
        progress: Called with (done, total) after each file.
    """
    keys = [(source.path, source.member) for source in sources]
    files: dict[tuple[object, ...], ImageSource] = {}
    for key, source in zip(keys, sources, strict=True):
        files.setdefault(key, source)
    decoded: dict[str, int] = {}  # by content hash, the file that is decoded, whichever thread comes first
    images: list[ReadImage[Prepared]] = []

    def is_first(number: int, content: str) -> bool:
        return decoded.setdefault(content, number) == number

    with closing(read(list(files.values()), is_first)) as found:
        for image in found:
            if image.prepared is not None and image.content is not None:
                receive(image.content, image.prepared)
            images.append(replace(image, prepared=None))
            if progress is not None:
                progress(len(images), len(files))
    reasons = [images[decoded.get(image.content or "", image.number)].error for image in images]
    first: dict[str, ImageSource] = {}
    for file, image, reason in zip(files.values(), images, reasons, strict=True):
        if reason is None and image.content is not None:
            first.setdefault(image.content, file)
    place = {content: number for number, content in enumerate(first)}
    number_of_file = {key: place.get(image.content or "", -1) for key, image in zip(files, images, strict=True)}
    return DistinctImages(
        sources=tuple(first.values()),
        contents=tuple(first),
        numbers=np.array([number_of_file[key] for key in keys], np.int64),
        failures=tuple((file, str(why)) for file, why in zip(files.values(), reasons, strict=True) if why is not None),
    )
