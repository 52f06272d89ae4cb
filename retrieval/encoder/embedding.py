"""Feed image files to an encoder: decoded ahead on threads, encoded in batches, in order and in bounded memory."""

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from retrieval.encoder import Encoder
from retrieval.errors import EncoderError, ImageError
from retrieval.images import ImageSource
from retrieval.images.pipeline import ReadImage, Wanted, read_images
from retrieval.memory import retain_freed_memory

EmbeddedImage: TypeAlias = ReadImage[NDArray[np.float32]]
"""What became of one source: its row, `(dimension,)`, in `prepared`; or an error; or neither, if it was not wanted."""

# Unwanted or unreadable images never fill a batch: a list of this many is yielded anyway, so that progress shows.
_MAX_LIST = 1024


def embed_images(
    encoder: Encoder, sources: Iterable[ImageSource], *, wanted: Wanted | None = None, threads: int | None = None
) -> Generator[list[EmbeddedImage], None, None]:
    """Yield what became of the sources, in order, a batch of the encoder at a time.

    At most three batches of prepared images are held at a time, so `sources` may be endless. Close the iterator
    (`contextlib.closing`) where it is not exhausted: that stops its threads.

    On a CPU start the process with OMP_WAIT_POLICY=PASSIVE in its environment, as the command line does. Otherwise
    torch's threads spin while they wait, and take the cores from the threads that decode and from other processes: on
    two busy cores encoding was three times slower.

    Args:
        encoder: Encodes the images; an image that it refuses becomes an error and affects no other.
        sources: The images; taken one by one in the caller's thread.
        wanted: As for `retrieval.images.pipeline.read_images`: called on the decoding threads with each source's
            number and content hash; where it returns False the image is neither decoded nor encoded.
        threads: Number of decoding threads; one a core where it is None.
    """
    if encoder.device == "cpu":
        retain_freed_memory()
    depth = 2 * encoder.batch_size
    images = read_images(sources, encoder.prepare, size=encoder.image_size, wanted=wanted, threads=threads, depth=depth)
    with closing(images):
        for batch in _batch_images(images, encoder.batch_size):
            try:
                rows = iter(encoder.encode_prepared([image.prepared for image in batch if image.prepared is not None]))
            except EncoderError:
                yield [image if image.prepared is None else _encode_alone(encoder, image) for image in batch]
            else:
                yield [image if image.prepared is None else replace(image, prepared=next(rows)) for image in batch]


def _batch_images(images: Iterable[ReadImage[Any]], size: int) -> Iterator[list[ReadImage[Any]]]:
    """Split the images into lists that hold `size` prepared ones each, or many others."""
    batch: list[ReadImage[Any]] = []
    prepared = 0
    for image in images:
        batch.append(image)
        prepared += image.prepared is not None
        if prepared == size or len(batch) >= max(size, _MAX_LIST):
            yield batch
            batch, prepared = [], 0
    if batch:
        yield batch


def _encode_alone(encoder: Encoder, image: ReadImage[Any]) -> EmbeddedImage:
    try:
        return replace(image, prepared=encoder.encode_prepared([image.prepared])[0])
    except EncoderError as error:
        return replace(image, prepared=None, error=ImageError(str(error)))
