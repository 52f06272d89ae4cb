"""An exported model whose full batches of images torch encodes, on CPUs that multiply matrices of bfloat16 fast."""

from collections.abc import Callable, Sequence
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retrieval.encoder.features import Array
from retrieval.encoder.onnx.encoder import OnnxEncoder
from retrieval.encoder.onnx.files import Export

if TYPE_CHECKING:
    from PIL import Image

    from retrieval.encoder import Encoder

_BATCH_SIZE = 16  # of the torch encoder: full ones it encodes in bfloat16
_MIN_PARAMETERS = 10_000_000  # of an image tower, from where on the torch encoder takes bfloat16
_MIN_BATCHES = 4  # to encode before torch, which takes some three seconds to load, is worth it


class Bfloat16Encoder(OnnxEncoder):
    """An `OnnxEncoder` that hands full batches of images to the torch encoder of the same model, after the first few.

    With AMX torch takes 45 ms for a picture of ViT-B/32 on one core, in bfloat16, and ONNX Runtime 121, in float32. All
    else, and so searching and small builds, stays with ONNX Runtime.
    """

    batch_size = _BATCH_SIZE

    def __init__(self, name: str, export: Export, *, load_torch: "Callable[[], Encoder]") -> None:
        """Take what `OnnxEncoder` does, and a function that loads the torch encoder."""
        super().__init__(name, export)
        self.batch_size = _BATCH_SIZE
        self._load_torch = load_torch
        self._full_batches = 0

    @cached_property
    def _torch_encoder(self) -> "Encoder":
        return self._load_torch()

    def encode_prepared(self, prepared: Sequence[NDArray[np.uint8]]) -> Array:
        """Encode what `prepare` returned; an EncoderError names the first row that is zero or not finite, from 1."""
        self._full_batches += len(prepared) // _BATCH_SIZE
        if len(prepared) < _BATCH_SIZE or self._full_batches <= _MIN_BATCHES:
            return super().encode_prepared(prepared)
        return self._torch_encoder.encode_prepared(prepared)

    def encode_images(self, images: "Sequence[Image.Image]") -> Array:
        """Encode RGB images; errors as in `encode_prepared`."""
        return self.encode_prepared([self.prepare(image) for image in images])


def gains_from_bfloat16(export: Export) -> bool:
    """Whether torch encodes batches of images faster: it is installed, the tower is large, and the CPU has AMX."""
    return export.image_parameters >= _MIN_PARAMETERS and has_amx() and find_spec("torch") is not None


@cache
def has_amx() -> bool:
    """Whether the processor has Intel's matrix instructions for bfloat16, as Linux reports it."""
    try:
        return "amx_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
