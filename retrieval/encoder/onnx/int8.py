"""Make an image tower in 8-bit integers from an export: 1.8 to 2.6 times as fast, with almost the same rows.

A transformer keeps its weights as integers, one scale for each output channel, and scales activations batch by batch as
they come ("dynamic"). A convolutional tower computes in integers throughout; the ranges of its activations come from
images that it is calibrated by ("static"). Jacob et al. 2018, "Quantization and Training of Neural Networks for
Efficient Integer-Arithmetic-Only Inference", arXiv 1712.05877; done by ONNX Runtime.

Processors without instructions for 8-bit products (VNNI) gain less, and may give other rows: they saturate.
"""

import hashlib
import logging
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from retrieval.encoder.features import split_batches
from retrieval.encoder.model_folders import WEIGHTS_FILE
from retrieval.encoder.onnx.encoder import open_session
from retrieval.encoder.onnx.files import Export
from retrieval.encoder.onnx.graphs import embed_weights
from retrieval.encoder.onnx.tower_record import REDUCED_FILE, ReducedTower, reduced_fingerprint
from retrieval.encoder.preprocessing import Preprocessing
from retrieval.errors import EncoderError
from retrieval.files import write_atomically

_CALIBRATION_BATCH: Final = 4  # images: every layer's values are in memory at once
_PRODUCTS: Final = {"MatMul", "Gemm"}
# What stands between convolutions: quantized with them, so that integers flow from one to the next.
_CONVOLUTIONAL: Final = ["Conv", "Add", "Clip", "Relu", "MaxPool", "Concat"]


def reduce_image_tower(export: Export, prepared: Sequence[NDArray[np.uint8]], folder: Path) -> ReducedTower:
    """Write the image tower in 8-bit integers into `folder`, and return what it is; its agreement is not measured yet.

    Args:
        export: A current export of the model.
        prepared: Images to calibrate a convolutional tower by, as `prepare` returns them: a hundred do.
        folder: The file `REDUCED_FILE` is written there, whole or not at all.

    Raises:
        EncoderError: ONNX Runtime cannot do it.
        OSError: the disk is full.
    """
    with tempfile.TemporaryDirectory() as scratch, _keep_root_logger():
        simplified, reduced = Path(scratch, "simplified.onnx"), Path(scratch, REDUCED_FILE)
        try:
            method = _quantize(export, prepared, simplified=simplified, reduced=reduced)
        except EncoderError:
            raise
        except Exception as error:  # onnx, numpy and ONNX Runtime raise what they like
            reason = " ".join(str(error).split())
            raise EncoderError(f"The image tower cannot be reduced to 8 bits: {reason[:200]}.") from error
        content = reduced.read_bytes()
    write_atomically(folder / REDUCED_FILE, lambda path: path.write_bytes(content))
    sha256 = hashlib.sha256(content).hexdigest()
    return ReducedTower(
        sha256=sha256,
        fingerprint=reduced_fingerprint(export.image_fingerprint, sha256),
        base_fingerprint=export.image_fingerprint,
        preprocess=export.preprocess,
        method=method,
        agreement=None,
    )


def _quantize(export: Export, prepared: Sequence[NDArray[np.uint8]], *, simplified: Path, reduced: Path) -> str:
    model = onnx.load(export.path("image"), load_external_data=False)
    embed_weights(model, export.path("image").with_name(WEIGHTS_FILE))
    onnx.save(model, simplified)
    open_session(simplified, threads=1, simplified=simplified)
    operators = Counter(node.op_type for node in onnx.load(simplified, load_external_data=False).graph.node)
    if sum(operators[product] for product in _PRODUCTS) > operators["Conv"]:
        quantize_dynamic(
            simplified,
            reduced,
            op_types_to_quantize=sorted(_PRODUCTS),
            per_channel=True,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )
        return "dynamic"
    quantize_static(
        simplified,
        reduced,
        _Calibration(prepared, Preprocessing.from_config(export.preprocess)),
        op_types_to_quantize=_CONVOLUTIONAL,
        per_channel=True,
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return "static"


class _Calibration(CalibrationDataReader):  # type: ignore[misc]
    """The images that ranges of activations are taken from, batch by batch."""

    def __init__(self, prepared: Sequence[NDArray[np.uint8]], preprocessing: Preprocessing) -> None:
        self._batches = split_batches(prepared, _CALIBRATION_BATCH)
        self._normalize = preprocessing.normalize

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"input": self._normalize(np.stack(batch))}


@contextmanager
def _keep_root_logger() -> Iterator[None]:
    """Keep ONNX Runtime's `logging.warning` from configuring a root logger that has no handlers."""
    root, handler = logging.getLogger(), logging.NullHandler()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
