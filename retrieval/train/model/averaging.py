"""Averages of weights: along the way of a run (EMA), and between its start and its end (WiSE-FT)."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import Tensor, nn

from retrieval.metrics.intervals import resampled_means

if TYPE_CHECKING:
    from collections.abc import Callable

    from retrieval.train.config import TrainConfig
    from retrieval.train.validation.validator import Marks

Weights = Mapping[str, Tensor]

_BOLD: Final = (0.2, 0.4, 0.6)
_CAREFUL: Final = (0.1, 0.2, 0.3, 0.4)

_RESAMPLES: Final = 400
_NOISE: Final = 1.96  # standard errors on either side are the 95 % interval
_WARM_STEPS: Final = 10  # the average of the first steps is a mean of few: the start weighs no more than they do


class Ema:
    """The exponential moving average of what a training changes: parameters that move, and batch statistics.

    At step t, counted from 1, average ← average + (1 - d) (weight - average), where d is the decay, or
    t / (t + 10) while that is less: so the start is forgotten however short the run is.
    """

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        self.decay = decay
        self.weights = {name: tensor.detach().clone() for name, tensor in _moving(model)}

    @torch.no_grad()
    def update(self, model: nn.Module, *, step: int) -> None:
        """Take in the weights after a step, counted from 1."""
        weight = 1 - min(self.decay, step / (step + _WARM_STEPS))
        for name, tensor in _moving(model):
            self.weights[name].lerp_(tensor, weight)

    @contextmanager
    def average_parameters(self, model: nn.Module) -> Iterator[None]:
        """Let the model have the average's weights for a while."""
        with temporary_weights(model, self.weights):
            yield


@contextmanager
@torch.no_grad()
def temporary_weights(model: nn.Module, weights: Weights) -> Iterator[None]:
    """Let a model have some weights by the names of its state for a while, and then its own, bit for bit."""
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
    """Return (1 - alpha) · start + alpha · tuned, where equal weights stay what they are; counts are the tuned ones.

    In the space of weights, not of answers: what was learned and what was known before are kept both (WiSE-FT,
    Wortsman et al. 2022, "Robust fine-tuning of zero-shot models", arXiv 2109.01903).
    """
    return {
        name: _between(start[name].to(tensor), tensor, alpha) if tensor.is_floating_point() else tensor
        for name, tensor in tuned.items()
    }


def _between(start: Tensor, tuned: Tensor, alpha: float) -> Tensor:
    """Go from one to the other; not where they are equal, since that would turn -0 into 0 and change a fingerprint."""
    return torch.where(start == tuned, tuned, torch.lerp(start, tuned, alpha))


def wise_ft_alphas(config: "TrainConfig") -> tuple[float, ...]:
    """Return how much of the tuned weights there is in each mix that is graded; 1 would be the tuned model.

    What more costs elsewhere the validation pairs cannot tell. A model whose image tower is tuned, blocks and all,
    forgets several times as much as one whose blocks stay, and a text tower that learns fast, alone, forgets more than
    a slow one; `benchmarks/fine_tune.py` shows what the defaults cost.
    """
    return _BOLD if config.tune == "heads" or config.image_blocks == 0 else _CAREFUL


@dataclass(frozen=True, slots=True)
class Mix:
    """A mix of the start and the end of a run, and how it did; no marks where there are no validation pairs."""

    alpha: float
    weights: dict[str, Tensor]
    marks: "Marks | None"


def best_mix(
    start: Weights, tuned: Weights, *, alphas: Sequence[float], grade: "Callable[[Weights], Marks | None]"
) -> Mix:
    """Return the mix that is to be kept: of several the boldest one that is as good as the best."""
    graded = [grade(interpolate_weights(start, tuned, alpha)) for alpha in alphas]
    known = [marks for marks in graded if marks is not None]
    place = choose(known) if known else len(alphas) - 1
    return Mix(alphas[place], interpolate_weights(start, tuned, alphas[place]), graded[place])


def choose(marks: Sequence["Marks"]) -> int:
    """Return the last of several graded models, from the most careful to the boldest, that is as good as the best.

    As good is what the best cannot be told from: the 95 % interval of the paired difference in mean recall, resampled
    by item, holds zero. Few validation pairs tell little apart, and what was learned is worth more to who tunes than
    what the careful ones keep beyond: none of `alphas` forgets much.
    """
    best = max(range(len(marks)), key=lambda place: marks[place].mean)
    for place, one in reversed(list(enumerate(marks))):
        if marks[best].mean - one.mean <= _NOISE * standard_error(one, marks[best]):
            return place
    return best


def standard_error(one: "Marks", other: "Marks") -> float:
    """Standard error of the difference in mean recall of two models on the same queries."""
    count = 1 + max(int(items.max()) for _, items in one.ways)
    samples = [
        resampled_means((theirs - ours).mean(axis=1), items, count=count, resamples=_RESAMPLES, seed=0)
        for (ours, items), (theirs, _) in zip(one.ways, other.ways, strict=True)
    ]
    return float(np.nanstd(np.mean(samples, axis=0)))


def _moving(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)
    yield from ((name, buffer) for name, buffer in model.named_buffers() if _is_statistic(model, name, buffer))


def _is_statistic(model: nn.Module, name: str, buffer: Tensor) -> bool:
    return buffer.is_floating_point() and name in model.state_dict()
