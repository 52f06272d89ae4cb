"""Any open_clip model as an `Encoder`: its preprocessing, its two towers, in the fastest exact enough precision."""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import cache, cached_property, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from open_clip.transform import PreprocessCfg
from PIL import Image

from retrieval.encoder.features import TEXTS_PER_IMAGE, Array, encode_by_length, split_batches, to_unit_rows
from retrieval.encoder.fingerprints import image_fingerprint, text_fingerprint
from retrieval.encoder.open_clip_models import Checkpoint, open_checkpoint, save_run
from retrieval.encoder.preprocessing import Preprocessing
from retrieval.encoder.text_towers import encode_truncated, find_causal_tower, find_end_token
from retrieval.errors import EncoderError
from retrieval.memory import retain_freed_memory

__all__ = ["Checkpoint", "OpenClipEncoder", "open_checkpoint", "resolve_device", "save_run"]

# Larger batches gain nothing: ViT-B/32 on two cores is as fast with 16 images as with 64.
_BATCH_SIZE = {"cpu": 16, "cuda": 256}
_LARGE = 10_000_000  # parameters of an image tower worth half precision; a smaller one is fast, and loses by casts
_MIN_SPEEDUP = 2.0  # of matrix products in half precision: of 4.3 times, 2.3 to 3.5 reach the towers


class OpenClipEncoder:
    """An open_clip model as an `Encoder`.

    Texts, and images up to a batch, are encoded in float32, where a row changes by 1e-5 at most with its batch. Full
    batches of images go through a large image tower in half precision where matrix products are at least twice as
    fast in it: on GPUs, and on CPUs with instructions for bfloat16, where ViT-B/32 takes 2.9 times as many images a
    second. Their cosine to the rows in float32 is at least .9999, as measured on five architectures.

    The checkpoint's model is moved to the device, which `resolve_device` takes, and put into eval mode.
    """

    def __init__(self, checkpoint: Checkpoint, *, device: str = "auto") -> None:
        self.name = checkpoint.name
        self.dimension = int(checkpoint.config["embed_dim"])
        self.device = resolve_device(device)
        if self.device == "cpu":
            retain_freed_memory()
        self.batch_size = _BATCH_SIZE[self.device]
        self.image_size = int(np.max(checkpoint.preprocess["size"]))
        self._checkpoint = checkpoint
        self._model = checkpoint.model.eval().to(self.device)
        # Channels last for convolutional towers; a transformer's one convolution, of the patches, gains nothing.
        convolutions = sum(isinstance(module, torch.nn.Conv2d) for module in self._model.visual.modules())
        self._format = torch.channels_last if convolutions > 1 else torch.contiguous_format
        self._model.visual.to(memory_format=self._format)
        self._causal_tower = find_causal_tower(self._model)
        self._preprocessing = Preprocessing.from_config(asdict(PreprocessCfg(**checkpoint.preprocess)))
        self._mean, self._std = (
            torch.tensor(values, dtype=torch.float32, device=self.device).reshape(1, -1, 1, 1)
            for values in (self._preprocessing.mean, self._preprocessing.std)
        )
        self._lock = threading.Lock()

    @cached_property
    def image_fingerprint(self) -> str:
        """See `fingerprints.image_fingerprint`; computed on first use, in about half a second for 600 MB."""
        with self._lock:
            return image_fingerprint(self._checkpoint)

    @cached_property
    def text_fingerprint(self) -> str:
        """See `fingerprints.text_fingerprint`; computed on first use."""
        with self._lock:  # `encode_truncated` puts truncated positions into the model while it runs
            return text_fingerprint(self._checkpoint)

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """Resize and crop one RGB image as the model's own preprocessing does: bytes, `(height, width, 3)`.

        Scaling and normalisation wait until the batch is encoded: bytes take a quarter of the memory of floats.
        """
        return self._preprocessing.prepare(image)

    def encode_prepared(self, prepared: Sequence[NDArray[np.uint8]]) -> Array:
        """Encode what `prepare` returned; an EncoderError names the first row that is zero or not finite, from 1."""
        return self._encode_batches(split_batches(prepared, self.batch_size))

    def encode_images(self, images: Sequence[Image.Image]) -> Array:
        """Encode RGB images; errors as in `encode_prepared`."""
        return self._encode_batches(map(self.prepare, batch) for batch in split_batches(images, self.batch_size))

    def encode_texts(self, texts: Sequence[str]) -> Array:
        """Encode texts, truncated to the context length; an EncoderError for one string, or as in `encode_prepared`."""
        tower = self._causal_tower
        encode = self._model.encode_text if tower is None else partial(encode_truncated, tower)
        features = encode_by_length(
            texts,
            tokenize=lambda window: self._checkpoint.tokenizer(window).numpy(),
            end_token=None if tower is None else find_end_token(tower),
            encode=partial(self._forward, encode),
            dimension=self.dimension,
            batch_size=TEXTS_PER_IMAGE * self.batch_size,
        )
        return to_unit_rows([features], dimension=self.dimension, name=self.name, kind="text")

    def _encode_batches(self, batches: Iterable[Iterable[NDArray[np.uint8]]]) -> Array:
        parts = [self._encode_image_batch(np.stack(list(batch))) for batch in batches]
        return to_unit_rows(parts, dimension=self.dimension, name=self.name, kind="image")

    def _encode_image_batch(self, pixels: NDArray[np.uint8]) -> Array:
        dtype = self._full_batch_dtype() if len(pixels) == self.batch_size else torch.float32
        features = self._forward(self._encode_pixels, pixels, dtype=dtype)
        if dtype == torch.float32 or np.isfinite(features).all():
            return features
        return self._forward(self._encode_pixels, pixels)  # float16 ends at 65,504, and this tower goes beyond

    def _full_batch_dtype(self) -> torch.dtype:
        """Return the data type that a full batch of images is encoded in: float32 where a parameter is frozen.

        Autocast hands frozen ones to matmul in a form that it copies for every image, six times slower; under
        inference_mode too.
        """
        weights = list(self._model.visual.parameters())
        large = sum(weight.numel() for weight in weights) >= _LARGE
        trainable = all(weight.requires_grad for weight in weights)
        return fastest_dtype(self.device) if large and trainable else torch.float32

    def _encode_pixels(self, pixels: torch.Tensor) -> torch.Tensor:
        """Scale and normalise bytes `(n, height, width, 3)`, step by step as torchvision does one image; encode."""
        values = pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=self._format)
        values = values.div_(255).sub_(self._mean).div_(self._std)
        return self._model.encode_image(values)  # type: ignore[no-any-return]

    def _forward(
        self,
        encode: Callable[[torch.Tensor], torch.Tensor],
        inputs: NDArray[Any],
        *,
        dtype: torch.dtype = torch.float32,
    ) -> Array:
        half = dtype != torch.float32
        no_grad = torch.no_grad() if half else torch.inference_mode()
        with self._lock, no_grad, torch.autocast(self.device, dtype=dtype, enabled=half):
            return np.asarray(encode(torch.from_numpy(inputs).to(self.device)).float().cpu())


