"""LoRA: frozen matrices, each with a trained product of two low-rank ones beside it, merged when a model is saved.

Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models" (arXiv 2106.09685): W + (2 / √r) · B A, where B is
zero at first. The scale of 2 / √r keeps the step sizes of all ranks alike (Kalajdzievski 2023, arXiv 2312.03732).
"""

import math
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

_PARAMETRIZATIONS: Final = "parametrizations."  # and the next one: torch's names in the state of a model
_ORIGINAL: Final = ".original"
_SCALE: Final = 2.0


class LowRankUpdate(nn.Module):
    """Adds B A to one matrix; a kernel of a 1 × 1 convolution is one too."""

    def __init__(self, weight: Tensor, *, rank: int) -> None:
        super().__init__()
        rows, columns = len(weight), weight[0].numel()
        self.down = nn.Parameter(torch.empty(rank, columns, device=weight.device))  # A
        self.up = nn.Parameter(torch.zeros(rows, rank, device=weight.device))  # B
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))  # as torch initializes a linear layer
        self.scale = _SCALE / math.sqrt(rank)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight with the product added."""
        return weight + (self.scale * self.up @ self.down).reshape(weight.shape)


def add_lora(model: nn.Module, names: set[str], *, rank: int, seed: int) -> None:
    """Add a low-rank update to each matrix of attention and MLP layers among the parameters `names`.

    A 1 × 1 convolution is a linear layer too; attention has matrices of its own.
    """
    torch.manual_seed(seed)
    for path, module in [*model.named_modules()]:
        for attribute, weight in [*module.named_parameters(recurse=False)]:
            is_matrix = weight.ndim >= 2 and weight[0].numel() == weight.shape[1]  # noqa: PLR2004 (rows and columns)
            layer = isinstance(module, nn.Linear | nn.Conv2d) and attribute == "weight"
            attention = isinstance(module, nn.MultiheadAttention) and attribute.endswith("proj_weight")
            if f"{path}.{attribute}" in names and is_matrix and (layer or attention):
                parametrize.register_parametrization(module, attribute, LowRankUpdate(weight, rank=rank))


def is_lora_parameter(name: str) -> bool:
    """Return whether a parameter is one of the low-rank matrices."""
    return _PARAMETRIZATIONS in name and not name.endswith(_ORIGINAL)


def merged_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """Return the state of a model with its low-rank updates merged in, under the names of the model without LoRA."""
    merged = {}
    for name, tensor in model.state_dict().items():
        before, found, after = name.rpartition(_PARAMETRIZATIONS)
        if not found:
            merged[name] = tensor
        elif name.endswith(_ORIGINAL):
            attribute = after.removesuffix(_ORIGINAL)
            merged[before + attribute] = getattr(model.get_submodule(before.removesuffix(".")), attribute).detach()
    return merged


def unmerged_state_dict(model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state of a model with LoRA that amounts to these merged weights: the updates are zero."""
    state = {}
    for name, tensor in model.state_dict().items():
        before, found, after = name.rpartition(_PARAMETRIZATIONS)
        plain = before + after.partition(".")[0] if found else name
        state[name] = torch.zeros_like(tensor) if is_lora_parameter(name) else weights[plain]
    return state
