"""Balanced epochs: rare classes are shown as often as common ones, and still no picture twice in a batch."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import TrainingError
from retrieval.evaluate.collection import caption_key
from retrieval.pairs import Pair

Ids = NDArray[np.int64]

BY_TEXT: Final = "text"
_SHOWN_NAMES: Final = 8


def classes_of(pairs: Sequence[Pair], place_of_pair: Ids, *, pictures: int, by: str) -> tuple[int, ...]:
    """The class of each picture, numbered from 0; pictures that say nothing of it are one class of their own.

    Args:
        pairs: what pictures come with; of several pairs of one picture the first counts.
        place_of_pair: the number of each pair's picture, -1 for none.
        pictures: how many there are.
        by: an attribute's name, or "text": pictures with the same first caption are one class.

    Raises:
        TrainingError: no picture has that attribute.
    """
    values: dict[int, str | None] = {}
    for pair, place in zip(pairs, place_of_pair.tolist(), strict=True):
        if place >= 0 and values.get(place) is None:
            values[place] = _value(pair, by)
    if not any(value is not None for value in values.values()):
        names = sorted({name for pair in pairs for name in pair.attributes})
        there = f"there are {', '.join(names[:_SHOWN_NAMES])}" if names else "there are none"
        raise TrainingError(f"no picture has an attribute {by!r} to balance by; {there}, and {BY_TEXT!r}")
    numbers: dict[str | None, int] = {}
    return tuple(numbers.setdefault(values.get(place), len(numbers)) for place in range(pictures))


def _value(pair: Pair, by: str) -> str | None:
    if by == BY_TEXT:
        return next((caption_key(caption) for caption in pair.captions if caption.strip()), None)
    attributes: Mapping[str, object] = pair.attributes
    return None if attributes.get(by) is None else caption_key(str(attributes[by]))


def balanced(classes: Sequence[int], order: Ids, *, steps: int, offset: float) -> Ids:
    """The pictures that an epoch shows, (n,), those that come several times side by side.

    Every class is expected equally often, and within it every picture. As no picture can be shown twice in a batch,
    none comes more often than there are steps: what a class with few pictures leaves over goes to the others.

    Args:
        classes: of each picture (n,).
        order: the pictures (n,) in a random order.
        steps: of an epoch.
        offset: a number in [0, 1). Systematic sampling (Madow 1949) makes of it how often each picture comes: as often
            as expected, rounded up or down, and so that all together are n.
    """
    expected = expectations(np.asarray(classes), most=steps)[order]
    upto = np.minimum(np.floor(np.cumsum(expected) + offset), len(order))
    counts = np.minimum(np.diff(upto, prepend=0).astype(np.int64), steps)
    missing = len(order) - counts.sum()  # where rounding has made a sum of 99.99... out of 100
    counts[np.flatnonzero(counts < steps)[:missing]] += 1
    return np.repeat(order, counts)


def expectations(classes: Ids, *, most: int) -> NDArray[np.float64]:
    """How often each picture is expected in an epoch, (n,): n in all, equally many of each class, none above `most`."""
    sizes = np.bincount(classes).astype(np.float64)
    share, full = np.zeros_like(sizes), sizes == 0
    room = float(len(classes))
    while True:
        share[~full] = room / max(int((~full).sum()), 1)
        over = ~full & (share > sizes * most)
        if not over.any():
            return np.asarray((share / np.maximum(sizes, 1))[classes])
        share[over], full = (sizes * most)[over], full | over
        room = len(classes) - share[full].sum()


def dealt(count: int, chance: NDArray[np.float64]) -> Ids:
    """Places (count,) of what each batch takes, batch after batch, where places are dealt out to them in turn.

    Neighbours go to different batches; sizes differ by one at most, larger ones first, as `np.array_split` cuts them.

    Args:
        count: how many places.
        chance: a number for each batch, which says in what order they come.
    """
    steps = len(chance)
    larger = count % steps
    order = np.argsort(chance, kind="stable")
    ordered = [*order[order < larger], *order[order >= larger]]
    return np.concatenate([np.arange(batch, count, steps) for batch in ordered])
