"""Near-duplicates are found and nothing else is, whichever bits of the hash differ, compared with an oracle."""

from io import BytesIO
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from retrieval.train.data.near_duplicates import (
    MAX_HAMMING_DISTANCE,
    PERCEPTUAL_HASH,
    _similar_hashes,
    group_near_duplicates,
    hash_image,
)
from retrieval.train.validation.leakage import Leakage


def drawn(seed, *, size=256, color="red"):
    """An image of many shapes, one of them in a colour that can be chosen."""
    generator = np.random.default_rng(seed)
    image = Image.fromarray(generator.integers(0, 256, (6, 6, 3), np.uint8)).resize((size, size))
    draw = ImageDraw.Draw(image)
    for _ in range(6):
        x, y = generator.integers(0, size, 2).tolist()
        draw.rectangle((x, y, x + size // 4, y + size // 4), fill=tuple(generator.integers(0, 256, 3).tolist()))
    draw.rectangle((0, 0, size // 3, size // 3), fill=color)
    return image


def saved_again(image, *, scale, quality):
    file = BytesIO()
    image.resize((round(scale * image.width), round(scale * image.height)), Image.Resampling.BICUBIC).save(
        file, "JPEG", quality=quality
    )
    return Image.open(BytesIO(file.getvalue())).convert("RGB")


def groups_of(*images):
    return group_near_duplicates(np.array([hash_image(image) for image in images])).tolist()


@pytest.mark.parametrize(("scale", "quality"), [(1.0, 60), (0.6, 75), (2.0, 90)])
def test_an_image_saved_again_is_a_near_duplicate_and_other_images_are_not(scale, quality):
    images = [drawn(seed).filter(ImageFilter.GaussianBlur(1)) for seed in range(20)]
    again = [saved_again(image, scale=scale, quality=quality) for image in images]
    assert groups_of(*images, *again) == [*range(20), *range(20)]


def test_images_in_another_colour_are_no_near_duplicates_though_their_hashes_are_close():
    one, other = drawn(3, color="#b02020"), drawn(3, color="#3060a0")
    hashes = [int(hash_image(image)["bits"]) for image in (one, other)]
    assert (hashes[0] ^ hashes[1]).bit_count() <= 16
    assert groups_of(one, other) == [0, 1]


def test_flat_images_are_near_duplicates_only_in_one_colour():
    flat = [Image.new("RGB", (size, 40), color) for color, size in (("red", 40), ("black", 40), ("red", 50))]
    assert groups_of(*flat) == [0, 1, 0]


def test_near_duplicates_of_near_duplicates_are_one_group():
    """Each image is a little brighter than the one before: neighbours are near-duplicates, the ends are not."""
    base = np.asarray(drawn(5), np.float64)
    images = [Image.fromarray((base * (1 - 0.04 * number)).astype(np.uint8)) for number in range(5)]
    assert groups_of(images[0], images[4]) == [0, 1]
    assert groups_of(*images) == [0] * 5


def test_all_pairs_within_the_hamming_distance_are_found_and_no_others():
    """Against comparing each with each, over hashes of which many are close; parts that cross bytes included."""
    generator = np.random.default_rng(0)
    base = generator.integers(0, 2**63, 40, dtype=np.uint64)
    hashes = [base]
    for flips in range(7):
        bits = np.array([generator.choice(64, flips, replace=False) for _ in base]).astype(np.uint64).reshape(40, flips)
        hashes.append(base ^ np.bitwise_or.reduce(np.uint64(1) << bits, axis=1, initial=0).astype(np.uint64))
    everything = np.concatenate(hashes)
    found = {tuple(sorted(pair)) for pairs in _similar_hashes(everything) for pair in pairs.T.tolist()}
    oracle = {
        (first, second)
        for first in range(len(everything))
        for second in range(first + 1, len(everything))
        if int(everything[first] ^ everything[second]).bit_count() <= MAX_HAMMING_DISTANCE
    }
    assert found == oracle
    assert len(oracle) > 200


def test_no_images_have_no_groups():
    assert group_near_duplicates(np.array([], PERCEPTUAL_HASH)).tolist() == []


def test_validation_images_with_near_duplicates_in_training_are_found():
    known = np.array([hash_image(drawn(seed)) for seed in range(3)])
    asked = np.array([hash_image(image) for image in (drawn(1), saved_again(drawn(2), scale=1, quality=80), drawn(9))])
    cache = SimpleNamespace(content_hashes=("0", "1", "2"), perceptual_hashes=known)
    dataset = SimpleNamespace(images=(0, 1, 2), texts=())
    collection = SimpleNamespace(texts=())
    validation = SimpleNamespace(content_hashes=("1", "2 again", "9"), perceptual_hashes=asked, collection=collection)
    leakage = Leakage.measure(validation, dataset, cache)
    assert (leakage.images, leakage.near_duplicates) == (1, 1)
