"""Averages of weights: over the steps of a run (EMA), and between its start and its end (WiSE-FT)."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from retrieval.train.config import TrainConfig

Weights = Mapping[str, Tensor]

_ALPHAS_LITTLE_TUNED: Final = (0.2, 0.4, 0.6)
_ALPHAS: Final = (0.1, 0.2, 0.3, 0.4)
_WARMUP_STEPS: Final = 10  # the average of the first steps is a mean of few: the start weighs no more than they do


class Ema:
    """The exponential moving average of the trainable parameters and the batch statistics.

    At step t, counted from 1, average ← average + (1 - d) (weight - average), where d is the decay, or
    t / (t + 10) while that is less, so that the start is forgotten however short the run is.
    """

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        self.decay = decay
        self.weights = {name: tensor.detach().clone() for name, tensor in _averaged_tensors(model)}

    @torch.no_grad()
    def update(self, model: nn.Module, *, step: int) -> None:
        """Add the weights after a step, counted from 1, to the average."""
        weight = 1 - min(self.decay, step / (step + _WARMUP_STEPS))
        for name, tensor in _averaged_tensors(model):
            self.weights[name].lerp_(tensor, weight)


def _averaged_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)
    saved = model.state_dict()
    yield from (
        (name, buffer) for name, buffer in model.named_buffers() if buffer.is_floating_point() and name in saved
    )


@contextmanager
@torch.no_grad()
def temporary_weights(model: nn.Module, weights: Weights) -> Iterator[None]:
    """Give a model these weights, by the names of its state, within a `with` block; restore its own bit for bit."""
    state = model.state_dict()
    own = {name: state[name].clone() for name in weights}
    for name, tensor in weights.items():
        state[name].copy_(tensor)
    try:
        yield
    finally:
        for name, tensor in own.items():
            state[name].copy_(tensor)


def interpolate_weights(start: Weights, tuned: Weights, alpha: float) -> dict[str, Tensor]:
    """Return (1 - alpha) · start + alpha · tuned; integer tensors, such as counts, are the tuned ones.

    Interpolating weights rather than outputs keeps both what was learned and what was known before (WiSE-FT, Wortsman
    et al. 2022, "Robust fine-tuning of zero-shot models", arXiv 2109.01903).
    """
    return {
        name: _lerp(start[name].to(tensor), tensor, alpha) if tensor.is_floating_point() else tensor
        for name, tensor in tuned.items()
    }


def _lerp(start: Tensor, tuned: Tensor, alpha: float) -> Tensor:
    """Interpolate except where both are equal: that would turn -0 into 0 and change a fingerprint."""
    return torch.where(start == tuned, tuned, torch.lerp(start, tuned, alpha))


def wise_ft_alphas(config: "TrainConfig") -> tuple[float, ...]:
    """Return the alphas to evaluate, ascending; 1 would be the tuned model.

    The validation pairs cannot tell what a larger alpha costs elsewhere. A model whose image tower is tuned, blocks and
    all, forgets several times as much as one whose blocks stay, and a text tower that learns fast, alone, forgets more
    than a slow one; `benchmarks/fine_tune.py` shows what the defaults cost.
    """
    return _ALPHAS_LITTLE_TUNED if config.tune == "heads" or config.image_blocks == 0 else _ALPHAS
