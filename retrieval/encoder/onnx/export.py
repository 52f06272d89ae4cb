"""Export a model to ONNX, with torch: two graphs that point into its weights, compared with torch before they count."""

import hashlib
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from open_clip.transform import PreprocessCfg
from torch import Tensor, nn

from retrieval.encoder.fingerprints import image_fingerprint, text_fingerprint
from retrieval.encoder.model_folders import EXPORT_FILE, STARTER, WEIGHTS_FILE, find_model_folder, find_weights
from retrieval.encoder.onnx.encoder import OnnxEncoder
from retrieval.encoder.onnx.files import (
    TOWERS,
    Export,
    FileStamp,
    Tower,
    cached_folder,
    cached_pointer,
    find_export,
    graph_path,
    hash_settings,
    write_pointer,
)
from retrieval.encoder.onnx.graphs import read_stored_tensors, slim_model
from retrieval.encoder.onnx.towers import end_token, image_module, text_module
from retrieval.encoder.open_clip_models import Checkpoint, open_checkpoint, write_tensors
from retrieval.encoder.preprocessing import Preprocessing
from retrieval.encoder.tokenizer import find_different_text, load_tokenizer
from retrieval.errors import EncoderError
from retrieval.files import write_atomically

MAX_DEVIATION = 1e-5  # of a number of a unit row from torch's
_PACKAGES = ("crossmodal-retrieval", "torch", "open_clip_torch", "onnx", "onnxruntime")
_PROBE_TEXTS = (
    "a red ball",
    "",
    "two dogs run across a meadow in the sun, 3 of them black",
    "x",
    "日本語",
    "word " * 99,
)
_CHECKED_BATCHES = (1, 16)


def export_model(name: str, checkpoint: Checkpoint | None = None, *, renew: bool = False) -> Export:
    """Return the current export of a model, made where there is none; of two processes one makes it.

    It is written beside the weights of a model folder where ONNX Runtime can read them there: in a regular file of a
    folder that can be written to. Else it goes into the user's cache, with the weights as a hard link or a copy.

    Args:
        name: As `load_encoder` takes it.
        checkpoint: The opened model, where the caller has it.
        renew: Export it again where there is a current export too.

    Raises:
        EncoderError: the model cannot be opened, exported, or gives other rows; nothing is left then.
        OSError: the disk is full, or the cache cannot be written to.
    """
    with _export_lock(name):
        found = None if renew else find_export(name, log=False)
        return found or _export(name, checkpoint or open_checkpoint(name))


@contextmanager
def _export_lock(name: str) -> Iterator[None]:
    """Hold a lock that other processes of this user take before they export the same model."""
    lock = cached_pointer(name).with_suffix(".lock")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.touch()
    except OSError:  # no cache is needed beside weights that can be written to
        lock = Path(tempfile.gettempdir()) / f"retrieval-export-{os.getpid()}.lock"
    with FileLock(lock):
        yield


def _export(name: str, checkpoint: Checkpoint) -> Export:
    fingerprints = image_fingerprint(checkpoint), text_fingerprint(checkpoint)
    folder = find_model_folder(name)
    beside = folder is not None and _can_hold_export(folder)
    target = folder if beside and folder is not None else cached_folder(*fingerprints)
    source = None if beside or folder is None else FileStamp.of(find_weights(folder))
    if not beside:
        _copy_weights(checkpoint, folder, target)
    _check_tokenizer(checkpoint, target)
    (target / EXPORT_FILE).unlink(missing_ok=True)  # an export that is interrupted is none
    try:
        graphs = {tower: _write_graph(checkpoint, tower, target) for tower in TOWERS}
        export = Export(
            folder=target,
            dimension=int(checkpoint.config["embed_dim"]),
            image_fingerprint=fingerprints[0],
            text_fingerprint=fingerprints[1],
            preprocess=asdict(PreprocessCfg(**checkpoint.preprocess)),
            text=dict(checkpoint.config["text_cfg"]),
            end_token=end_token(checkpoint.model),
            settings=hash_settings(target),
            weights=FileStamp.of(target / WEIGHTS_FILE, in_package=name == STARTER),
            graphs=graphs,
            deviation={},
            versions={package: version(package) for package in _PACKAGES},
        )
        export = compare_with_torch(export, checkpoint)
        if source is not None and folder is not None:
            _check_unchanged(name, find_weights(folder), source)
        export.write()
    except BaseException:
        for tower in TOWERS:
            with suppress(OSError):
                graph_path(target, tower).unlink()
        raise
    if not beside:
        write_pointer(name, export, weights=source)
    return export


def _check_unchanged(name: str, weights: Path, stamp: FileStamp) -> None:
    if change := stamp.difference(weights):
        raise EncoderError(f"The model {name} has changed while it was exported: {change}. Export it again.")


def _can_hold_export(folder: Path) -> bool:
    """Whether the weights are a regular file of the folder, as ONNX Runtime demands, and files can be added."""
    weights = folder / WEIGHTS_FILE
    try:
        with tempfile.NamedTemporaryFile(dir=folder):
            return weights.is_file() and not weights.is_symlink()
    except OSError:
        return False


