"""What each picture counts in the loss: a number that its pairs carry."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import TrainingError
from retrieval.pairs import Pair


def weights_of(
    pairs: Sequence[Pair], place_of_pair: NDArray[np.int64], *, attribute: str, count: int
) -> NDArray[np.float64]:
    """The weight (count,) of each picture: the mean of what its pairs say; `place_of_pair` has -1 for what is left out.

    Raises:
        TrainingError: a pair's attribute is missing or no number of at least 0, or all are 0.
    """
    kept = np.flatnonzero(place_of_pair >= 0)
    said = np.array([_weight(pairs[place], attribute) for place in kept.tolist()], np.float64)
    sums, times = (np.bincount(place_of_pair[kept], values, minlength=count) for values in (said, np.ones(len(said))))
    if len(kept) and not sums.any():
        raise TrainingError(f"the weight_attribute {attribute!r} is 0 for every pair: there is nothing to learn from")
    return np.asarray(sums / times)


def _weight(pair: Pair, attribute: str) -> float:
    value = pair.attributes.get(attribute)
    try:
        weight = float(value) if isinstance(value, str | int | float) else math.nan
    except ValueError:
        weight = math.nan
    if not (math.isfinite(weight) and weight >= 0):
        raise TrainingError(
            f"the weight_attribute {attribute!r} of {pair.id} is {value!r}; every pair needs a number of at least 0"
        )
    return weight
