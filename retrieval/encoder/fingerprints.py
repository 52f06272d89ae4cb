"""Fingerprints of an encoder's two towers: equal where the same input gives the same row."""

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, fields
from typing import Any

import torch
from open_clip import CLIPTextCfg, CLIPVisionCfg
from open_clip.transform import PreprocessCfg

from retrieval.encoder.architectures import is_local, text_model_config
from retrieval.encoder.open_clip_models import Checkpoint

_PIXELS = ("size", "mean", "std", "interpolation", "resize_mode", "fill_color")

# What changes no row: it acts in training only, says where things came from, or shows in the probe texts' tokens.
_INERT = {
    "patch_dropout",
    "timm_drop",
    "timm_drop_path",
    "timm_model_pretrained",
    "hf_model_pretrained",
    "hf_tokenizer_name",
    "tokenizer_kwargs",
    "tokenizer_mode",
    "output_tokens",
}

# A tokenizer is what it makes of these: short and cut off, several scripts, spaces, case, marks, digits, emoji.
_PROBE_TEXTS = (
    "",
    "A photo of 3 red shoes, size 42½ (£9.99)!",
    "don't  STOP\tthe_crème-brûlée &amp; co.",
    "Ein grüner Fußball 红色的鞋子 красные туфли أحذية 👟",
    "one of very many words " * 40,
)


def image_fingerprint(checkpoint: Checkpoint) -> str:
    """Hash the image tower: weights with its projection, architecture, preprocessing; 32 hexadecimal digits.

    The weights count by their values in float32, in whatever folder or type they were stored; weights that were rounded
    to 16 bits are others. Device and precision do not count: their rows lie in one space and may be compared.
    """
    config = _changed(checkpoint.config, "vision_cfg", CLIPVisionCfg)
    preprocess = asdict(PreprocessCfg(**checkpoint.preprocess))
    weights = {name: tensor for name, tensor in checkpoint.model.state_dict().items() if name.startswith("visual.")}
    return _fingerprint([config, [preprocess[key] for key in _PIXELS]], weights)


def text_fingerprint(checkpoint: Checkpoint) -> str:
    """Hash the text tower as `image_fingerprint` does the other: weights, architecture, and what the tokenizer does."""
    config = _changed(checkpoint.config, "text_cfg", CLIPTextCfg)
    if is_local(config.get("hf_model_name")):  # wherever it lies, what counts is how it is built
        config["hf_model_name"] = text_model_config(checkpoint.model)
    tokens = checkpoint.tokenizer(list(_PROBE_TEXTS)).tolist()
    return _fingerprint([config, tokens], _text_weights(checkpoint.model.state_dict()))


def _text_weights(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Pick the text tower's weights, which CustomTextCLIP and CoCa hold under `text.` and CLIP in its own lap."""
    inner = {name.removeprefix("text."): tensor for name, tensor in weights.items() if name.startswith("text.")}
    flat = {name: tensor for name, tensor in weights.items() if not name.startswith(("visual.", "logit_"))}
    return inner or flat


def _changed(config: Mapping[str, Any], key: str, defaults: type) -> dict[str, Any]:
    """Pick a tower's settings that differ from open_clip's defaults: a default written out, or new, changes nothing."""
    usual = {field.name: field.default for field in fields(defaults)}
    tower = {name: value for name, value in config[key].items() if name not in _INERT and value != usual.get(name, ...)}
    return {**tower, "embed_dim": config["embed_dim"], "quick_gelu": bool(config.get("quick_gelu"))}


def _fingerprint(settings: list[Any], weights: Mapping[str, torch.Tensor]) -> str:
    """Hash settings and tensors; the tensors on all cores at once, since hashlib lets go of the interpreter."""
    names = sorted(weights)
    with ThreadPoolExecutor() as pool:
        digests = list(pool.map(_digest, (weights[name] for name in names)))
    parts = [[name, list(weights[name].shape), digest] for name, digest in zip(names, digests, strict=True)]
    return hashlib.sha256(json.dumps([settings, parts], sort_keys=True).encode()).hexdigest()[:32]


def _digest(tensor: torch.Tensor) -> str:
    """Hash a tensor's values in place; floating point numbers as float32."""
    kind = torch.float32 if tensor.is_floating_point() else tensor.dtype
    values = tensor.detach().to("cpu", kind).contiguous()
    return hashlib.sha256(values.reshape(-1).view(torch.uint8).numpy().data).hexdigest()
