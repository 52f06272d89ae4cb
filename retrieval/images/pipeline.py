"""The one way from many files to prepared pictures: each distinct picture is decoded once, ahead on threads.

* `read_distinct_images` is for a set of files that is read as a whole (training pairs, validation pairs): every
  prepared picture goes to a callback as soon as it is decoded, and the function returns which file shows which picture.
* `read_images` is for a stream (the batches of an encoder, the items of a build): it yields what became of each file in
  order, and a callback decides by content hash which pictures are worth decoding. `Deduplicator.is_first` is such a
  callback, with which a caller of `read_images` or of `retrieval.encoder.embed_images` decodes equal pictures once.

A picture is its bytes: files with equal bytes are one picture, named by `content_hash`. A file that cannot be read is
reported with its reason and never stops the others.
"""

import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class ReadImage(Generic[Prepared]):
    """What became of one source.

    Attributes:
        number: Which source, counted from 0.
        content: The content hash; None where the bytes cannot be read.
        prepared: What `prepare` returned; None where the picture cannot be read or was not wanted.
        error: Why the picture cannot be read; None where it can.
    """

    number: int
    content: str | None
    prepared: Prepared | None = None
    error: ImageError | None = None


@dataclass(frozen=True, slots=True)
class DistinctImages:
    """The distinct pictures of a list of sources, numbered in the order in which the sources first show them.

    Attributes:
        sources: The first source of each picture.
        contents: The content hash of each picture.
        numbers: (s,), which picture each of the s given sources shows; -1 for one that cannot be read.
        failures: Each file that cannot be read, once, with the reason.
    """

    sources: tuple[ImageSource, ...]
    contents: tuple[str, ...]
    numbers: NDArray[np.int64]
    failures: tuple[tuple[ImageSource, str], ...]


def read_images(
    sources: Iterable[ImageSource],
    prepare: "Prepare[Prepared]",
    *,
    size: int | None,
    wanted: Wanted | None = None,
    threads: int | None = None,
    depth: int | None = None,
) -> Generator[ReadImage[Prepared], None, None]:
    """Yield what becomes of each source, in order, read and decoded ahead on threads.

    At most `depth` results are held at a time, so `sources` may be endless. Close the iterator (`contextlib.closing`)
    where it is not exhausted: that stops its threads.

    Args:
        sources: Where the pictures are; taken one by one on the caller's thread.
        prepare: Called on the threads with each decoded picture, upright and RGB; a RetrievalError that it raises is
            that picture's failure.
        size: The least side in pixels that is needed, as for `open_image`.
        wanted: Called on the threads with the number of a source and its content hash before the picture is decoded;
            where it returns False the picture is not decoded. An error that it raises ends the iteration.
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
    sources: Iterable[ImageSource],
    prepare: "Prepare[Prepared]",
    *,
    size: int | None,
    receive: Callable[[str, Prepared], None],
    threads: int | None = None,
    progress: Progress | None = None,
) -> DistinctImages:
    """Read each file once and decode each distinct picture once; return which source shows which picture.

    Args:
        sources: Where the pictures are. Sources of one file (same path and member) are read once.
        prepare: As for `read_images`.
        size: As for `read_images`.
        receive: Called on the caller's thread with the content hash of each picture and what `prepare` returned for it.
        threads: As for `read_images`.
        progress: Called with (done, total) after each file.
    """
    images = Deduplicator(sources)
    outcomes = read_images(images.files, prepare, size=size, wanted=images.is_first, threads=threads)
    with closing(outcomes):
        for done, outcome in enumerate(outcomes, start=1):
            if outcome.error is not None:
                images.add_failure(outcome.number, outcome.error)
            elif outcome.prepared is not None and outcome.content is not None:
                receive(outcome.content, outcome.prepared)
            if progress is not None:
                progress(done, len(images.files))
    return images.distinct()


class Deduplicator:
    """Decides which of several equal pictures is decoded, and afterwards numbers the pictures.

    Attributes:
        files: The given sources, those of one file (same path and member) once.
    """

    def __init__(self, sources: Iterable[ImageSource]) -> None:
        """Take the sources in the order in which their pictures are to be numbered."""
        files: dict[tuple[object, ...], int] = {}
        self.files: list[ImageSource] = []
        self._file_of_source: list[int] = []
        for source in sources:
            number = files.setdefault((source.path, source.member), len(files))
            self._file_of_source.append(number)
            if number == len(self.files):
                self.files.append(source)
        self._contents: list[str | None] = [None] * len(self.files)
        self._decoded_file: dict[str, int] = {}
        self._reasons: dict[int, str] = {}
        self._lock = threading.Lock()

    def is_first(self, number: int, content: str) -> bool:
        """Record the content hash of a file; return whether no equal file came before. Threads may call it."""
        with self._lock:
            self._contents[number] = content
            return self._decoded_file.setdefault(content, number) == number

    def add_failure(self, number: int, error: ImageError) -> None:
        """Record that a file cannot be read, and with it every equal one."""
        self._reasons[number] = str(error)

    def distinct(self) -> DistinctImages:
        """Return the distinct pictures, once all files are read."""
        sources: list[ImageSource] = []
        failures: list[tuple[ImageSource, str]] = []
        numbers: dict[str, int] = {}
        number_of_file: list[int] = []
        for number, (file, content) in enumerate(zip(self.files, self._contents, strict=True)):
            decoded = number if content is None else self._decoded_file[content]
            if decoded in self._reasons:
                failures.append((file, self._reasons[decoded]))
                number_of_file.append(-1)
                continue
            assert content is not None  # noqa: S101 - a file without a content has a failure
            number_of_file.append(numbers.setdefault(content, len(numbers)))
            if len(numbers) > len(sources):
                sources.append(file)
        return DistinctImages(
            sources=tuple(sources),
            contents=tuple(numbers),
            numbers=np.array(number_of_file, np.int64)[self._file_of_source],
            failures=tuple(failures),
        )
