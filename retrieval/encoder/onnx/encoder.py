"""An exported model as an `Encoder`: ONNX Runtime, Pillow and numpy."""

import math
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from retrieval.concurrency import available_cores, prefetch_map
from retrieval.encoder.features import Array, Tokenizer, encode_by_length, split_batches, to_unit_rows
from retrieval.encoder.onnx.files import Export, Tower
from retrieval.encoder.preprocessing import Preprocessing
from retrieval.errors import EncoderError

if TYPE_CHECKING:
    from PIL import Image

T = TypeVar("T")

BATCH_SIZE = 8  # images that a thread encodes at a time; more gain nothing, and take memory in each thread
_TEXT_BATCH_SIZE = 64


class OnnxEncoder:
    """An export as an `Encoder` on the CPU, in float32; its fingerprints are those of the torch encoder.

    Each thread encodes images of its own: threads that share one batch wait for each other at every layer, which took a
    quarter more processor time with two of them, and more beside threads that decode. They share one image that comes
    alone, and texts. A tower is loaded for either way when it is first used so; callers share it without a lock.
    """

    device = "cpu"

    def __init__(self, name: str, export: Export, *, threads: int | None = None) -> None:
        """Take the name that loads the model again, its current export, and the threads to use (None: one a core)."""
        self.name = name
        self.dimension = export.dimension
        self.image_fingerprint, self.text_fingerprint = export.image_fingerprint, export.text_fingerprint
        self._preprocessing = Preprocessing.from_config(export.preprocess)
        self.image_size = max(self._preprocessing.size)
        self.prepare = self._preprocessing.prepare
        self.export = export
        self._threads = threads or available_cores()
        self.batch_size = BATCH_SIZE * self._threads
        self._lock = threading.Lock()
        self._sessions: dict[tuple[Tower, int], Any] = {}
        self._loaded_tokenizer: Tokenizer | None = None

    def encode_prepared(self, prepared: Sequence[NDArray[np.uint8]]) -> Array:
        """Encode what `prepare` returned; an EncoderError names the first row that is zero or not finite, from 1."""
        return self._encode_parts(prepared, np.stack)

    def encode_images(self, images: Sequence["Image.Image"]) -> Array:
        """Encode RGB images; errors as in `encode_prepared`."""
        return self._encode_parts(images, lambda part: np.stack([self.prepare(image) for image in part]))

    def encode_texts(self, texts: Sequence[str]) -> Array:
        """Encode texts, truncated to the context length; an EncoderError for one string, or as in `encode_prepared`."""
        features = encode_by_length(
            texts,
            tokenize=self._tokenize,
            end_token=self.export.end_token,
            encode=partial(self._run, "text", threads=self._threads),
            dimension=self.dimension,
            batch_size=_TEXT_BATCH_SIZE,
        )
        return to_unit_rows([features], dimension=self.dimension, name=self.name, kind="text")

    def _encode_parts(self, images: Sequence[T], stack: Callable[[Sequence[T]], NDArray[np.uint8]]) -> Array:
        """Encode images in parts, one a thread at a time, or one image with all threads."""
        threads = self._threads if len(images) == 1 else 1

        def encode(part: Sequence[T]) -> Array:
            return self._run("image", self._preprocessing.normalize(stack(part)), threads=threads)

        parts = list(split_batches(images, part_size(len(images), threads=self._threads)))
        features = map(encode, parts) if len(parts) == 1 else prefetch_map(encode, parts, threads=self._threads)
        return to_unit_rows(list(features), dimension=self.dimension, name=self.name, kind="image")

    def _tokenize(self, texts: list[str]) -> NDArray[np.int64]:
        with self._lock:
            if self._loaded_tokenizer is None:
                from retrieval.encoder.tokenizer import load_tokenizer

                self._loaded_tokenizer = load_tokenizer(self.export.text, self.export.folder)
        return self._loaded_tokenizer(texts)

    def _run(self, tower: Tower, inputs: NDArray[Any], *, threads: int) -> Array:
        features: Array = self._session(tower, threads).run(None, {"input": inputs})[0]
        return features

    def _session(self, tower: Tower, threads: int) -> Any:
        with self._lock:
            if (tower, threads) not in self._sessions:
                if problem := self.export.problem(tower):  # since another was loaded, an hour ago perhaps
                    raise EncoderError(
                        f"The model {self.name} has changed since it was opened: {problem}. Open it again."
                    )
                self._sessions[tower, threads] = open_session(self.export.path(tower), threads=threads)
            return self._sessions[tower, threads]


def part_size(count: int, *, threads: int) -> int:
    """Return how many of so many images a thread encodes at a time: equal shares, none above `BATCH_SIZE`."""
    rounds = max(1, math.ceil(count / (threads * BATCH_SIZE)))
    return max(1, math.ceil(count / (threads * rounds)))


def open_session(path: Path, *, threads: int, simplified: Path | None = None) -> Any:
    """Return ONNX Runtime's session of a graph; an EncoderError where it refuses the files.

    With `simplified` the graph is written there, weights included, with constants computed and layers fused in ways
    that every runtime knows.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4  # what it reports as errors, it raises too
    # Threads that spin while they wait take the cores from those that decode.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if simplified is not None:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(simplified)
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common base
        reason = " ".join(str(error).split())
        raise EncoderError(f"ONNX Runtime cannot load {path}: {reason[:200]}.") from error
