"""What each training step sees, as a pure function of (seed, step): any step can be had without those before it.

All chance comes from the counter-based generator Philox (Salmon et al. 2011, "Parallel random numbers: as easy as
1, 2, 3"), whose raw output NumPy promises never to change: a run can be resumed under another version of NumPy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray

from retrieval.train.data.augmentation import LOOK_DRAWS
from retrieval.train.data.balance import balanced, dealt
from retrieval.train.data.negatives import HardNegatives, arrange_epoch

# What a stream of random numbers is for; dataset.py has 3.
_ORDER, _CAPTION, _CROP, _LOOK, _WORDS, _TURN, _DEAL = 0, 1, 2, 4, 5, 6, 7
_CROP_DRAWS = 4


@dataclass(frozen=True, slots=True)
class BatchIndices:
    """One step's pictures, all different, the caption drawn for each, and the chance that its look depends on."""

    step: int
    epoch: int
    images: NDArray[np.int64]  # (b,)
    captions: NDArray[np.int64]  # (b,) which of the picture's own captions
    crop_draws: NDArray[np.float64]  # (b, 4), uniform in [0, 1)
    augmentation_draws: NDArray[np.float64]  # (b, 5), likewise: for `augmentation.Augmentation`
    samples: NDArray[
        np.int64
    ]  # (b,) which number of the epoch each shows: with the epoch, the key to its words' chance


@dataclass(frozen=True, slots=True, eq=False)  # two samplers are never compared, and a million counts are slow to hash
class BatchSampler:
    """Every batch of a training run over pictures numbered from 0.

    An epoch shows each picture once, with one of its captions, in a new order. It is cut into batches whose sizes
    differ by one at most and never exceed `batch_size`: a short tail would teach little and upset batch normalisation.
    With `hard` pictures and captions that are hard for each other meet in a batch: see `mining.arranged`.
    With `classes` an epoch has as many showings, but each class has its equal share of them: see `balance.balanced`.
    """

    caption_counts: Sequence[int]  # of each picture, at least 1
    batch_size: int
    seed: int
    classes: Sequence[int] = ()  # of each picture; empty to show each picture once an epoch
    hard: HardNegatives | None = None  # what is hard for each picture, for as long as that holds
    hard_share: float = 0.0  # of each batch, to be hard for the rest of it

    @property
    def steps_per_epoch(self) -> int:
        """How many steps show every picture once."""
        return -(-len(self.caption_counts) // self.batch_size)

    @property
    def sizes(self) -> list[int]:
        """Pictures in each batch of an epoch."""
        small, larger = divmod(len(self.caption_counts), self.steps_per_epoch)
        return [small + (place < larger) for place in range(self.steps_per_epoch)]

    def draw_batch(self, step: int) -> BatchIndices:
        """The batch of a step, counted from 0."""
        epoch, place = divmod(step, self.steps_per_epoch)
        shown = _epoch(self, epoch)
        start = sum(self.sizes[:place])
        part = slice(start, start + self.sizes[place])
        pictures, turns = shown.pictures[part], shown.turns[part]
        return BatchIndices(
            step, epoch, pictures, shown.captions[turns], shown.crop_draws[turns], shown.looks[turns], turns
        )

    def words(self, epoch: int, turn: int, count: int) -> NDArray[np.float64]:
        """Numbers (count,) in [0, 1) for the words of a caption that is shown."""
        return uniform(self.seed, epoch=epoch, purpose=_WORDS, count=count, place=turn)


@dataclass(frozen=True, slots=True)
class _Epoch:
    """What an epoch shows, batch after batch: `turns` says where the draws of each showing stand."""

    pictures: NDArray[np.int64]  # (n,)
    turns: NDArray[np.int64]  # (n,) the picture itself, or with classes a number of each showing's own
    captions: NDArray[np.int64]  # (n,) by turn
    crop_draws: NDArray[np.float64]  # (n, 4) by turn
    looks: NDArray[np.float64]  # (n, 5) by turn


@lru_cache(maxsize=4)  # threads that work ahead may be in two epochs at once
def _epoch(sampler: BatchSampler, epoch: int) -> _Epoch:
    count = len(sampler.caption_counts)
    order = np.argsort(_raw(sampler.seed, epoch=epoch, purpose=_ORDER, count=count), kind="stable")
    shown, turns = np.arange(count), order
    if len(sampler.classes):
        offset, deal = (uniform(sampler.seed, epoch=epoch, purpose=use, count=count) for use in (_TURN, _DEAL))
        shown = balanced(sampler.classes, order, steps=sampler.steps_per_epoch, offset=float(offset[0]))
        turns = dealt(count, deal[: sampler.steps_per_epoch])
    draws = partial(uniform, sampler.seed, epoch=epoch)
    captions = (draws(purpose=_CAPTION, count=count) * np.asarray(sampler.caption_counts)[shown]).astype(np.int64)
    if sampler.hard is not None:  # and then without classes: a turn is its picture
        turns, captions = arrange_epoch(
            turns, captions, hard=sampler.hard, sizes=sampler.sizes, share=sampler.hard_share
        )
    return _Epoch(
        pictures=shown[turns],
        turns=turns,
        captions=captions,
        crop_draws=draws(purpose=_CROP, count=count * _CROP_DRAWS).reshape(count, _CROP_DRAWS),
        looks=draws(purpose=_LOOK, count=count * LOOK_DRAWS).reshape(count, LOOK_DRAWS),
    )


def uniform(seed: int, *, epoch: int, purpose: int, count: int, place: int = 0) -> NDArray[np.float64]:
    """Numbers (count,) in [0, 1); the one at place i is the same whatever the count. Each `place` has its own."""
    raw = _raw(seed, epoch=epoch, purpose=purpose, count=count, place=place)
    return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _raw(seed: int, *, epoch: int, purpose: int, count: int, place: int = 0) -> NDArray[np.uint64]:
    generator = np.random.Philox(key=(seed, epoch), counter=(0, place, 0, purpose))
    return np.asarray(generator.random_raw(count), dtype=np.uint64)
