"""The batches of a training run, as a pure function of (seed, step): any step can be had without those before it.

All randomness comes from the counter-based generator Philox (Salmon et al. 2011, "Parallel random numbers: as easy as
1, 2, 3"), whose raw output NumPy promises never to change: a run can be resumed under another version of NumPy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.vectors import Ids
from retrieval.train.data.negatives import HardNegatives, place_hard_negatives
from retrieval.train.data.transforms import AUGMENTATION_DRAWS, CROP_DRAWS

Draws = NDArray[np.float64]

# The streams of random numbers; 3 was used before.
_ORDER, _CAPTION, _CROP, _AUGMENTATION, _WORDS, _BALANCE, _DEAL = 0, 1, 2, 4, 5, 6, 7


class BatchIndices(NamedTuple):
    """The images of a batch, or of a whole epoch, with the caption drawn for each and the draws of its augmentation."""

    epoch: int  # counted from 0
    images: Ids  # (b,); within a batch all are different
    captions: Ids  # (b,), which of the image's own captions
    crop_draws: Draws  # (b, 4), uniform in [0, 1)
    augmentation_draws: Draws  # (b, 5), likewise
    samples: Ids  # (b,), number of each sample in its epoch, which its draws belong to


@dataclass(frozen=True, slots=True, eq=False)  # samplers are never compared, and a million counts are slow to hash
class BatchSampler:
    """Samples every batch of a training run over images numbered from 0.

    An epoch shows each image once, with one of its captions, in a new order. It is cut into batches whose sizes differ
    by one at most and never exceed `batch_size`: a short last batch would teach little and upset batch normalisation.
    With `negatives`, images and captions that are hard for each other meet in a batch: see `place_hard_negatives`.
    With `classes` an epoch has as many samples, but each class has its equal share of them: see `sample_balanced`.
    """

    caption_counts: Sequence[int]  # of each image, at least 1
    batch_size: int  # at most
    seed: int
    classes: Sequence[int] = ()  # of each image; empty to show each image once an epoch
    negatives: HardNegatives | None = None  # of each image, for the epoch under way
    negative_fraction: float = 0.0  # of each batch, to fill with hard negatives of the rest

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches of an epoch."""
        return -(-len(self.caption_counts) // self.batch_size)

    @property
    def batch_sizes(self) -> list[int]:
        """Number of images in each batch of an epoch."""
        small, larger = divmod(len(self.caption_counts), self.steps_per_epoch)
        return [small + (place < larger) for place in range(self.steps_per_epoch)]

    def draw_batch(self, step: int) -> BatchIndices:
        """Return the batch of a step, counted from 0."""
        epoch, place = divmod(step, self.steps_per_epoch)
        drawn = _draw_epoch(self, epoch)
        start = sum(self.batch_sizes[:place])
        part = slice(start, start + self.batch_sizes[place])
        return BatchIndices._make([epoch, *(values[part] for values in drawn[1:])])

    def draw_words(self, epoch: int, sample: int, count: int) -> Draws:
        """Return uniform draws (count,) for the words of a sample's caption."""
        return draw_uniform(self.seed, epoch=epoch, stream=_WORDS, count=count, substream=sample)


@lru_cache(maxsize=4)  # threads that work ahead may be in two epochs at once
def _draw_epoch(sampler: BatchSampler, epoch: int) -> BatchIndices:
    count = len(sampler.caption_counts)
    order = np.argsort(_draw_bits(sampler.seed, epoch=epoch, stream=_ORDER, count=count), kind="stable")
    draw = partial(draw_uniform, sampler.seed, epoch=epoch)
    images, samples = np.arange(count), order
    if len(sampler.classes):
        offset, deal = float(draw(stream=_BALANCE, count=1)[0]), draw(stream=_DEAL, count=sampler.steps_per_epoch)
        images = sample_balanced(sampler.classes, order, steps=sampler.steps_per_epoch, offset=offset)
        samples = deal_into_batches(count, deal)
    captions = (draw(stream=_CAPTION, count=count) * np.asarray(sampler.caption_counts)[images]).astype(np.int64)
    if sampler.negatives is not None:  # and then without classes: a sample is its image
        samples, captions = place_hard_negatives(
            samples,
            captions,
            negatives=sampler.negatives,
            sizes=sampler.batch_sizes,
            fraction=sampler.negative_fraction,
        )
    crops, augmentations = (
        draw(stream=stream, count=count * width).reshape(count, width)
        for stream, width in ((_CROP, CROP_DRAWS), (_AUGMENTATION, AUGMENTATION_DRAWS))
    )
    return BatchIndices(
        epoch=epoch,
        images=images[samples],
        captions=captions[samples],
        crop_draws=crops[samples],
        augmentation_draws=augmentations[samples],
        samples=samples,
    )


def sample_balanced(classes: Sequence[int], order: Ids, *, steps: int, offset: float) -> Ids:
    """Sample an epoch's images (n,) with every class expected equally often; repeats stand side by side.

    Within a class every image is expected equally often. As no image can be shown twice in a batch, none comes more
    often than there are steps: what a class with few images leaves over goes to the others. `order` are the images in
    a random order; from the uniform draw `offset` systematic sampling (Madow 1949) makes how often each image comes: as
    often as expected, rounded up or down, and so that all together are n.
    """
    expected = expected_counts(np.asarray(classes), maximum=steps)[order]
    upto = np.minimum(np.floor(np.cumsum(expected) + offset), len(order))
    counts = np.minimum(np.diff(upto, prepend=0).astype(np.int64), steps)
    missing = len(order) - counts.sum()  # where rounding has made a sum of 99.99... out of 100
    counts[np.flatnonzero(counts < steps)[:missing]] += 1
    return np.repeat(order, counts)


def expected_counts(classes: Ids, *, maximum: int) -> Draws:
    """Return how often each image is expected in an epoch, (n,): n in all, equally many of each class.

    No image is expected more than `maximum` times.
    """
    sizes = np.bincount(classes).astype(np.float64)
    share, full = np.zeros_like(sizes), sizes == 0
    room = float(len(classes))
    while True:
        share[~full] = room / max(int((~full).sum()), 1)
        over = ~full & (share > sizes * maximum)
        if not over.any():
            return np.asarray((share / np.maximum(sizes, 1))[classes])
        share[over], full = (sizes * maximum)[over], full | over
        room = len(classes) - share[full].sum()


def deal_into_batches(count: int, draws: Draws) -> Ids:
    """Return positions (count,), batch after batch, dealt out to the batches in turn so that neighbours are apart.

    Batch sizes differ by one at most, larger ones first, as `np.array_split` cuts them; one draw a batch orders them.
    """
    steps = len(draws)
    order = np.lexsort((draws, np.arange(steps) >= count % steps))  # by size, then by draw
    return np.concatenate([np.arange(batch, count, steps) for batch in order])


def draw_uniform(seed: int, *, epoch: int, stream: int, count: int, substream: int = 0) -> Draws:
    """Return draws (count,) uniform in [0, 1); the one at place i is the same whatever the count."""
    bits = _draw_bits(seed, epoch=epoch, stream=stream, count=count, substream=substream)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _draw_bits(seed: int, *, epoch: int, stream: int, count: int, substream: int = 0) -> NDArray[np.uint64]:
    generator = np.random.Philox(key=(seed, epoch), counter=(0, substream, 0, stream))
    return np.asarray(generator.random_raw(count), dtype=np.uint64)
