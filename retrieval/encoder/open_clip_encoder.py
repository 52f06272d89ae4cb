"""Any open_clip model behind the `Encoder` protocol: its preprocessing, its two towers, the precision that is fast."""

import ctypes
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, cached_property, partial
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from retrieval.encoder.fingerprints import image_fingerprint, text_fingerprint
from retrieval.encoder.open_clip_models import Checkpoint, open_checkpoint, save_run
from retrieval.encoder.text_towers import causal_tower, encode_cut, used_lengths
from retrieval.errors import EncoderError

__all__ = ["Checkpoint", "OpenClipEncoder", "open_checkpoint", "save_run", "usable_device"]

T = TypeVar("T")
Array = NDArray[np.float32]

# Larger batches gain nothing: ViT-B/32 on two cores is as fast at 16 pictures as at 64.
_BATCH = {"cpu": 16, "cuda": 256}
_TEXTS_PER_PICTURE = 4  # a text is ten tokens or so, a picture fifty or more
_TEXT_WINDOW = 4096  # texts tokenised and sorted at a time: batches of even length, in bounded memory
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_LARGE = 10_000_000  # weights of an image tower worth half precision; a smaller one is fast, and loses by conversions
_WORTHWHILE = 2.0  # times that half precision must multiply matrices faster: of 4.3 times, 2.3 to 3.5 reach the towers


class OpenClipEncoder:
    """An open_clip model as an `Encoder`.

    Texts, and pictures up to a batch, are encoded in float32, where a row changes by 1e-5 at most with what it shares
    its batch with. Full batches of pictures go through a large image tower in half precision where a product of two
    matrices is at least twice as fast in it: on GPUs, and on CPUs with instructions for bfloat16, where ViT-B/32 takes
    2.9 times as many pictures a second. Those rows lie within a cosine of .9999 of theirs in float32, as measured on
    five architectures with random weights.

    Args:
        checkpoint: A model and its parts. The model is moved to the device and put into eval mode; to go on training
            it, call its `train()` afterwards.
        device: "cpu", "cuda", or "auto": the GPU where there is one.

    Raises:
        EncoderError: "cuda" without a usable GPU; the message has the reason.
    """

    def __init__(self, checkpoint: Checkpoint, *, device: str = "auto") -> None:
        self.name = checkpoint.name
        self.dimension = int(checkpoint.config["embed_dim"])
        self.device = usable_device(device)
        if self.device == "cpu":
            keep_freed_memory()
        self.batch_size = _BATCH[self.device]
        self.image_size = int(np.max(checkpoint.preprocess["size"]))
        self._checkpoint = checkpoint
        self._model = checkpoint.model.eval().to(self.device)
        self._format = _memory_format(checkpoint.model.visual)
        self._model.visual.to(memory_format=self._format)
        self._causal = causal_tower(self._model)
        *self._shape, _, normalize = _transforms(checkpoint)
        self._mean, self._deviation = (
            torch.tensor(values, device=self.device).reshape(1, -1, 1, 1) for values in (normalize.mean, normalize.std)
        )
        self._lock = threading.Lock()

    @cached_property
    def image_fingerprint(self) -> str:
        """See `fingerprints.image_fingerprint`; computed on first use, about half a second for 600 MB."""
        with self._lock:
            return image_fingerprint(self._checkpoint)

    @cached_property
    def text_fingerprint(self) -> str:
        """See `fingerprints.text_fingerprint`; computed on first use."""
        with self._lock:  # `encode_cut` has the model hold cut positions while it runs
            return text_fingerprint(self._checkpoint)

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """Resize and crop one RGB picture as the model's own preprocessing does: bytes, `(height, width, 3)`.

        The rest of that preprocessing, scaling and normalisation, is done to whole batches when they are encoded: as
        bytes a picture takes a quarter of the memory, and of the way to a GPU, that it takes as floats.
        """
        for step in self._shape:
            image = step(image)
        return np.asarray(image)

    def encode_prepared(self, prepared: Sequence[NDArray[np.uint8]]) -> Array:
        """Encode what `prepare` returned: `(n, dimension)`, float32, rows of unit length.

        Raises:
            EncoderError: A picture's row is zero or not finite; the message says which, counted from 1.
        """
        return self._encode_pictures(_batches(prepared, self.batch_size))

    def encode_images(self, images: Sequence[Image.Image]) -> Array:
        """Encode RGB pictures: `(n, dimension)`, float32, rows of unit length; raises as `encode_prepared` does."""
        return self._encode_pictures(map(self.prepare, batch) for batch in _batches(images, self.batch_size))

    def encode_texts(self, texts: Sequence[str]) -> Array:
        """Encode texts: `(n, dimension)`, float32, rows of unit length; what exceeds the context length is cut off.

        Raises:
            EncoderError: A text's row is zero or not finite; the message says which, counted from 1. Or `texts` is one
                string.
        """
        if isinstance(texts, str):
            raise EncoderError("encode_texts takes a list of texts; put the one text into a list")
        windows = [self._text_features(window) for window in _batches(texts, _TEXT_WINDOW)]
        return self._unit(windows, "text")

    def _encode_pictures(self, batches: Iterable[Iterable[NDArray[np.uint8]]]) -> Array:
        return self._unit([self._picture_features(np.stack(list(batch))) for batch in batches], "picture")

    def _picture_features(self, pixels: NDArray[np.uint8]) -> Array:
        kind = self._full_batch_kind() if len(pixels) == self.batch_size else torch.float32
        features = self._run(self._image_features, pixels, kind=kind)
        if kind == torch.float32 or np.isfinite(features).all():
            return features
        return self._run(self._image_features, pixels)  # float16 ends at 65,504, and this tower goes beyond

    def _full_batch_kind(self) -> torch.dtype:
        """Return the kind of number that a full batch of pictures is encoded in.

        Weights that take no part in training stay in float32: autocast hands them to torch's matmul in a form that it
        copies for every picture, which made a batch six times slower. The same happens under inference_mode.
        """
        weights = list(self._model.visual.parameters())
        large = sum(weight.numel() for weight in weights) >= _LARGE
        return fastest_kind(self.device) if large and all(weight.requires_grad for weight in weights) else torch.float32

    def _image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Scale and normalise bytes `(n, height, width, 3)`, step by step as torchvision does one picture; encode."""
        values = pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=self._format)
        values = values.div_(255).sub_(self._mean).div_(self._deviation)
        return self._model.encode_image(values)  # type: ignore[no-any-return]

    def _text_features(self, texts: list[str]) -> Array:
        """Encode texts in the order of their lengths, so that a batch holds texts of one length; return theirs."""
        tokens = self._checkpoint.tokenizer(texts).numpy()
        lengths, encode = np.full(len(texts), tokens.shape[1]), self._model.encode_text
        if self._causal is not None:
            lengths, encode = used_lengths(self._causal, tokens), partial(encode_cut, self._causal)
        features = np.empty((len(texts), self.dimension), np.float32)
        for batch in _batches(np.argsort(lengths, kind="stable").tolist(), _TEXTS_PER_PICTURE * self.batch_size):
            features[batch] = self._run(encode, tokens[batch, : lengths[batch].max()])
        return features

    def _run(
        self, encode: Callable[[torch.Tensor], torch.Tensor], inputs: NDArray[Any], *, kind: torch.dtype = torch.float32
    ) -> Array:
        half = kind != torch.float32
        ungraded = torch.no_grad() if half else torch.inference_mode()
        with self._lock, ungraded, torch.autocast(self.device, dtype=kind, enabled=half):
            features: Array = encode(torch.from_numpy(inputs).to(self.device)).float().cpu().numpy()
            return features

    def _unit(self, parts: Sequence[Array], kind: str) -> Array:
        features = np.concatenate([np.empty((0, self.dimension), np.float32), *parts])
        with np.errstate(over="ignore", invalid="ignore"):  # which of them is bad is told below
            lengths = np.linalg.norm(features, axis=1, keepdims=True)
        bad = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
        if bad.size:
            what = f"{kind} {bad[0] + 1} of {len(features)}"
            raise EncoderError(f"{self.name} gives no direction (a zero, infinite or NaN vector) for {what}")
        unit: Array = features / lengths
        return unit


@cache
def keep_freed_memory() -> None:
    """Have glibc keep what one batch frees for the next: the starter encodes 114 pictures a second instead of 64.

    Activations of tens of megabytes go back to the system otherwise, and are taken from it anew, page by page. What is
    kept, for the whole process, is a quarter of a gigabyte at most. Other C libraries than glibc are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)  # as high as it goes
        mallopt(_M_TRIM_THRESHOLD, 256 * 2**20)