def resolve_device(device: str) -> str:
    """Return "cpu" or "cuda" for "auto", "cpu" or "cuda"; EncoderError, with the reason, for "cuda" without a GPU."""
    if device != "cpu" and torch.cuda.is_available():
        return "cuda"
    if device != "cuda":
        return "cpu"
    try:
        torch.zeros(1, device="cuda")
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().split("\n")[0]
    else:
        reason = "torch finds none"
    raise EncoderError(f"There is no usable GPU: {reason}. Use device cpu or auto.")


@cache
def fastest_dtype(device: str) -> torch.dtype:
    """Return the half precision of this device, if it multiplies matrices that much faster; float32 otherwise."""
    half = torch.float16 if device == "cuda" else torch.bfloat16  # the less exact one: all that CPUs have
    speedup = _time_product(device, torch.float32) / _time_product(device, half)
    return half if speedup >= _MIN_SPEEDUP else torch.float32


def _time_product(device: str, dtype: torch.dtype) -> float:
    """Return the least seconds, of three runs, that the product of two matrices takes: 20 ms or so on two cores."""
    matrix = torch.ones(1024, 1024, dtype=dtype, device=device)
    seconds = []
    for _ in range(4):  # the first one warms up
        start = time.perf_counter()
        (matrix @ matrix)[0, 0].item()  # waits for the GPU
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])
