"""A batch is a function of (seed, step), also in balanced epochs: each property for any size, by hypothesis."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.train.data.sampler import BatchSampler, deal_into_batches, draw_uniform, expected_counts

samplers = st.builds(
    BatchSampler,
    caption_counts=st.lists(st.integers(1, 6), min_size=1, max_size=70).map(tuple),
    batch_size=st.integers(1, 80),
    seed=st.integers(0, 2**63),
)


@given(samplers, st.integers(0, 5))
def test_an_epoch_shows_every_image_once(sampler, epoch):
    steps = range(epoch * sampler.steps_per_epoch, (epoch + 1) * sampler.steps_per_epoch)
    seen = np.concatenate([sampler.draw_batch(step).images for step in steps])
    assert sorted(seen) == list(range(len(sampler.caption_counts)))


@given(samplers, st.integers(0, 200))
def test_batches_hold_distinct_images_and_are_never_too_large(sampler, step):
    images = sampler.draw_batch(step).images
    assert len(set(images.tolist())) == len(images)
    assert 1 <= len(images) <= sampler.batch_size


@given(samplers)
def test_batch_sizes_of_an_epoch_differ_by_one_at_most(sampler):
    sizes = [len(sampler.draw_batch(step).images) for step in range(sampler.steps_per_epoch)]
    assert max(sizes) - min(sizes) <= 1


@given(samplers, st.integers(0, 200))
def test_a_batch_depends_on_seed_and_step_alone(sampler, step):
    """What a resumed run sees is what the undisturbed run saw."""
    again = BatchSampler(sampler.caption_counts, sampler.batch_size, sampler.seed)
    for earlier in range(step % 3):
        again.draw_batch(earlier)
    first, second = sampler.draw_batch(step), again.draw_batch(step)
    assert np.array_equal(first.images, second.images)
    assert np.array_equal(first.captions, second.captions)
    assert np.array_equal(first.crop_draws, second.crop_draws)


@given(samplers, st.integers(0, 200))
def test_the_drawn_caption_is_one_of_the_image(sampler, step):
    batch = sampler.draw_batch(step)
    counts = np.asarray(sampler.caption_counts)[batch.images]
    assert (batch.captions >= 0).all()
    assert (batch.captions < counts).all()


@given(samplers, st.integers(0, 50), st.integers(1, 80))
def test_captions_and_crops_of_an_epoch_do_not_depend_on_the_batch_size(sampler, epoch, batch_size):
    def epoch_by_image(plan):
        batches = [plan.draw_batch(epoch * plan.steps_per_epoch + place) for place in range(plan.steps_per_epoch)]
        return {
            int(image): (int(caption), tuple(crop))
            for batch in batches
            for image, caption, crop in zip(batch.images, batch.captions, batch.crop_draws, strict=True)
        }

    other = BatchSampler(sampler.caption_counts, batch_size, sampler.seed)
    assert epoch_by_image(sampler) == epoch_by_image(other)


def test_captions_are_drawn_uniformly():
    """300 images of 3 captions over 40 epochs: each caption a third of the time, within four standard deviations."""
    sampler = BatchSampler((3,) * 300, 64, seed=5)
    drawn = np.concatenate([sampler.draw_batch(step).captions for step in range(40 * sampler.steps_per_epoch)])
    shares = np.bincount(drawn, minlength=3) / len(drawn)
    assert shares == pytest.approx(1 / 3, abs=4 * np.sqrt(2 / 9 / len(drawn)))


def test_epochs_and_seeds_give_different_orders():
    orders = [
        BatchSampler((1,) * 50, 50, seed).draw_batch(step).images.tolist()
        for seed, step in [(0, 0), (0, 1), (1, 0), (1, 1)]
    ]
    assert len({tuple(order) for order in orders}) == 4


def test_the_random_stream_never_changes():
    """A changed number here breaks the resuming of every run in the world."""
    assert draw_uniform(7, epoch=3, stream=0, count=3) == pytest.approx(
        [0.4821286018761155, 0.7241355726248441, 0.05025403948627161], abs=0
    )
    assert BatchSampler((2,) * 6, 4, seed=7).draw_batch(4).images.tolist() == [4, 0, 1]


def test_draws_are_uniform():
    draws = draw_uniform(0, epoch=0, stream=2, count=100_000)
    counts, _ = np.histogram(draws, bins=20, range=(0, 1))
    assert counts.sum() == 100_000
    assert counts == pytest.approx(5_000, abs=5 * np.sqrt(5_000))


balanced_samplers = st.lists(st.integers(0, 5), min_size=1, max_size=60).flatmap(
    lambda classes: st.builds(
        BatchSampler,
        caption_counts=st.just((2,) * len(classes)),
        batch_size=st.integers(1, 70),
        seed=st.integers(0, 2**63),
        classes=st.just(classes),
    )
)


@given(balanced_samplers, st.integers(0, 3))
def test_balanced_batches_hold_distinct_images_and_an_epoch_has_n_samples(sampler, epoch):
    batches = [
        sampler.draw_batch(step).images
        for step in range(epoch * sampler.steps_per_epoch, (epoch + 1) * sampler.steps_per_epoch)
    ]
    assert all(len(set(batch.tolist())) == len(batch) <= sampler.batch_size for batch in batches)
    assert sum(map(len, batches)) == len(sampler.caption_counts)
    assert max(map(len, batches)) - min(map(len, batches)) <= 1


@given(balanced_samplers, st.integers(0, 100))
def test_a_balanced_batch_depends_on_seed_and_step_alone(sampler, step):
    again = BatchSampler(sampler.caption_counts, sampler.batch_size, sampler.seed, sampler.classes)
    first, second = sampler.draw_batch(step), again.draw_batch(step)
    assert np.array_equal(first.images, second.images)
    assert np.array_equal(first.crop_draws, second.crop_draws)
    assert np.array_equal(first.captions, second.captions)


def test_classes_and_the_images_within_each_are_sampled_equally_often():
    """90 shirts, 30 hats and 6 rings over 200 epochs: a third of the showings each, within four deviations."""
    classes = [0] * 90 + [1] * 30 + [2] * 6
    sampler = BatchSampler((1,) * 126, 8, 5, classes)
    shown = np.concatenate([sampler.draw_batch(step).images for step in range(200 * sampler.steps_per_epoch)])
    by_image = np.bincount(shown, minlength=126) / 200
    expected = 126 / 3 / np.array([90, 30, 6])[classes]
    assert by_image == pytest.approx(expected, abs=4 * np.sqrt(0.25 / 200))
    assert np.bincount(np.array(classes)[shown]) / len(shown) == pytest.approx(1 / 3, abs=0.01)


def test_repeated_images_of_an_epoch_have_different_crops_and_captions():
    sampler = BatchSampler((100,) * 9, 3, 1, [0] * 8 + [1])
    seen = [
        (int(caption), tuple(crop))
        for batch in map(sampler.draw_batch, range(3))
        for image, caption, crop in zip(batch.images, batch.captions, batch.crop_draws, strict=True)
        if image == 8
    ]
    assert len(seen) == 3  # at most once a batch, though half of nine would be its share
    assert len({crop for _, crop in seen}) == 3


def test_samples_beyond_a_small_class_go_to_the_others_in_equal_parts():
    """One image can come 4 times at most in 4 steps: of 30 showings 26 are left for two classes."""
    shares = expected_counts(np.array([0] * 20 + [1] * 9 + [2]), maximum=4)
    assert shares[-1] == 4
    assert shares[:20] == pytest.approx(13 / 20)
    assert shares[20:29] == pytest.approx(13 / 9)
    assert shares.sum() == pytest.approx(30)


@given(st.integers(1, 50), st.data())
def test_positions_are_dealt_out_once_and_neighbours_are_apart(count, data):
    steps = data.draw(st.integers(1, count))
    chance = np.random.default_rng(count).random(steps)
    places = deal_into_batches(count, chance)
    assert sorted(places.tolist()) == list(range(count))
    for batch in np.array_split(places, steps):
        assert len({place % steps for place in batch}) == 1  # so neighbours are in different batches
