"""The `Encoder` protocol: images and texts to unit rows of one space. How to load one, and how to add one."""

import logging
import os
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from index.device import count_gpus
from retrieval.encoder.model_folders import STARTER, find_model_folder
from retrieval.errors import EncoderError
from retrieval.extras import require_extra

if TYPE_CHECKING:
    from PIL import Image

    from retrieval.encoder.onnx.files import Export

__all__ = [
    "DEVICES",
    "ENGINES",
    "ENGINE_VARIABLE",
    "ENTRY_POINTS",
    "LOADERS",
    "STARTER",
    "Encoder",
    "Loader",
    "describe_encoder",
    "load_encoder",
]

DEVICES = ("auto", "cpu", "cuda")
ENGINES = ("auto", "torch", "onnx")
ENGINE_VARIABLE = "RETRIEVAL_ENGINE"
ENTRY_POINTS = "retrieval.encoders"

_logger = logging.getLogger(__name__)


class Encoder(Protocol):
    """Encodes texts and images to rows of one shared space: float32, `(n, dimension)`, each of unit length.

    Callers call every method from several threads at once: the encoder locks its model where that takes one call at a
    time, and `prepare` holds no lock. No inputs give `(0, dimension)`.

    To add one, of an API say: a class with these members, and a `Loader` that returns it. In this package the loader
    goes into `LOADERS`. Another package declares it in its pyproject.toml, and `load_encoder("api:NAME")` then calls it
    with the whole name:

        [project.entry-points."retrieval.encoders"]
        api = "my_package:load"

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


def load_encoder(
    name: str | Path = STARTER, *, device: str = "auto", engine: str | None = None, export: bool = False
) -> Encoder:
    """Load a dual encoder, in eval mode, with its own preprocessing and tokenizer.

    Args:
        name: The first that it is of: "starter", which comes with the package; an existing folder, as training and
            `save_run` write it; a name of another loader of `LOADERS`, "SCHEME:..." of an installed package that
            declares the entry point SCHEME say; "hf-hub:org/model"; or an open_clip name/tag.
        device: "cpu", "cuda", or "auto": the GPU where there is one.
        engine: "torch"; "onnx", which runs exported models on the CPU without torch, two to three times as fast; or
            "auto": onnx on a CPU where the model has a current export, else torch. None takes RETRIEVAL_ENGINE, and
            "auto" where that is not set. A plug-in's encoder is its own engine.
        export: Export a model that has no current export, where one would be used; that takes torch, and a minute.

    An EncoderError if there is no such model, device or engine, it cannot be loaded, or its hub is out of reach; a
    MissingPackageError if it needs torch, and torch is not installed.
    """
    engine = engine or os.environ.get(ENGINE_VARIABLE) or "auto"
    for value, known, what in ((device, DEVICES, "device"), (engine, ENGINES, "engine")):
        if value not in known:
            raise EncoderError(f"There is no {what} {value!r}. Use one of {', '.join(known)}.")
    for load in LOADERS:
        encoder = load(str(name), device)
        if encoder is not None:
            return encoder
    return _load_open_clip(str(name), device, engine=engine, export=export)


def describe_encoder(name: str | Path) -> dict[str, Any]:
    """Load the encoder on the CPU and return its attributes as JSON values, with the model card of the starter."""
    encoder = load_encoder(name, device="cpu")
    attributes = ("name", "dimension", "image_size", "image_fingerprint", "text_fingerprint")
    description = {attribute: getattr(encoder, attribute) for attribute in attributes}
    if name == STARTER:
        folder = Path(str(find_model_folder(STARTER)))
        card = (folder / "README.md").read_text(encoding="utf-8")
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


LOADERS: Final[tuple[Loader, ...]] = (_load_plugin,)
"""Tried in this order, before open_clip, which takes every other name: leave existing folders to it."""


def _load_open_clip(name: str, device: str, *, engine: str, export: bool) -> Encoder:
    """Load any model of open_clip; refuse an impossible name before the seconds that importing torch takes."""
    if re.search(r"[\\/]$|^[./~]|^$", name) and find_model_folder(name) is None:
        raise EncoderError(
            f"There is no model folder {name!r}. Name starter, a run folder, an open_clip name/tag such as "
            "ViT-B-32-256/datacomp_s34b_b86k, or hf-hub:org/model."
        )
    if engine == "onnx" and device == "cuda":
        raise EncoderError("The engine onnx runs on the CPU. Use engine torch or auto with device cuda.")
    uses_onnx = engine == "onnx" or (engine == "auto" and not _may_use_gpu(device))
    found = _find_export(name, log=not export) if uses_onnx else None
    if found is None:
        with _require_torch(name, device=device, uses_onnx=uses_onnx):
            from retrieval.encoder.open_clip_encoder import OpenClipEncoder, open_checkpoint, resolve_device

        if engine == "onnx" and not export:
            raise EncoderError(
                f"{name} has no current ONNX export. Run `retrieval model export {name}`, or use engine auto."
            )
        resolved, checkpoint = resolve_device(device), open_checkpoint(name)
        found = _export(name, checkpoint, required=engine == "onnx") if uses_onnx and export else None
        if found is None:
            return OpenClipEncoder(checkpoint, device=resolved)
    from retrieval.encoder.onnx.encoder import OnnxEncoder

    folder = find_model_folder(name)
    return OnnxEncoder(name if name == STARTER or folder is None else str(folder), found)


def _may_use_gpu(device: str) -> bool:
    """Whether torch is to decide about the device: where it is named "cuda", or there is a GPU and torch."""
    return device == "cuda" or (device == "auto" and count_gpus() > 0 and find_spec("torch") is not None)


def _find_export(name: str, *, log: bool) -> "Export | None":
    from retrieval.encoder.onnx.files import find_export

    return find_export(name, log=log)


def _require_torch(name: str, *, device: str, uses_onnx: bool) -> AbstractContextManager[None]:
    """Say what torch is needed for, and how it is installed, where its import fails in the block."""
    if device == "cuda":
        return require_extra("gpu", "Encoding on a GPU")
    return require_extra("train", f"{name}, which has no current ONNX export," if uses_onnx else "The engine torch")


def _export(name: str, checkpoint: Any, *, required: bool) -> "Export | None":
    """Export an opened model; None, with the reason logged, where that fails and is not required."""
    try:
        from retrieval.encoder.onnx.export import export_model

        return export_model(name, checkpoint)
    except (EncoderError, OSError, ImportError) as error:
        if required:
            raise EncoderError(f"{name} cannot be exported to ONNX: {error}") from error
        _logger.warning("torch runs the model %s, which cannot be exported to ONNX: %s", name, error)
        return None
