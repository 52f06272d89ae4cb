"""Encode short texts without their padding, where that changes nothing: in causal text towers of open_clip."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from open_clip import CLIP
from open_clip.transformer import TextTransformer
from torch.func import functional_call


def causal_tower(model: Any) -> Any:
    """Return the part of an open_clip model that encodes texts, if padding after a text's end cannot reach its row.

    That is so where no token sees a later one and the row is taken at the end token. It is not where the row is taken
    at the last position, padding or not (SigLIP, CoCa), nor in towers that see both ways (BERT).
    """
    tower = getattr(model, "text", model)
    if type(tower) not in {CLIP, TextTransformer} or tower.attn_mask is None:
        return None
    at_end = _pooling(tower) in {"argmax", "eos"} and getattr(tower, "cls_emb", None) is None
    return tower if at_end else None


def used_lengths(tower: Any, tokens: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many of each row's tokens, `(n, context)`, lie up to the one that its vector is taken at."""
    ends = tokens if _pooling(tower) == "argmax" else tokens == _end_token(tower)
    used: NDArray[np.int64] = ends.argmax(axis=1) + 1
    return used


def encode_cut(tower: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Encode `(n, length)` tokens by a causal tower of a longer context, its positions and mask cut to fit."""
    length = tokens.shape[1]
    fitting = {
        "positional_embedding": tower.positional_embedding[:length],
        "attn_mask": tower.attn_mask[:length, :length],
    }
    output: Any = functional_call(tower, fitting, kwargs={"text": tokens}, tie_weights=False)
    if isinstance(tower, CLIP):
        output = output["text_features"] if isinstance(output, dict) else output[1]
    features: torch.Tensor = output[0] if isinstance(output, tuple) else output
    return features


def _pooling(tower: Any) -> Any:
    return tower.text_pool_type if isinstance(tower, CLIP) else tower.pool_type


def _end_token(tower: Any) -> Any:
    return tower.text_eos_id if isinstance(tower, CLIP) else tower.eos_id
