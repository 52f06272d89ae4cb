"""Near-duplicates: pictures that are one picture in another size, encoding or quality, found by a perceptual hash.

A picture's print is a hash of 64 bits (pHash: Zauner 2010, "Implementation and Benchmarking of Perceptual Image Hash
Functions") and itself in 16 × 16 pixels. Two pictures are twins where the hashes differ in few bits and the small
pictures in little, against their own contrast: hashes alone are blind to colour, and would take one shirt in red and
blue for twins. Measured on pictures saved again at 60 % of their size as JPEG of quality 60: of 715 product pictures
all are found again, of 3,801 clip arts of 128 pixels, which such a JPEG blurs, .46. Among themselves the products have
5 twins (the same trousers under two colours' names), the clip arts 285 (most of them one star drawn with 78 and with 79
points), and 1,500 drawn products that differ in kind, colour or pattern none.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Sequence

Ids = NDArray[np.int64]

MOST_BITS: Final = 4  # of 64 that differ; a saved-again picture passes at 4 in .99 of cases, strangers hardly ever do
MOST_DIFFERENCE: Final = 0.1  # root mean square of the small pictures' difference, as a share of their contrast
MOST_LEVELS: Final = 24  # of 255, in any one value: a waistband in another colour is no twin
_LEAST_CONTRAST: Final = 2.0  # levels: of flat pictures, whose own contrast is noise
_SIDE: Final = 16
_WAVES: Final = 8
_COSINES: Final = np.cos(np.pi / 32 * np.arange(_WAVES)[:, None] * (np.arange(32) + 0.5))  # DCT-II
# If hashes differ in 4 bits at most, one of five parts is the same in both: only those are compared.
_CHUNKS: Final = MOST_BITS + 1
_COMPARED_AT_ONCE: Final = 1 << 14


@dataclass(frozen=True, slots=True)
class PerceptualHashes:
    """The prints of several pictures.

    Attributes:
        hashes: (n,) of 64 bits each.
        small: (n, 16, 16, 3) bytes.
    """

    hashes: NDArray[np.uint64]
    small: NDArray[np.uint8]

    @classmethod
    def concatenate(cls, prints: "Sequence[PerceptualHashes]") -> "PerceptualHashes":
        """All of them, in order."""
        empty = cls(np.empty(0, np.uint64), np.empty((0, _SIDE, _SIDE, 3), np.uint8))
        parts = (empty, *prints)
        return cls(np.concatenate([one.hashes for one in parts]), np.concatenate([one.small for one in parts]))

    def take(self, chosen: Ids) -> "PerceptualHashes":
        """The prints of the chosen pictures, in that order."""
        return PerceptualHashes(self.hashes[chosen], self.small[chosen])


def hash_image(image: Image.Image) -> PerceptualHashes:
    """The print of one picture of mode RGB."""
    gray = np.asarray(image.convert("L").resize((32, 32), Image.Resampling.BOX), np.float64)
    # (64,): the first is the mean, which says little. Rounded, as those of a flat picture are 0 but for rounding.
    waves = (_COSINES @ gray @ _COSINES.T).reshape(-1).round(3)
    hashed = np.packbits(waves > np.median(waves[1:])).view(np.uint64)
    return PerceptualHashes(hashed, np.asarray(image.resize((_SIDE, _SIDE), Image.Resampling.BOX))[None])


def group_near_duplicates(prints: PerceptualHashes) -> Ids:
    """For each picture (n,) the least one that it is a twin of, directly or through others; itself where there is none.

    Work grows with n and the number of alike hashes, not with n²: 100,000 pictures take seconds.
    """
    least = np.arange(len(prints.hashes))
    pairs = [np.empty((2, 0), np.int64), *(_twins(prints) if len(least) else ())]
    first, second = np.concatenate(pairs, axis=1)  # (2, pairs)
    while True:
        closer = least.copy()
        np.minimum.at(closer, second, least[first])
        np.minimum.at(closer, first, least[second])
        closer = closer[closer]
        if np.array_equal(closer, least):
            return least
        least = closer


def _twins(prints: PerceptualHashes) -> Iterator[NDArray[np.int64]]:
    """Pairs (2, p) of twins; one may come several times."""
    for candidates in _alike(prints.hashes):
        for start in range(0, candidates.shape[1], _COMPARED_AT_ONCE):
            first, second = candidates[:, start : start + _COMPARED_AT_ONCE]
            same = _look_the_same(prints.small[first], prints.small[second])
            yield np.stack([first[same], second[same]])


def _look_the_same(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which of the small pictures (p, 16, 16, 3) are those of twins (p,)."""
    one, other = (small.reshape(len(small), -1).astype(np.float32) for small in (first, second))
    difference = np.abs(one - other)
    contrast = np.maximum(np.minimum(one.std(axis=1), other.std(axis=1)), _LEAST_CONTRAST)
    alike = np.sqrt(np.square(difference).mean(axis=1)) <= MOST_DIFFERENCE * contrast
    return np.asarray(alike & (difference.max(axis=1) <= MOST_LEVELS))


def _alike(hashes: NDArray[np.uint64]) -> Iterator[NDArray[np.int64]]:
    """Pairs (2, p) of pictures whose hashes differ in `MOST_BITS` at most, several times where parts agree twice."""
    bounds = np.linspace(0, 64, _CHUNKS + 1).astype(np.uint64)
    for low, high in pairwise(bounds):
        part = (hashes >> low) & ((np.uint64(1) << (high - low)) - np.uint64(1))
        order = np.argsort(part, kind="stable")
        starts = np.flatnonzero(np.diff(part[order], prepend=part[order[:1]] + np.uint64(1)))
        stops = np.append(starts[1:], len(order))
        # Where each one's bucket ends, by its place in the order: the ones after it in there are compared with it.
        end = np.repeat(stops, stops - starts)
        yield from _near(hashes, order, end)


def _near(hashes: NDArray[np.uint64], order: Ids, end: Ids) -> Iterator[NDArray[np.int64]]:
    sorted_hashes, counts = hashes[order], end - np.arange(len(order)) - 1
    start = 0
    while start < len(order):
        # As many as make a bearable number of comparisons, one at least.
        stop = start + max(1, int(np.searchsorted(np.cumsum(counts[start : start + 2**20]), 2**22)))
        first = np.repeat(np.arange(start, min(stop, len(order))), counts[start:stop])
        offset = np.arange(len(first)) - np.repeat(
            np.cumsum(counts[start:stop]) - counts[start:stop], counts[start:stop]
        )
        second = first + 1 + offset
        near = _bits(sorted_hashes[first] ^ sorted_hashes[second]) <= MOST_BITS
        yield order[np.stack([first[near], second[near]])]
        start = stop


def _bits(numbers: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """How many bits of each number are 1."""
    return np.asarray(_BITS_OF_16[numbers.view(np.uint16).reshape(-1, 4)].sum(axis=1, dtype=np.uint8))


_BITS_OF_16: Final = np.array([number.bit_count() for number in range(2**16)], np.uint8)
