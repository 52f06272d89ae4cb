"""Dropout that depends on the seed, the step and the item alone, not on the rest of the batch or how it is split.

An item encoded by itself, in a part of its batch or in another process then loses the same activations as in the whole
batch, so that gradients in parts equal those of the whole, and a run can be replayed. The numbers come from hashing the
item's key with the number of the draw and each place in the tensor (SplitMix64: Steele et al. 2014, "Fast splittable
pseudorandom number generators", section 5).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

_aten: Final[Any] = torch.ops.aten  # its members come into being on first use
_GOLDEN: Final = -7046029254386353131  # 2^64 / golden ratio, as a signed number; the others are the paper's, likewise
_FIRST, _SECOND = -4658895280553007687, -7723592293110685705
# Names under which modules of torch, timm and transformers hold their dropout probability.
_PROBABILITIES: Final = ("p", "prob", "drop_prob", "dropout", "dropout_p", "attention_dropout", "dropout_prob")


def has_dropout(model: nn.Module) -> bool:
    """Return whether a model has any dropout that is on."""
    values = (getattr(module, name, None) for module in model.modules() for name in _PROBABILITIES)
    return any(isinstance(value, float) and value > 0 for value in values)


class ItemDropout(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Draws the dropout masks of each item from the item's own key, within a `with` block.

    The first dimension of a mask has to be the batch, or the batch times the heads of an attention. The keys (n,) are
    integers, one for each item of the batch, all different.
    """

    def __init__(self, keys: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.keys, self.draws = keys, 0

    def __torch_dispatch__(  # noqa: PLR0917 (torch calls it so)
        self, function: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Replace the draws of torch's dropout; pass everything else on."""
        if function is _aten.bernoulli_.float:
            return args[0].copy_(self._draw_uniform(args[0].shape) < (args[1] if len(args) > 1 else 0.5))
        if function is _aten.native_dropout.default and args[2]:
            kept = self._draw_uniform(args[0].shape) >= args[1]
            return args[0] * kept / (1 - args[1]), kept
        return function(*args, **(kwargs or {}))

    def _draw_uniform(self, shape: torch.Size) -> Tensor:
        """Return numbers in [0, 1) of this shape."""
        self.draws += 1
        numbers = _mix_bits(self.keys + self.draws)
        for size in (shape[0] // len(self.keys), *shape[1:]):
            places = torch.arange(1, size + 1, device=self.keys.device)
            numbers = _mix_bits(numbers[..., None] + places * _GOLDEN)
        return (_shift_right(numbers, 11) * 2.0**-53).reshape(shape)


_active: list[ItemDropout] = []


@contextmanager
def item_dropout(keys: Tensor | None) -> Iterator[None]:
    """Key dropout by items within a `with` block; leave it to torch without keys."""
    if keys is None:
        yield
        return
    dropout = ItemDropout(keys)
    _active.append(dropout)
    try:
        with dropout, sdpa_kernel(SDPBackend.MATH):  # the fast kernels draw for themselves
            yield
    finally:
        _active.remove(dropout)


@contextmanager
def select_items(places: NDArray[np.int64]) -> Iterator[None]:
    """Within a `with` block, only these of the items are encoded, in this order."""
    if not _active:
        yield
        return
    dropout = _active[-1]
    keys, draws = dropout.keys, dropout.draws
    dropout.keys = keys[torch.from_numpy(places).to(keys.device)]
    try:
        yield
    finally:
        dropout.keys, dropout.draws = keys, draws


def item_keys(seed: int, *, step: int, side: int, items: range) -> Tensor:
    """Return keys (n,) of items of the batch of a step; images and texts are two sides."""
    key = torch.zeros((), dtype=torch.int64)
    for part in np.array([seed, step, side], np.uint64).astype(np.int64).tolist():
        key = _mix_bits(key + part + _GOLDEN)
    return _mix_bits(key + torch.arange(items.start, items.stop) * _GOLDEN)


def _mix_bits(numbers: Tensor) -> Tensor:
    numbers = (numbers ^ _shift_right(numbers, 30)) * _FIRST
    numbers = (numbers ^ _shift_right(numbers, 27)) * _SECOND
    return numbers ^ _shift_right(numbers, 31)


def _shift_right(numbers: Tensor, places: int) -> Tensor:
    """Shift with zeros coming in: torch keeps the sign."""
    return (numbers >> places) & ((1 << (64 - places)) - 1)