def _copy_weights(checkpoint: Checkpoint, folder: Path | None, target: Path) -> None:
    """Put into the cache what an export needs beside it: the weights, linked where they can be, and a tokenizer."""
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EncoderError(f"The cache {target} cannot be made: {error}. Set RETRIEVAL_CACHE to a folder.") from error
    if hasattr(checkpoint.tokenizer, "save_pretrained"):
        checkpoint.tokenizer.save_pretrained(str(target))
    (target / WEIGHTS_FILE).unlink(missing_ok=True)
    if folder is None or not _link(folder / WEIGHTS_FILE, target / WEIGHTS_FILE):
        tensors = {name: tensor.contiguous().clone() for name, tensor in checkpoint.model.state_dict().items()}
        write_tensors(target / WEIGHTS_FILE, tensors)


def _link(source: Path, target: Path) -> bool:
    """Make a hard link to the file, behind symbolic links; return whether it exists and the disk is the same."""
    try:
        os.link(source.resolve(strict=True), target)
    except OSError:
        return False
    return True


def _check_tokenizer(checkpoint: Checkpoint, folder: Path) -> None:
    """Raise an EncoderError where the tokenizer that needs no torch is not the model's own."""
    tokenizer = load_tokenizer(checkpoint.config["text_cfg"], folder)
    if (text := find_different_text(tokenizer, checkpoint.tokenizer)) is not None:
        raise EncoderError(f"The tokenizer of {checkpoint.name} splits {text[:40]!r} in another way without torch.")


def _write_graph(checkpoint: Checkpoint, tower: Tower, folder: Path) -> str:
    """Export a tower into the folder that holds the weights; return the SHA-256 of its file."""
    part = image_module(checkpoint) if tower == "image" else text_module(checkpoint)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's own deprecations
            program: Any = torch.onnx.export(
                part.module,
                (part.example,),
                input_names=["input"],
                output_names=["output"],
                dynamic_shapes=(part.dynamic,),
                dynamo=True,
                verbose=False,
                external_data=False,
                optimize=False,  # it would fold weights into new constants, which the file of weights does not hold
            )
    except Exception as error:  # the exporter raises nearly anything on a model that it does not support
        reason = " ".join(str(error).split())
        raise EncoderError(
            f"The {tower} tower of {checkpoint.name} cannot be exported ({type(error).__name__}: {reason[:200]})."
        ) from error
    model = program.model_proto
    slim_model(model, read_stored_tensors(folder / WEIGHTS_FILE), weights=WEIGHTS_FILE, names=part.names)
    content = model.SerializeToString(deterministic=True)
    write_atomically(graph_path(folder, tower), lambda path: path.write_bytes(content))
    return hashlib.sha256(content).hexdigest()


def compare_with_torch(export: Export, checkpoint: Checkpoint) -> Export:
    """Return the export with the deviations of its rows from torch's, alone and in a batch.

    An EncoderError where one is above MAX_DEVIATION.
    """
    encoder = OnnxEncoder(checkpoint.name, export, threads=2)
    preprocessing = Preprocessing.from_config(export.preprocess)
    count, random = max(_CHECKED_BATCHES), np.random.default_rng(0)
    noise = random.integers(0, 256, (count, *preprocessing.size, 3), np.uint8)
    pictures = [picture // (1 + number % 3) for number, picture in enumerate(noise)]  # dark ones too
    texts = [f"{_PROBE_TEXTS[number % len(_PROBE_TEXTS)]} {number}" for number in range(count)]
    expected = {
        "image": _torch_rows(
            checkpoint.model.encode_image, torch.from_numpy(preprocessing.normalize(np.stack(pictures)))
        ),
        "text": _torch_rows(checkpoint.model.encode_text, checkpoint.tokenizer(texts)),
    }
    deviation: dict[Tower, float] = {
        "image": _deviation(encoder.encode_prepared, pictures, expected["image"]),
        "text": _deviation(encoder.encode_texts, texts, expected["text"]),
    }
    for tower, value in deviation.items():
        if not value <= MAX_DEVIATION:
            raise EncoderError(
                f"The exported {tower} tower of {checkpoint.name} gives other rows than torch: a number differs by "
                f"{value:.2g}, more than {MAX_DEVIATION:.0e}."
            )
    return replace(export, deviation=deviation)


def _torch_rows(encode: Any, inputs: Tensor) -> Any:
    with torch.inference_mode():
        return nn.functional.normalize(encode(inputs).float(), dim=-1).numpy()


def _deviation(encode: Any, inputs: Sequence[Any], expected: Any) -> float:
    differences = [
        np.abs(
            np.concatenate([encode(inputs[start : start + size]) for start in range(0, len(inputs), size)]) - expected
        )
        for size in _CHECKED_BATCHES
    ]
    return float(np.max(differences))
