"""An exported model as an `Encoder`: ONNX Runtime, Pillow and numpy."""

import threading
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retrieval.concurrency import available_cores
from retrieval.encoder.features import TEXTS_PER_IMAGE, Array, Tokenizer, encode_by_length, split_batches, to_unit_rows
from retrieval.encoder.onnx.files import Export, Tower
from retrieval.encoder.preprocessing import Preprocessing
from retrieval.errors import EncoderError

_BATCH_SIZE = 16  # images; larger batches gain nothing on a CPU


class OnnxEncoder:
    """An export as an `Encoder` on the CPU, in float32; its fingerprints are those of the torch encoder.

    Each tower is loaded when it is first used. Threads share it without a lock.
    """

    device = "cpu"
    batch_size = _BATCH_SIZE

    def __init__(self, name: str, export: Export, *, threads: int | None = None) -> None:
        """Take the name that loads the model again, its current export, and the threads to use (None: one a core)."""
        self.name = name
        self.dimension = export.dimension
        self.image_fingerprint, self.text_fingerprint = export.image_fingerprint, export.text_fingerprint
        self._preprocessing = Preprocessing.from_config(export.preprocess)
        self.image_size = max(self._preprocessing.size)
        self.prepare = self._preprocessing.prepare
        self._export = export
        self._threads = threads or available_cores()
        self._lock = threading.Lock()
        self._sessions: dict[Tower, Any] = {}
        self._loaded_tokenizer: Tokenizer | None = None

    def encode_prepared(self, prepared: Sequence[NDArray[np.uint8]]) -> Array:
        """Encode what `prepare` returned; an EncoderError names the first row that is zero or not finite, from 1."""
        return self._encode_batches(split_batches(prepared, _BATCH_SIZE))

    def encode_images(self, images: Sequence[Image.Image]) -> Array:
        """Encode RGB images; errors as in `encode_prepared`."""
        return self._encode_batches(map(self.prepare, batch) for batch in split_batches(images, _BATCH_SIZE))

    def encode_texts(self, texts: Sequence[str]) -> Array:
        """Encode texts, truncated to the context length; an EncoderError for one string, or as in `encode_prepared`."""
        features = encode_by_length(
            texts,
            tokenize=self._tokenize,
            end_token=self._export.end_token,
            encode=partial(self._run, "text"),
            dimension=self.dimension,
            batch_size=TEXTS_PER_IMAGE * _BATCH_SIZE,
        )
        return to_unit_rows([features], dimension=self.dimension, name=self.name, kind="text")

    def _encode_batches(self, batches: Iterable[Iterable[NDArray[np.uint8]]]) -> Array:
        normalize = self._preprocessing.normalize
        parts = [self._run("image", normalize(np.stack(list(batch)))) for batch in batches]
        return to_unit_rows(parts, dimension=self.dimension, name=self.name, kind="image")

    def _tokenize(self, texts: list[str]) -> NDArray[np.int64]:
        with self._lock:
            if self._loaded_tokenizer is None:
                from retrieval.encoder.tokenizer import load_tokenizer

                self._loaded_tokenizer = load_tokenizer(self._export.text, self._export.folder)
        return self._loaded_tokenizer(texts)

    def _run(self, tower: Tower, inputs: NDArray[Any]) -> Array:
        features: Array = self._session(tower).run(None, {"input": inputs})[0]
        return features

    def _session(self, tower: Tower) -> Any:
        with self._lock:
            if tower not in self._sessions:
                if problem := self._export.problem(tower):  # since the other tower was loaded, an hour ago perhaps
                    raise EncoderError(
                        f"The model {self.name} has changed since it was opened: {problem}. Open it again."
                    )
                self._sessions[tower] = open_session(self._export, tower, threads=self._threads)
            return self._sessions[tower]


def open_session(export: Export, tower: Tower, *, threads: int) -> Any:
    """Return ONNX Runtime's session of a tower; an EncoderError where it refuses the files."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3  # errors; warnings are of initializers that it folds
    # Threads that spin while they wait take the cores from those that decode.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(export.path(tower), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common base
        reason = " ".join(str(error).split())
        raise EncoderError(f"ONNX Runtime cannot load {export.path(tower)}: {reason[:200]}.") from error