def usable_device(device: str) -> str:
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
    raise EncoderError(f"there is no usable GPU: {reason}; take the device cpu or auto")


def _transforms(checkpoint: Checkpoint) -> list[Any]:
    """Return the model's own steps from a picture to a tensor; the last two are to a tensor, and normalisation."""
    return image_transform_v2(PreprocessCfg(**checkpoint.preprocess), is_train=False).transforms  # type: ignore[no-any-return]


def _memory_format(visual: torch.nn.Module) -> torch.memory_format:
    """Channels last for convolutional towers; a transformer's one convolution, of the patches, gains nothing."""
    convolutions = sum(isinstance(module, torch.nn.Conv2d) for module in visual.modules())
    return torch.channels_last if convolutions > 1 else torch.contiguous_format


@cache
def fastest_kind(device: str) -> torch.dtype:
    """Return the half precision of this device, if it multiplies matrices that much faster; float32 otherwise.

    Of the two, float16 is the more exact; CPUs have instructions for bfloat16 alone.
    """
    half = torch.float16 if device == "cuda" else torch.bfloat16
    gain = _product_seconds(device, torch.float32) / _product_seconds(device, half)
    return half if gain >= _WORTHWHILE else torch.float32


def _product_seconds(device: str, kind: torch.dtype) -> float:
    """Return the least seconds, of three tries, that the product of two matrices takes: 20 ms or so on two cores."""
    matrix = torch.ones(1024, 1024, dtype=kind, device=device)
    seconds = []
    for _ in range(4):  # the first one warms up
        start = time.perf_counter()
        (matrix @ matrix)[0, 0].item()  # waits for the GPU
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
