"""Dropout that depends on the seed, the step and the item alone: not on what else is in the batch, or in which part.

An item encoded by itself, in a part of its batch or in another process then loses the same activations as in the whole
batch, so that gradients in parts are those of the whole, and a replay is a replay. The numbers come from hashing the
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
_FIRST, _SECOND = -4658895280553007687, -7723592293110705685
# Under these names modules of torch, timm and transformers keep how likely they drop something.
_CHANCES: Final = ("p", "prob", "drop_prob", "dropout", "dropout_p", "attention_dropout", "dropout_prob")


def has_dropout(model: nn.Module) -> bool:
    """Whether a model has dropout of any kind that is on."""
    chances = (getattr(module, name, None) for module in model.modules() for name in _CHANCES)
    return any(isinstance(chance, float) and chance > 0 for chance in chances)


class ItemDropout(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While this is on, what is drawn for dropout is drawn for each item by itself.

    The first dimension of what is drawn has to be the batch, or the batch times the heads of an attention.

    Args:
        keys: (n,) integers, one for each item of the batch, all different.
    """

    def __init__(self, keys: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.keys, self.draws = keys, 0

    def __torch_dispatch__(  # noqa: PLR0917 (torch calls it so)
        self, function: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Draw anew what torch would draw; leave everything else to it."""
        if function is _aten.bernoulli_.float:
            return args[0].copy_(self._uniform(args[0].shape) < (args[1] if len(args) > 1 else 0.5))
        if function is _aten.native_dropout.default and args[2]:
            kept = self._uniform(args[0].shape) >= args[1]
            return args[0] * kept / (1 - args[1]), kept
        return function(*args, **(kwargs or {}))

    def _uniform(self, shape: torch.Size) -> Tensor:
        """Numbers in [0, 1), of this shape."""
        self.draws += 1
        numbers = _hashed(self.keys + self.draws)
        for size in (shape[0] // len(self.keys), *shape[1:]):
            places = torch.arange(1, size + 1, device=self.keys.device)
            numbers = _hashed(numbers[..., None] + places * _GOLDEN)
        return (_shifted(numbers, 11) * 2.0**-53).reshape(shape)


_current: list[ItemDropout] = []


@contextmanager
def select_items(places: NDArray[np.int64]) -> Iterator[None]:
    """Encode these of the items only, in this order: those that dropout is keyed by."""
    if not _current:
        yield
        return
    chance = _current[-1]
    everyone, draws = chance.keys, chance.draws
    chance.keys = everyone[torch.from_numpy(places).to(everyone.device)]
    try:
        yield
    finally:
        chance.keys, chance.draws = everyone, draws


@contextmanager
def item_dropout(keys: Tensor | None) -> Iterator[None]:
    """Have dropout depend on these keys of the items; or leave it to torch where there are none."""
    if keys is None:
        yield
        return
    chance = ItemDropout(keys)
    _current.append(chance)
    try:
        with chance, sdpa_kernel(SDPBackend.MATH):  # the fast kernels draw for themselves
            yield
    finally:
        _current.remove(chance)


def item_keys(seed: int, *, step: int, side: int, items: range) -> Tensor:
    """Keys (n,) of items of the batch of a step; pictures and texts are two sides."""
    start = np.array([seed, step, side], np.uint64).astype(np.int64)
    key = torch.zeros((), dtype=torch.int64)
    for part in start.tolist():
        key = _hashed(key + part + _GOLDEN)
    return _hashed(key + torch.arange(items.start, items.stop) * _GOLDEN)


def _hashed(numbers: Tensor) -> Tensor:
    numbers = (numbers ^ _shifted(numbers, 30)) * _FIRST
    numbers = (numbers ^ _shifted(numbers, 27)) * _SECOND
    return numbers ^ _shifted(numbers, 31)


def _shifted(numbers: Tensor, places: int) -> Tensor:
    """Shifted to the right with zeros coming in: torch keeps the sign."""
    return (numbers >> places) & ((1 << (64 - places)) - 1)
