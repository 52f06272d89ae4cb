"""Encode short texts without their padding, where that changes nothing: in causal text towers of open_clip."""

from typing import Any

import torch
from open_clip import CLIP
from open_clip.transformer import TextTransformer
from torch.func import functional_call


def find_causal_tower(model: Any) -> Any:
    """Return the text tower of an open_clip model if padding after a text's end cannot reach its row, else None.

    It cannot where attention is causal and the row is taken at the end token. It can where the row is taken at the
    last position, padding or not (SigLIP, CoCa), and in bidirectional towers (BERT).
    """
    tower = getattr(model, "text", model)
    if type(tower) not in {CLIP, TextTransformer} or tower.attn_mask is None:
        return None
    pools_end_token = _pool_type(tower) in {"argmax", "eos"} and getattr(tower, "cls_emb", None) is None
    return tower if pools_end_token else None


def find_end_token(tower: Any) -> int:
    """Return the token at which a causal tower takes a text's row; -1 for the greatest one."""
    if _pool_type(tower) == "argmax":
        return -1
    return int(tower.text_eos_id if isinstance(tower, CLIP) else tower.eos_id)


def encode_truncated(tower: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Encode `(n, length)` tokens by a causal tower of a longer context, its positions and mask truncated to fit."""
    length = tokens.shape[1]
    truncated = {
        "positional_embedding": tower.positional_embedding[:length],
        "attn_mask": tower.attn_mask[:length, :length],
    }
    output: Any = functional_call(tower, truncated, kwargs={"text": tokens}, tie_weights=False)
    if isinstance(tower, CLIP):
        output = output["text_features"] if isinstance(output, dict) else output[1]
    features: torch.Tensor = output[0] if isinstance(output, tuple) else output
    return features


def _pool_type(tower: Any) -> Any:
    return tower.text_pool_type if isinstance(tower, CLIP) else tower.pool_type
