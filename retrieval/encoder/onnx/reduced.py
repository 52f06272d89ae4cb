"""An encoder whose image tower computes in 8-bit integers; its texts are encoded as before."""

import hashlib
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrieval.concurrency import available_cores, prefetch_map
from retrieval.encoder import Encoder
from retrieval.encoder.features import Array, split_batches, to_unit_rows
from retrieval.encoder.onnx.encoder import BATCH_SIZE, open_session, part_size
from retrieval.encoder.onnx.tower_record import REDUCED_FILE, ReducedTower
from retrieval.encoder.preprocessing import Preprocessing
from retrieval.errors import CatalogError

if TYPE_CHECKING:
    from PIL import Image


class ReducedEncoder:
    """An `Encoder` that takes texts from another encoder, and encodes images by the reduced tower of that model."""

    device = "cpu"

    def __init__(self, base: Encoder, tower: ReducedTower, folder: Path) -> None:
        """Take the encoder in float32, and the reduced tower whose file is in `folder`."""
        self.base = base
        self.name, self.dimension, self.image_size = base.name, base.dimension, base.image_size
        self.image_fingerprint = tower.fingerprint
        self.prepare, self.encode_texts = base.prepare, base.encode_texts
        self._normalize = Preprocessing.from_config(tower.preprocess).normalize
        self._path, self._sha256 = folder / REDUCED_FILE, tower.sha256
        # Dynamic scales are those of all that is computed at once: one by one, a row depends on its image only, and it
        # takes no longer.
        self._is_dynamic = tower.method == "dynamic"
        self._threads = available_cores()
        self.batch_size = BATCH_SIZE * self._threads
        self._lock = threading.Lock()
        self._sessions: dict[int, Any] = {}  # by their threads: of one image all, else one

    @property
    def text_fingerprint(self) -> str:
        """That of the encoder in float32."""
        return self.base.text_fingerprint

    def encode_prepared(self, prepared: Sequence[NDArray[np.uint8]]) -> Array:
        """Encode what `prepare` returned; an EncoderError names the first row that is zero or not finite, from 1."""
        run = partial(self._run, threads=self._threads if len(prepared) == 1 else 1)
        size = 1 if self._is_dynamic else part_size(len(prepared), threads=self._threads)
        parts = list(split_batches(prepared, size))
        features = map(run, parts) if len(parts) == 1 else prefetch_map(run, parts, threads=self._threads)
        return to_unit_rows(list(features), dimension=self.dimension, name=self.name, kind="image")

    def encode_images(self, images: Sequence["Image.Image"]) -> Array:
        """Encode RGB images; errors as in `encode_prepared`."""
        return self.encode_prepared([self.prepare(image) for image in images])

    def _run(self, part: Sequence[NDArray[np.uint8]], *, threads: int) -> Array:
        features: Array = self._session(threads).run(None, {"input": self._normalize(np.stack(part))})[0]
        return features

    def _session(self, threads: int) -> Any:
        with self._lock:
            if threads not in self._sessions:
                self._check_file()
                self._sessions[threads] = open_session(self._path, threads=threads)
            return self._sessions[threads]

    def _check_file(self) -> None:
        try:
            with self._path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise CatalogError(
                f"{self._path}, the image tower in 8 bits, cannot be read: {error.strerror}. "
                "Restore it, or build a new catalog."
            ) from error
        if sha256 != self._sha256:
            raise CatalogError(
                f"{self._path}, the image tower in 8 bits, has changed. Restore it, or build a new catalog."
            )
