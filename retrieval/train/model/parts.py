"""Weights of a model's parts from local files: an image tower of timm, a text model of transformers."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from retrieval.errors import TrainingError
from retrieval.train.model.param_groups import Side, get_tower


def load_tower_weights(model: Any, side: Side, path: Path) -> None:
    """Give one tower of `model` trained weights: all of it but its head.

    Args:
        model: CLIP or CustomTextCLIP of open_clip.
        side: whose weights they are.
        path: a safetensors file, with the names of timm's model, of transformers' model, or of open_clip's tower; or a
            folder that holds such a file beside its config.

    Raises:
        TrainingError: the file cannot be read, or is of another model.
    """
    file = path / "model.safetensors" if path.is_dir() else path
    try:
        weights = load_file(file)
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"the {side} tower's weights {file} cannot be read: {error}") from error
    tower = get_tower(model, side)
    body = getattr(tower, "trunk", getattr(tower, "transformer", None) if hasattr(tower, "config") else None) or tower
    own = body.state_dict()
    weights = _stripped(weights, own)
    fitting = {name: tensor for name, tensor in weights.items() if name in own and tensor.shape == own[name].shape}
    missing = sorted(name for name in own if name not in fitting and not _is_head(name) and _is_weight(own[name]))
    if missing:
        raise TrainingError(
            f"{file} is of another model than the {side} tower: it has no {missing[0]} of shape "
            f"{tuple(own[missing[0]].shape)}" + (f", nor {len(missing) - 1} more" if len(missing) > 1 else "")
        )
    body.load_state_dict(fitting, strict=False)


def _stripped(weights: dict[str, torch.Tensor], own: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights under the body's own names: a model with a head keeps its body under a name, such as "bert."."""
    prefixes = {""} | {name.split(".")[0] + "." for name in weights}
    best = max(sorted(prefixes), key=lambda prefix: sum(prefix + name in weights for name in own))
    return {name.removeprefix(best): tensor for name, tensor in weights.items() if name.startswith(best)}


def _is_head(name: str) -> bool:
    return name in {"proj", "text_projection"} or name.startswith(("head.", "fc.", "classifier.", "pooler.", "proj."))


def _is_weight(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point()
