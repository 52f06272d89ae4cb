"""Balanced epochs: each class its equal share, no picture twice in a batch, and a pure function of (seed, step)."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.errors import TrainingError
from retrieval.images import ImageSource
from retrieval.pairs import Pair
from retrieval.train.data.dataset import read_classes
from retrieval.train.data.sampler import BatchSampler, deal_into_batches, expected_counts

samplers = st.lists(st.integers(0, 5), min_size=1, max_size=60).flatmap(
    lambda classes: st.builds(
        BatchSampler,
        caption_counts=st.just((2,) * len(classes)),
        batch_size=st.integers(1, 70),
        seed=st.integers(0, 2**63),
        classes=st.just(classes),
    )
)


@given(samplers, st.integers(0, 3))
def test_no_picture_is_twice_in_a_batch_and_an_epoch_has_as_many_showings_as_pictures(sampler, epoch):
    batches = [
        sampler.draw_batch(step).images
        for step in range(epoch * sampler.steps_per_epoch, (epoch + 1) * sampler.steps_per_epoch)
    ]
    assert all(len(set(batch.tolist())) == len(batch) <= sampler.batch_size for batch in batches)
    assert sum(map(len, batches)) == len(sampler.caption_counts)
    assert max(map(len, batches)) - min(map(len, batches)) <= 1


@given(samplers, st.integers(0, 100))
def test_a_balanced_step_is_the_same_whoever_asks(sampler, step):
    again = BatchSampler(sampler.caption_counts, sampler.batch_size, sampler.seed, sampler.classes)
    first, second = sampler.draw_batch(step), again.draw_batch(step)
    assert np.array_equal(first.images, second.images)
    assert np.array_equal(first.crop_draws, second.crop_draws)
    assert np.array_equal(first.captions, second.captions)


def test_each_class_is_shown_equally_often_and_each_of_its_pictures():
    """90 shirts, 30 hats and 6 rings over 200 epochs: a third of the showings each, within four deviations."""
    classes = [0] * 90 + [1] * 30 + [2] * 6
    sampler = BatchSampler((1,) * 126, 8, 5, classes)
    shown = np.concatenate([sampler.draw_batch(step).images for step in range(200 * sampler.steps_per_epoch)])
    by_picture = np.bincount(shown, minlength=126) / 200
    expected = 126 / 3 / np.array([90, 30, 6])[classes]
    assert by_picture == pytest.approx(expected, abs=4 * np.sqrt(0.25 / 200))
    assert np.bincount(np.array(classes)[shown]) / len(shown) == pytest.approx(1 / 3, abs=0.01)


def test_a_picture_that_comes_twice_in_an_epoch_comes_in_two_crops_and_captions():
    sampler = BatchSampler((100,) * 9, 3, 1, [0] * 8 + [1])
    seen = [
        (int(caption), tuple(crop))
        for batch in map(sampler.draw_batch, range(3))
        for picture, caption, crop in zip(batch.images, batch.captions, batch.crop_draws, strict=True)
        if picture == 8
    ]
    assert len(seen) == 3  # at most once a batch, though half of nine would be its share
    assert len({crop for _, crop in seen}) == 3


def test_what_a_small_class_cannot_take_goes_to_the_others_in_equal_parts():
    """One picture can come 4 times at most in 4 steps: of 30 showings 26 are left for two classes."""
    shares = expected_counts(np.array([0] * 20 + [1] * 9 + [2]), maximum=4)
    assert shares[-1] == 4
    assert shares[:20] == pytest.approx(13 / 20)
    assert shares[20:29] == pytest.approx(13 / 9)
    assert shares.sum() == pytest.approx(30)


@given(st.integers(1, 50), st.data())
def test_all_places_are_dealt_out_once(count, data):
    steps = data.draw(st.integers(1, count))
    chance = np.random.default_rng(count).random(steps)
    places = deal_into_batches(count, chance)
    assert sorted(places.tolist()) == list(range(count))
    for batch in np.array_split(places, steps):
        assert len({place % steps for place in batch}) == 1  # so neighbours are in different batches


def pair(name, *captions, **attributes):
    return Pair(name, ImageSource(Path(name), name), captions, attributes)


def test_classes_come_from_an_attribute_or_from_equal_captions():
    pairs = [
        pair("a", "A cat", kind="pet"),
        pair("b", "a  CAT", kind="Pet"),
        pair("c", "a dog"),
        pair("d", "a dog", kind=3),
    ]
    places = np.arange(4)
    assert read_classes(pairs, places, images=4, by="kind") == (0, 0, 1, 2)
    assert read_classes(pairs, places, images=4, by="text") == (0, 0, 1, 1)
    with pytest.raises(
        TrainingError, match="no image has an attribute 'color' to balance by; there are kind, and 'text'"
    ):
        read_classes(pairs, places, images=4, by="color")
