"""The `Encoder` protocol: pictures and texts to unit rows of one space. How to load one, and how to feed it files."""

import re
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import EncoderError, ImageError
from retrieval.images import ImageSource
from retrieval.images.pipeline import ReadImage, Wanted, read_images

if TYPE_CHECKING:
    from PIL import Image

DEVICES = ("auto", "cpu", "cuda")
STARTER = "starter"
"""The model that comes with the package: what is taken where none is named."""
WAYS = "starter, a run folder, an open_clip name/tag such as ViT-B-32-256/datacomp_s34b_b86k, or hf-hub:org/model"

# Known or unreadable pictures never fill a batch: after so many, what there is goes out, so that progress shows.
_LONGEST_RUN = 1024


class Encoder(Protocol):
    """Texts, or pictures, to rows of one shared space: float32, `(n, dimension)`, each of unit length.

    Every method may be called from several threads. `prepare` runs in parallel; the others take turns.

    Attributes:
        name: What `load_encoder` takes to load the same encoder again: an absolute folder, "starter", name/tag, or
            hf-hub:name.
        dimension: Length of a row.
        device: "cpu" or "cuda".
        image_size: Least side in pixels that the preprocessing needs of a picture: decode it no smaller.
        batch_size: Pictures to encode at a time on this device.
    """

    name: str
    dimension: int
    device: str
    image_size: int
    batch_size: int

    @property
    def image_fingerprint(self) -> str:
        """Hexadecimal hash of the image tower and its preprocessing: equal where pictures give the same rows."""
        ...

    @property
    def text_fingerprint(self) -> str:
        """Hexadecimal hash of the text tower and its tokenizer: equal where texts give the same rows."""
        ...

    def prepare(self, image: "Image.Image") -> Any:
        """Return what `encode_prepared` takes for one upright RGB picture, as `open_image` returns it."""
        ...

    def encode_prepared(self, prepared: Sequence[Any]) -> NDArray[np.float32]:
        """Return one row for each prepared picture.

        Raises:
            EncoderError: A picture's row is zero or not finite; the message says which.
        """
        ...

    def encode_images(self, images: Sequence["Image.Image"]) -> NDArray[np.float32]:
        """Return one row for each picture; raises as `encode_prepared` does."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one row for each text, what exceeds the context cut off; raises as `encode_prepared` does."""
        ...


@dataclass(frozen=True, slots=True)
class EmbeddedBatch:
    """What became of the next sources, in their order; each source is in one of the three tuples.

    Attributes:
        positions: Which source, counted from 0, each row belongs to; ascending.
        contents: The content hash of the picture that each row is of.
        rows: `(len(positions), dimension)`, float32, of unit length.
        failures: The sources that could not be read, each with the reason.
        unwanted: The sources that the caller did not want: neither decoded nor encoded.
    """

    positions: tuple[int, ...]
    contents: tuple[str, ...]
    rows: NDArray[np.float32]
    failures: tuple[tuple[int, ImageError], ...]
    unwanted: tuple[int, ...]


def load_encoder(name: str | Path = STARTER, *, device: str = "auto") -> Encoder:
    """Load a dual encoder, in eval mode, with its own preprocessing and tokenizer.

    Args:
        name: In this order: "starter", which comes with the package; an existing folder in open_clip's layout
            (`open_clip_config.json` beside `open_clip_model.safetensors`, as training and `save_run` write it); an
            open_clip name/tag; or "hf-hub:org/model".
        device: "cpu", "cuda", or "auto": the GPU where there is one.

    Raises:
        EncoderError: No such model, it cannot be loaded, the hub that has it is out of reach, or no such device.
    """
    _check_request(str(name), device)
    from retrieval.encoder.open_clip_encoder import OpenClipEncoder, open_checkpoint, usable_device

    usable = usable_device(device)
    return OpenClipEncoder(open_checkpoint(str(name)), device=usable)


