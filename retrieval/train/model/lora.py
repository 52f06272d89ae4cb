"""LoRA: matrices that stay as they are, each with a trained product of two thin ones beside it; plain again at save.

Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models" (arXiv 2106.09685): W + (2 / √r) · B A, where B is
zero at first. The scale of 2 / √r keeps the step sizes of all ranks alike (Kalajdzievski 2023, arXiv 2312.03732).
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

_ORIGINAL: Final = ".original"
_MARK: Final = "parametrizations."
_SCALE: Final = 2.0


class LowRank(nn.Module):
    """What is added to one matrix; a kernel of a 1 × 1 convolution is one too."""

    def __init__(self, weight: Tensor, *, rank: int) -> None:
        super().__init__()
        rows, columns = len(weight), weight[0].numel()
        self.down = nn.Parameter(torch.empty(rank, columns, device=weight.device))
        self.up = nn.Parameter(torch.zeros(rows, rank, device=weight.device))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))  # as torch draws a linear layer
        self.scale = _SCALE / math.sqrt(rank)

    def forward(self, weight: Tensor) -> Tensor:
        """The weight with the product added."""
        return weight + (self.scale * self.up @ self.down).reshape(weight.shape)


def add_lora(model: nn.Module, names: set[str], *, rank: int, seed: int) -> None:
    """Give each matrix of attention and MLP layers among the parameters `names` its product."""
    torch.manual_seed(seed)
    for module, attribute in [*_matrices(model, names)]:
        weight: Any = getattr(module, attribute)
        parametrize.register_parametrization(module, attribute, LowRank(weight, rank=rank))


def is_lora(name: str) -> bool:
    """Whether a parameter is one of the thin matrices."""
    return _MARK in name and not name.endswith(_ORIGINAL)


def merged_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """The state of a model with every product merged into its matrix, under the names of the model without them."""
    merged = {}
    for name, tensor in model.state_dict().items():
        before, mark, after = name.rpartition(_MARK)
        if not mark:
            merged[name] = tensor
        elif name.endswith(_ORIGINAL):
            attribute = after.removesuffix(_ORIGINAL)
            merged[before + attribute] = getattr(model.get_submodule(before.removesuffix(".")), attribute).detach()
    return merged


def unmerged_state_dict(model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of a model with products that has these plain weights: the products are zero."""
    spread = {}
    for name, tensor in model.state_dict().items():
        before, mark, after = name.rpartition(_MARK)
        if mark:
            attribute = after.partition(".")[0]
            spread[name] = weights[before + attribute] if name.endswith(_ORIGINAL) else torch.zeros_like(tensor)
        else:
            spread[name] = weights[name]
    return spread


def _matrices(model: nn.Module, names: set[str]) -> Iterator[tuple[nn.Module, str]]:
    """Linear layers, what attention holds of them in itself, and 1 × 1 convolutions, which are linear layers too."""
    for place, module in model.named_modules():
        for attribute, weight in module.named_parameters(recurse=False):
            thin = weight.ndim >= 2 and weight[0].numel() == weight.shape[1]  # noqa: PLR2004 (a matrix)
            layer = isinstance(module, nn.Linear | nn.Conv2d) and attribute == "weight"
            attention = isinstance(module, nn.MultiheadAttention) and attribute.endswith("proj_weight")
            if f"{place}.{attribute}" in names and thin and (layer or attention):
                yield module, attribute
