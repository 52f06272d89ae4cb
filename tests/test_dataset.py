"""The training dataset: what is held out, which texts are positives of which images, and classes."""

from pathlib import Path

import numpy as np
import pytest
from noise_images import build_cache, make_pair, make_pairs, write_image
from PIL import Image

from retrieval.errors import TrainingError
from retrieval.images import ImageSource
from retrieval.pairs import Pair
from retrieval.train.data.dataset import PairDataset, hold_out_pairs, read_classes


def test_a_tenth_is_held_out_by_item_and_the_split_is_deterministic(tmp_path):
    pairs = make_pairs(tmp_path, 300, per_item=3)
    image_cache = build_cache(pairs)
    held = hold_out_pairs(pairs, image_cache, fraction=0.1, seed=5)
    assert held.sum() == 30
    inside, outside = ({pairs[n].id for n in np.flatnonzero(side)} for side in (held, ~held))
    assert not inside & outside
    assert np.array_equal(held, hold_out_pairs(pairs, image_cache, fraction=0.1, seed=5))
    assert not np.array_equal(held, hold_out_pairs(pairs, image_cache, fraction=0.1, seed=6))


def test_adding_and_removing_pairs_leaves_the_others_on_their_side_of_the_split(tmp_path):
    """A hundred new ones before 300 old ones, of which the first fifty are gone."""
    pairs = make_pairs(tmp_path, 400)
    before, after = pairs[100:], pairs[:100] + pairs[150:]
    sides = []
    for some in (before, after):
        held = hold_out_pairs(some, build_cache(some), fraction=0.1, seed=0)
        sides.append({one.id: bool(out) for one, out in zip(some, held, strict=True)})
    both = sides[0].keys() & sides[1].keys()
    assert len(both) == 250
    assert sum(sides[0][name] for name in both) > 20
    assert sum(sides[0][name] != sides[1][name] for name in both) <= 5


def test_items_that_share_an_image_stay_on_one_side_of_the_split(tmp_path):
    """A chain: item i has image i and image i + 1, in chains of ten."""
    for number in range(220):
        write_image(tmp_path, f"{number}.png", seed=number)
    chains = [
        make_pair(tmp_path / f"{number + step}.png", f"item{number}", f"thing {number}")
        for number in range(200)
        for step in ((0, 1) if number % 10 < 9 else (0,))
    ]
    image_cache = build_cache(chains)
    held = hold_out_pairs(chains, image_cache, fraction=0.2, seed=0)
    chain_of_pair = np.array([int(one.id.removeprefix("item")) // 10 for one in chains])
    assert held.any()
    assert not set(chain_of_pair[held]) & set(chain_of_pair[~held])
    assert not set(image_cache.image_of_pair[held]) & set(image_cache.image_of_pair[~held])


def test_small_sets_hold_out_nothing_and_a_huge_item_does_not_take_the_whole_fraction(tmp_path):
    few = make_pairs(tmp_path, 150)
    assert not hold_out_pairs(few, build_cache(few), fraction=0.1, seed=0).any()
    huge = [
        make_pair(one.image.path, "all" if place < 100 else one.id, "text")
        for place, one in enumerate(make_pairs(tmp_path, 300))
    ]
    held = hold_out_pairs(huge, build_cache(huge), fraction=0.1, seed=0)
    assert held.sum() == 30
    assert not held[:100].any()


def test_all_captions_of_an_item_and_equal_ones_of_other_items_are_positives(tmp_path):
    pairs = [
        make_pair(write_image(tmp_path, "front.png"), "shoe", "Red shoe", "seen from the front"),
        make_pair(write_image(tmp_path, "side.png"), "shoe", "seen from the side"),
        make_pair(write_image(tmp_path, "twin.png"), "twin", "red  SHOE"),
        make_pair(write_image(tmp_path, "hat.png"), "hat", "a hat"),
    ]
    dataset = PairDataset.from_pairs(pairs, build_cache(pairs).image_of_pair)
    named = [{dataset.texts[text] for text in texts} for texts in dataset.positives]
    shoe = {"Red shoe", "seen from the front", "seen from the side", "red  SHOE"}
    assert named == [shoe, shoe, {"Red shoe", "red  SHOE"}, {"a hat"}]
    assert [{dataset.texts[text] for text in texts} for texts in dataset.captions] == [
        {"Red shoe", "seen from the front"},
        {"seen from the side"},
        {"red  SHOE"},
        {"a hat"},
    ]


def test_near_duplicates_stay_on_one_side_and_are_positives_of_each_other(tmp_path):
    """Two hundred smooth images, each with a copy saved again under another id and text."""
    pairs = []
    for number in range(200):
        small = np.random.default_rng(number).integers(0, 256, (5, 5, 3), np.uint8)
        image = Image.fromarray(small).resize((48, 48), Image.Resampling.BICUBIC)
        image.save(tmp_path / f"{number}.png")
        image.save(tmp_path / f"{number}.jpg", quality=85)
        pairs += [
            make_pair(tmp_path / f"{number}.png", f"first{number}", f"text {number}"),
            make_pair(tmp_path / f"{number}.jpg", f"second{number}", f"another {number}"),
        ]
    image_cache = build_cache(pairs)
    assert image_cache.duplicate_groups.tolist() == [place - place % 2 for place in range(400)]
    held = hold_out_pairs(pairs, image_cache, fraction=0.2, seed=0)
    assert held.sum() == 80
    assert np.array_equal(held[::2], held[1::2])
    dataset = PairDataset.from_pairs(pairs, image_cache.image_of_pair, duplicate_groups=image_cache.duplicate_groups)
    for place, own in enumerate(dataset.positives):
        assert {dataset.texts[text] for text in own} == {f"text {place // 2}", f"another {place // 2}"}
    assert [len(own) for own in dataset.captions] == [1] * 400


def test_the_digest_depends_on_images_and_texts_and_not_on_file_names(tmp_path):
    def digest(*pairs):
        image_cache = build_cache(pairs)
        return PairDataset.from_pairs(pairs, image_cache.image_of_pair).digest(image_cache)

    first = make_pair(write_image(tmp_path, "a.png", seed=1), "a", "one")
    base = digest(first, make_pair(write_image(tmp_path, "b.png", seed=2), "b", "two"))
    assert base == digest(first, make_pair(write_image(tmp_path, "renamed.png", seed=2), "b", "two"))
    assert base != digest(first, make_pair(write_image(tmp_path, "c.png", seed=3), "b", "two"))
    assert base != digest(first, make_pair(tmp_path / "b.png", "b", "three"))


def attributed(name, *captions, **attributes):
    return Pair(name, ImageSource(Path(name), name), captions, attributes)


def test_classes_come_from_an_attribute_or_from_equal_captions():
    pairs = [
        attributed("a", "A cat", kind="pet"),
        attributed("b", "a  CAT", kind="Pet"),
        attributed("c", "a dog"),
        attributed("d", "a dog", kind=3),
    ]
    places = np.arange(4)
    assert read_classes(pairs, places, images=4, by="kind") == (0, 0, 1, 2)
    assert read_classes(pairs, places, images=4, by="text") == (0, 0, 1, 1)
    with pytest.raises(
        TrainingError, match=r"No image has an attribute 'color' to balance by\. Take one of 'kind', 'text'\."
    ):
        read_classes(pairs, places, images=4, by="color")