def describe_encoder(name: str | Path) -> dict[str, Any]:
    """Load the encoder on the CPU and return what there is to know about it, as JSON values."""
    encoder = load_encoder(name, device="cpu")
    shown = ("name", "dimension", "image_size", "image_fingerprint", "text_fingerprint")
    about = {"about": _card()} if name == STARTER else {}
    return {attribute: getattr(encoder, attribute) for attribute in shown} | about


def _card() -> str:
    """What the starter's card says first, below its heading."""
    card = (files("retrieval") / STARTER / "README.md").read_text(encoding="utf-8")
    return " ".join(card.split("\n\n")[1].split())


def embed_images(
    encoder: Encoder,
    sources: Iterable[ImageSource],
    *,
    wanted: Wanted | None = None,
    threads: int | None = None,
) -> Generator[EmbeddedBatch, None, None]:
    """Encode pictures from where they lie, decoding ahead on threads, in order and in bounded memory.

    Held at a time are the prepared pictures of three batches at most, so `sources` may be endless. Close the iterator
    (`contextlib.closing`) where it is not exhausted: that stops its threads.

    On a CPU start the process with OMP_WAIT_POLICY=PASSIVE in its environment, as the command line does. Otherwise
    torch's threads spin while they wait, and take the cores from the threads that decode and from other processes: on
    two busy cores encoding was three times slower.

    Args:
        encoder: What turns pictures into rows.
        sources: Where the pictures are; taken one by one in the caller's thread.
        wanted: As for `retrieval.images.pipeline.read_images`: called on the decoding threads with each source's
            number and content hash; where it returns False the picture is neither decoded nor encoded.
        threads: How many decode; one a core where it is None.
    """
    images = read_images(
        sources,
        encoder.prepare,
        size=encoder.image_size,
        wanted=wanted,
        threads=threads,
        depth=2 * encoder.batch_size,
    )
    with closing(images):
        for run in _runs(images, encoder.batch_size):
            yield _embedded(encoder, run)


def _runs(images: Iterable[ReadImage[Any]], size: int) -> Iterator[list[ReadImage[Any]]]:
    """Cut the images into runs that hold `size` prepared pictures each, or many of the others."""
    run: list[ReadImage[Any]] = []
    pictures = 0
    for image in images:
        run.append(image)
        pictures += image.prepared is not None
        if pictures == size or len(run) >= max(size, _LONGEST_RUN):
            yield run
            run, pictures = [], 0
    if run:
        yield run


def _embedded(encoder: Encoder, run: list[ReadImage[Any]]) -> EmbeddedBatch:
    pictures = [image for image in run if image.prepared is not None]
    rows, refused = _encode(encoder, [image.prepared for image in pictures])
    encoded = [image for place, image in enumerate(pictures) if place not in refused]
    failures = [(image.number, image.error) for image in run if image.error is not None]
    failures += [(pictures[place].number, error) for place, error in refused.items()]
    return EmbeddedBatch(
        positions=tuple(image.number for image in encoded),
        contents=tuple(image.content or "" for image in encoded),
        rows=rows,
        failures=tuple(sorted(failures, key=lambda failure: failure[0])),
        unwanted=tuple(image.number for image in run if image.prepared is None and image.error is None),
    )


def _encode(encoder: Encoder, prepared: list[Any]) -> tuple[NDArray[np.float32], dict[int, ImageError]]:
    """Encode a batch; where the encoder refuses it, one by one, so that a bad picture takes no other with it."""
    try:
        return encoder.encode_prepared(prepared), {}
    except EncoderError:
        rows, refused = [], {}
    for place, picture in enumerate(prepared):
        try:
            rows.append(encoder.encode_prepared([picture]))
        except EncoderError as error:
            refused[place] = ImageError(str(error))
    return np.concatenate([encoder.encode_prepared([]), *rows]), refused


def _check_request(name: str, device: str) -> None:
    """Refuse what cannot work before the seconds that importing torch takes."""
    if device not in DEVICES:
        raise EncoderError(f"there is no device {device!r}; take one of {', '.join(DEVICES)}")
    if name and Path(name).is_dir():
        return
    if re.search(r"[\\/]$|^[./~]|^$", name):
        raise EncoderError(f"there is no model folder {name!r}; name {WAYS}")
