"""Fingerprints of an encoder's two towers: equal where the same input gets the same row."""

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, fields
from typing import Any

import torch
from open_clip import CLIPTextCfg, CLIPVisionCfg
from open_clip.transform import PreprocessCfg

from retrieval.encoder.architectures import is_local_folder, text_model_config
from retrieval.encoder.open_clip_models import Checkpoint

_PREPROCESS_KEYS = ("size", "mean", "std", "interpolation", "resize_mode", "fill_color")

# Settings that change no row: for training only, about the origin of files, or visible in the probe texts' tokens.
_IGNORED = {
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

# A tokenizer is known by its tokens of these: short and truncated, several scripts, spaces, case, marks, digits, emoji.
_PROBE_TEXTS = (
    "",
    "A photo of 3 red shoes, size 42½ (£9.99)!",
    "don't  STOP\tthe_crème-brûlée &amp; co.",
    "Ein grüner Fußball 红色的鞋子 красные туфли أحذية 👟",
    "one of very many words " * 40,
)


def image_fingerprint(checkpoint: Checkpoint) -> str:
    """Hash the image tower: weights with its projection, architecture, preprocessing; 32 hexadecimal digits.

    Weights count by their values in float32, whatever the folder and type they were stored in; weights rounded to 16
    bits are other weights. Device and precision do not count: their rows lie in one space and may be compared.
    """
    config = _select_non_defaults(checkpoint.config, "vision_cfg", CLIPVisionCfg)
    preprocess = asdict(PreprocessCfg(**checkpoint.preprocess))
    weights = {name: tensor for name, tensor in checkpoint.model.state_dict().items() if name.startswith("visual.")}
    return _hash_tower([config, [preprocess[key] for key in _PREPROCESS_KEYS]], weights)


def text_fingerprint(checkpoint: Checkpoint) -> str:
    """Hash the text tower as `image_fingerprint` does the other: weights, architecture, and the tokenizer's tokens."""
    config = _select_non_defaults(checkpoint.config, "text_cfg", CLIPTextCfg)
    if is_local_folder(config.get("hf_model_name")):  # its architecture counts, not its path
        config["hf_model_name"] = text_model_config(checkpoint.model)
    tokens = checkpoint.tokenizer(list(_PROBE_TEXTS)).tolist()
    weights = checkpoint.model.state_dict()
    # CustomTextCLIP and CoCa hold the text tower under `text.`, CLIP at the top.
    inner = {name.removeprefix("text."): tensor for name, tensor in weights.items() if name.startswith("text.")}
    top = {name: tensor for name, tensor in weights.items() if not name.startswith(("visual.", "logit_"))}
    return _hash_tower([config, tokens], inner or top)


def _select_non_defaults(config: Mapping[str, Any], key: str, defaults: type) -> dict[str, Any]:
    """Return a tower's settings that differ from open_clip's defaults: writing a default out changes nothing."""
    default = {field.name: field.default for field in fields(defaults)}
    tower = {
        name: value for name, value in config[key].items() if name not in _IGNORED and value != default.get(name, ...)
    }
    return {**tower, "embed_dim": config["embed_dim"], "quick_gelu": bool(config.get("quick_gelu"))}


def _hash_tower(settings: list[Any], weights: Mapping[str, torch.Tensor]) -> str:
    """Hash settings and tensors; the tensors on all cores at once, since hashlib releases the interpreter lock."""
    names = sorted(weights)
    with ThreadPoolExecutor() as pool:
        digests = list(pool.map(_hash_tensor, (weights[name] for name in names)))
    parts = [[name, list(weights[name].shape), digest] for name, digest in zip(names, digests, strict=True)]
    return hashlib.sha256(json.dumps([settings, parts], sort_keys=True).encode()).hexdigest()[:32]


def _hash_tensor(tensor: torch.Tensor) -> str:
    """Hash a tensor's values in place, floating point as float32."""
    dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
    values = tensor.detach().to("cpu", dtype).contiguous()
    return hashlib.sha256(values.reshape(-1).view(torch.uint8).numpy().data).hexdigest()
