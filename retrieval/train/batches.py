"""What each training step sees, as a pure function of (seed, step): any step can be had without those before it.

All chance comes from the counter-based generator Philox (Salmon et al. 2011, "Parallel random numbers: as easy as
1, 2, 3"), whose raw output NumPy promises never to change: a run can be resumed under another version of NumPy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_ORDER, _CAPTION, _CROP = range(3)  # what a stream of random numbers is for
_CROP_DRAWS = 4


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's pictures, all different, the caption drawn for each, and the chance that its crop depends on."""

    step: int
    epoch: int
    pictures: NDArray[np.int64]  # (b,)
    captions: NDArray[np.int64]  # (b,) which of the picture's own captions
    crops: NDArray[np.float64]  # (b, 4), uniform in [0, 1)


@dataclass(frozen=True, slots=True, eq=False)  # two schedules are never compared, and a million counts are slow to hash
class Schedule:
    """Every batch of a training run over pictures numbered from 0.

    An epoch shows each picture once, with one of its captions, in a new order. It is cut into batches whose sizes
    differ by one at most and never exceed `batch_size`: a short tail would teach little and upset batch normalisation.
    """

    caption_counts: Sequence[int]  # of each picture, at least 1
    batch_size: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """How many steps show every picture once."""
        return -(-len(self.caption_counts) // self.batch_size)

    def batch(self, step: int) -> Batch:
        """The batch of a step, counted from 0."""
        epoch, place = divmod(step, self.steps_per_epoch)
        order, captions, crops = _epoch(self, epoch)
        pictures = np.array_split(order, self.steps_per_epoch)[place]
        return Batch(step, epoch, pictures, captions[pictures], crops[pictures])


@lru_cache(maxsize=4)  # threads that work ahead may be in two epochs at once
def _epoch(schedule: Schedule, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Order of the pictures (n,), caption of each picture (n,), draws of each picture (n, 4)."""
    count = len(schedule.caption_counts)
    order = np.argsort(_raw(schedule.seed, epoch=epoch, purpose=_ORDER, count=count), kind="stable")
    draws = uniform(schedule.seed, epoch=epoch, purpose=_CAPTION, count=count)
    captions = (draws * np.asarray(schedule.caption_counts)).astype(np.int64)
    crops = uniform(schedule.seed, epoch=epoch, purpose=_CROP, count=count * _CROP_DRAWS)
    return order, captions, crops.reshape(count, _CROP_DRAWS)


def uniform(seed: int, *, epoch: int, purpose: int, count: int) -> NDArray[np.float64]:
    """Numbers (count,) in [0, 1); the one at place i is the same whatever the count."""
    return (_raw(seed, epoch=epoch, purpose=purpose, count=count) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _raw(seed: int, *, epoch: int, purpose: int, count: int) -> NDArray[np.uint64]:
    generator = np.random.Philox(key=(seed, epoch), counter=(0, 0, 0, purpose))
    return np.asarray(generator.random_raw(count), dtype=np.uint64)


def positives(texts: Sequence[int], right: Sequence[Sequence[int]]) -> NDArray[np.bool_]:
    """Which texts of a batch are right for which pictures: boolean (b, b), [i, j] for picture i and text j.

    Args:
        texts: the number of the text drawn for each picture; equal texts have equal numbers.
        right: for each picture the numbers of all texts that are right for it, in the batch or not.
    """
    columns: dict[int, list[int]] = {}
    for column, text in enumerate(texts):
        columns.setdefault(text, []).append(column)
    matrix = np.eye(len(texts), dtype=np.bool_)
    for row, numbers in enumerate(right):
        for text in numbers:
            if text in columns:
                matrix[row, columns[text]] = True
    return matrix
