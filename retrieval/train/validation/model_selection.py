"""Which interpolation of a run's start and end (WiSE-FT) to keep, by recall on the validation pairs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from torch import Tensor

from retrieval.metrics.intervals import bootstrap_means
from retrieval.train.model.averaging import Weights, interpolate_weights
from retrieval.train.validation.comparison import QueryRecalls

_RESAMPLES: Final = 400
_CONFIDENCE: Final = 1.96  # standard errors on either side are the 95 % interval


@dataclass(frozen=True, slots=True)
class Interpolation:
    """Weights between the start and the end of a run, and their evaluation; None without validation pairs."""

    alpha: float
    weights: dict[str, Tensor]
    recalls: QueryRecalls | None


def select_interpolation(
    start: Weights, tuned: Weights, *, alphas: Sequence[float], evaluate: Callable[[Weights], QueryRecalls | None]
) -> Interpolation:
    """Return the interpolation to keep: of ascending `alphas` the greatest that is as good as the best."""
    evaluated = [evaluate(interpolate_weights(start, tuned, alpha)) for alpha in alphas]
    known = [recalls for recalls in evaluated if recalls is not None]
    index = select_last_equal(known) if known else len(alphas) - 1
    return Interpolation(alphas[index], interpolate_weights(start, tuned, alphas[index]), evaluated[index])


def select_last_equal(evaluated: Sequence[QueryRecalls]) -> int:
    """Return the last of several evaluated models, by ascending alpha, that is as good as the best.

    As good means that the 95 % interval of the paired difference in mean recall, resampled by item, holds zero. Few
    validation pairs tell little apart, and what was learned is worth more to the user than what a smaller alpha keeps
    beyond: none of the alphas forgets much.
    """
    best = max(range(len(evaluated)), key=lambda index: evaluated[index].mean)
    for index, one in reversed(list(enumerate(evaluated))):
        if evaluated[best].mean - one.mean <= _CONFIDENCE * paired_standard_error(one, evaluated[best]):
            return index
    return best


def paired_standard_error(one: QueryRecalls, other: QueryRecalls) -> float:
    """Return the standard error of the difference in mean recall of two models on the same queries."""
    count = 1 + max(int(items.max()) for _, items in one.by_direction)
    samples = [
        bootstrap_means((theirs - ours).mean(axis=1), items, count=count, resamples=_RESAMPLES, seed=0)
        for (ours, items), (theirs, _) in zip(one.by_direction, other.by_direction, strict=True)
    ]
    return float(np.nanstd(np.mean(samples, axis=0)))
