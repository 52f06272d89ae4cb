"""Any open_clip model behind the `Encoder` protocol, and the run folder that such a model is saved in."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

CONFIG_FILE = "open_clip_config.json"
WEIGHTS_FILE = "open_clip_model.safetensors"


def save_run(
    model: torch.nn.Module,
    folder: Path,
    *,
    config: Mapping[str, Any],
    preprocess: Mapping[str, Any],
    tokenizer: Any = None,
) -> None:
    """Write `model` into `folder` in open_clip's own layout, which `load_encoder(folder)` and plain open_clip load.

    The layout is `open_clip_config.json`, an object of `model_cfg` and `preprocess_cfg`, beside
    `open_clip_model.safetensors`, the state dict as it stands (move the model's parameters to float32 first where they
    are not). `open_clip.create_model_from_pretrained("local-dir:FOLDER")` reads both. Other files in the folder, a
    training state say, are left alone. Each file is written aside, synced and renamed, the weights first: a kill at any
    moment leaves the former model whole, or, in a new folder, one without a config that nothing mistakes for a run.

    Args:
        model: A CLIP, CustomTextCLIP or CoCa model of open_clip, on any device.
        folder: Made where it does not exist.
        config: What the model was built from, as `open_clip.get_model_config(name)` returns it, with what was forced
            on it (`quick_gelu`, `image_size`, `context_length`) written in.
        preprocess: `model.visual.preprocess_cfg`: `size`, `mean`, `std`, `interpolation`, `resize_mode`, `fill_color`.
        tokenizer: Needed only where the config names a `hf_tokenizer_name`: open_clip then looks for the tokenizer's
            files in the folder, so they are written there too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if tokenizer is not None and hasattr(tokenizer, "save_pretrained"):
        tokenizer.save_pretrained(str(folder))
    # Copies: safetensors refuses tensors that share memory, as tied weights do.
    tensors = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in model.state_dict().items()}
    _write_aside(folder / WEIGHTS_FILE, lambda path: save_file(tensors, path, metadata={"format": "pt"}))
    text = json.dumps({"model_cfg": dict(config), "preprocess_cfg": dict(preprocess)}, indent=2)
    _write_aside(folder / CONFIG_FILE, lambda path: path.write_text(text + "\n", encoding="utf-8"))


def _write_aside(path: Path, write: Callable[[Path], object]) -> None:
    """Write to a file beside `path`, and put it in its place only once it is whole and on the disk."""
    aside = path.with_name(f".{path.name}.tmp")
    try:
        write(aside)
        _sync(aside)
        aside.replace(path)
        _sync(path.parent)
    finally:
        aside.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
