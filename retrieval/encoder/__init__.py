"""The `Encoder` protocol: images and texts to unit rows of one space. How to load one, and how to add one."""

import re
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import EncoderError

if TYPE_CHECKING:
    from PIL import Image

DEVICES = ("auto", "cpu", "cuda")
STARTER = "starter"
"""The model that comes with the package: the default wherever a model is named."""
ENTRY_POINTS = "retrieval.encoders"


class Encoder(Protocol):
    """Encodes texts and images to rows of one shared space: float32, `(n, dimension)`, each of unit length.

    Callers call every method from several threads at once: the encoder locks its model where that takes one call at a
    time, and `prepare` holds no lock. No inputs give `(0, dimension)`.

    To add one, an ONNX encoder say: a class with these members, and a `Loader` that returns it. In this package the
    loader goes into `LOADERS`, before the last, which takes every name. Another package declares it in its
    pyproject.toml, and `load_encoder("onnx:NAME")` then calls it with the whole name:

        [project.entry-points."retrieval.encoders"]
        onnx = "my_package:load"

    `retrieval.testing.encoders.check_encoder` tests what every encoder must do.
    """

    name: str  # what `load_encoder` takes to load the same encoder again; a folder is absolute
    dimension: int  # length of a row
    device: str  # "cpu" or "cuda", never "auto"
    image_size: int  # least side in pixels that the preprocessing needs of an image: decode it no smaller
    batch_size: int  # images to encode at a time on this device

    @property
    def image_fingerprint(self) -> str:
        """Hexadecimal hash of the image tower and its preprocessing: equal where images get the same rows."""

    @property
    def text_fingerprint(self) -> str:
        """Hexadecimal hash of the text tower and its tokenizer: equal where texts get the same rows."""

    def prepare(self, image: "Image.Image") -> Any:
        """Return what `encode_prepared` takes for one upright RGB image, as `open_image` returns it."""

    def encode_prepared(self, prepared: Sequence[Any]) -> NDArray[np.float32]:
        """Return one row for each prepared image; an EncoderError says whose row is zero or not finite."""

    def encode_images(self, images: Sequence["Image.Image"]) -> NDArray[np.float32]:
        """Return one row for each image; raises as `encode_prepared` does."""

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one row for each text, truncated to the context length; raises as `encode_prepared` does."""


Loader: TypeAlias = Callable[[str, str], Encoder | None]
"""A function of (name, device) that returns the encoder, or None where the name is not of its form.

It decides itself what "auto" means, without torch where it needs none: an encoder that runs on CPUs only takes "auto"
for "cpu", and raises an EncoderError for "cuda".
"""


def load_encoder(name: str | Path = STARTER, *, device: str = "auto") -> Encoder:
    """Load a dual encoder, in eval mode, with its own preprocessing and tokenizer.

    Args:
        name: The first that it is of: "starter", which comes with the package; an existing folder, as training and
            `save_run` write it; a name of another loader of `LOADERS`, "SCHEME:..." of an installed package that
            declares the entry point SCHEME say; "hf-hub:org/model"; or an open_clip name/tag.
        device: "cpu", "cuda", or "auto": the GPU where there is one.

    An EncoderError if there is no such model or device, it cannot be loaded, or its hub is out of reach.
    """
    if device not in DEVICES:
        raise EncoderError(f"There is no device {device!r}. Use one of {', '.join(DEVICES)}.")
    encoders = (load(str(name), device) for load in LOADERS)
    return next(encoder for encoder in encoders if encoder is not None)


def describe_encoder(name: str | Path) -> dict[str, Any]:
    """Load the encoder on the CPU and return its attributes as JSON values, with the model card of the starter."""
    encoder = load_encoder(name, device="cpu")
    attributes = ("name", "dimension", "image_size", "image_fingerprint", "text_fingerprint")
    description = {attribute: getattr(encoder, attribute) for attribute in attributes}
    if name == STARTER:
        card = (files("retrieval") / STARTER / "README.md").read_text(encoding="utf-8")
        description["about"] = " ".join(card.split("\n\n")[1].split())  # the paragraph below the heading
    return description


def _load_plugin(name: str, device: str) -> Encoder | None:
    """Load SCHEME:... by the entry point SCHEME, looked up for such a name only, and for no existing folder."""
    scheme, colon, _ = name.partition(":")
    if not colon or Path(name).is_dir():
        return None
    from importlib.metadata import entry_points

    plugins = tuple(entry_points(group=ENTRY_POINTS, name=scheme))
    if not plugins:
        return None
    try:
        load = plugins[0].load()
    except Exception as error:  # any module can fail at import
        raise EncoderError(f"The encoder plugin {plugins[0].value} cannot be imported: {error}.") from error
    encoder: Encoder = load(name, device)
    return encoder


def _load_open_clip(name: str, device: str) -> Encoder:
    """Load any model of open_clip; refuse an impossible name before the seconds that importing torch takes."""
    if re.search(r"[\\/]$|^[./~]|^$", name) and not (name and Path(name).is_dir()):
        raise EncoderError(
            f"There is no model folder {name!r}. Name starter, a run folder, an open_clip name/tag such as "
            "ViT-B-32-256/datacomp_s34b_b86k, or hf-hub:org/model."
        )
    from retrieval.encoder.open_clip_encoder import OpenClipEncoder, open_checkpoint, resolve_device

    resolved = resolve_device(device)
    return OpenClipEncoder(open_checkpoint(name), device=resolved)


LOADERS: Final[tuple[Loader, ...]] = (_load_plugin, _load_open_clip)
"""Tried in this order; the last one takes every name: put a new one before it, and leave existing folders to it."""
