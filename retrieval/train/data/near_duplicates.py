"""Near-duplicates: one image in another size, encoding or quality, found by a perceptual hash.

An image's hash has 64 bits (pHash: Zauner 2010, "Implementation and Benchmarking of Perceptual Image
Hash Functions") and a thumbnail of 16 × 16 pixels. Two images are near-duplicates where the hashes differ in few bits
and the thumbnails in little, relative to their contrast: hashes alone are blind to colour, and would take one shirt in
red and blue for duplicates. Measured on images saved again at 60 % of their size as JPEG of quality 60: of 715 product
images all are found again, of 3,801 clip arts of 128 pixels, which such a JPEG blurs, .46. Among themselves the
products have 5 near-duplicates (the same trousers under two colours' names), the clip arts 285 (most of them one star
drawn with 78 and with 79 points), and 1,500 drawn products that differ in kind, colour or pattern none.

The held-out split depends on these hashes: changing a bit of them would keep earlier runs from being resumed.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from index.vectors import Ids

MAX_HAMMING_DISTANCE: Final = 4  # of 64 bits; .99 of images saved again pass, others hardly ever do
MAX_RMS_DIFFERENCE: Final = 0.1  # of the thumbnails, as a fraction of their contrast
MAX_LEVEL_DIFFERENCE: Final = 24  # of 255, in any value of the thumbnails: a waistband in another colour differs more
_MIN_CONTRAST: Final = 2.0  # levels: of flat images, whose own contrast is noise
_THUMBNAIL: Final = 16
_COSINES: Final = np.cos(np.pi / 32 * np.arange(8)[:, None] * (np.arange(32) + 0.5))  # (8, 32): DCT-II
_COMPARED_AT_ONCE: Final = 1 << 14
_BITS_OF_16: Final = np.array([number.bit_count() for number in range(2**16)], np.uint8)


PERCEPTUAL_HASH: Final = np.dtype([("bits", np.uint64), ("thumbnail", np.uint8, (_THUMBNAIL, _THUMBNAIL, 3))])
PerceptualHashes = NDArray[np.void]  # of that type


def hash_image(image: Image.Image) -> PerceptualHashes:
    """Return the `PERCEPTUAL_HASH` of one image of mode RGB, an array without dimensions."""
    gray = np.asarray(image.convert("L").resize((32, 32), Image.Resampling.BOX), np.float64)
    # (64,): the first is the mean, which says little. Rounded, since those of a flat image are 0 up to rounding.
    coefficients = (_COSINES @ gray @ _COSINES.T).reshape(-1).round(3)
    bits = np.packbits(coefficients > np.median(coefficients[1:])).view(np.uint64)[0]
    thumbnail = np.asarray(image.resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX))
    return np.array((bits, thumbnail), PERCEPTUAL_HASH)


def group_near_duplicates(hashes: PerceptualHashes) -> Ids:
    """Return for each image (n,) the first one that it is a near-duplicate of, directly or through others, or itself.

    Work grows with n and the number of similar hashes, not with n²: 100,000 images take seconds.
    """
    first, second = np.concatenate([np.empty((2, 0), np.int64), *_near_duplicate_pairs(hashes)], axis=1)
    return connect_pairs(len(hashes), first, second)


def connect_pairs(count: int, first: Ids, second: Ids) -> Ids:
    """Return for each of `count` numbers the smallest one that it is connected with by pairs, or itself."""
    groups = np.arange(count)
    while True:
        closer = groups.copy()
        np.minimum.at(closer, second, groups[first])
        np.minimum.at(closer, first, groups[second])
        closer = closer[closer]
        if np.array_equal(closer, groups):
            return groups
        groups = closer


def _near_duplicate_pairs(hashes: PerceptualHashes) -> Iterator[Ids]:
    """Yield pairs (2, p) of near-duplicates; one may come several times."""
    for pairs in _similar_hashes(hashes["bits"]):
        for start in range(0, pairs.shape[1], _COMPARED_AT_ONCE):
            first, second = pairs[:, start : start + _COMPARED_AT_ONCE]
            one, other = (
                hashes["thumbnail"][side].reshape(len(side), -1).astype(np.float32) for side in (first, second)
            )
            contrast = np.maximum(np.minimum(one.std(axis=1), other.std(axis=1)), _MIN_CONTRAST)
            difference = np.abs(one - other)
            same = np.sqrt(np.square(difference).mean(axis=1)) <= MAX_RMS_DIFFERENCE * contrast
            same &= difference.max(axis=1) <= MAX_LEVEL_DIFFERENCE
            yield np.stack([first[same], second[same]])


def _similar_hashes(bits: NDArray[np.uint64]) -> Iterator[Ids]:
    """Yield pairs (2, p) of images whose hashes differ in at most `MAX_HAMMING_DISTANCE` bits; one may come twice.

    1. Cut the bits into one part more than may differ: of two similar hashes at least one part is the same.
    2. Sort the images by each part in turn, which brings those with the same part side by side.
    3. Compare each image with its next neighbour, then with the second next, as long as the part is the same.
    """
    for low, high in pairwise(np.linspace(0, 64, MAX_HAMMING_DISTANCE + 2).astype(np.uint64)):
        part = (bits >> low) & ((np.uint64(1) << (high - low)) - np.uint64(1))
        order = np.argsort(part, kind="stable")
        part, places, distance = part[order], np.arange(len(order)), 0
        while len(places):
            distance += 1
            places = places[places + distance < len(order)]
            places = places[part[places] == part[places + distance]]
            first, second = order[places], order[places + distance]
            different = (bits[first] ^ bits[second]).view(np.uint16).reshape(-1, 4)
            similar = _BITS_OF_16[different].sum(axis=1, dtype=np.uint8) <= MAX_HAMMING_DISTANCE
            yield np.stack([first[similar], second[similar]])
