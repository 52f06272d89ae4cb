"""A batch is a function of (seed, step): each property for any size, by hypothesis."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.train.data.sampler import BatchSampler, draw_uniform

samplers = st.builds(
    BatchSampler,
    caption_counts=st.lists(st.integers(1, 6), min_size=1, max_size=70).map(tuple),
    batch_size=st.integers(1, 80),
    seed=st.integers(0, 2**63),
)


@given(samplers, st.integers(0, 5))
def test_an_epoch_shows_every_picture_once(sampler, epoch):
    steps = range(epoch * sampler.steps_per_epoch, (epoch + 1) * sampler.steps_per_epoch)
    seen = np.concatenate([sampler.draw_batch(step).images for step in steps])
    assert sorted(seen) == list(range(len(sampler.caption_counts)))


@given(samplers, st.integers(0, 200))
def test_no_picture_is_twice_in_a_batch_and_no_batch_is_too_large(sampler, step):
    pictures = sampler.draw_batch(step).images
    assert len(set(pictures.tolist())) == len(pictures)
    assert 1 <= len(pictures) <= sampler.batch_size


@given(samplers)
def test_batches_of_an_epoch_differ_by_one_picture_at_most(sampler):
    sizes = [len(sampler.draw_batch(step).images) for step in range(sampler.steps_per_epoch)]
    assert max(sizes) - min(sizes) <= 1


@given(samplers, st.integers(0, 200))
def test_a_step_is_the_same_whoever_asks_and_whatever_came_before(sampler, step):
    """What a resumed run sees is what the undisturbed run saw."""
    again = BatchSampler(sampler.caption_counts, sampler.batch_size, sampler.seed)
    for earlier in range(step % 3):
        again.draw_batch(earlier)
    first, second = sampler.draw_batch(step), again.draw_batch(step)
    assert np.array_equal(first.images, second.images)
    assert np.array_equal(first.captions, second.captions)
    assert np.array_equal(first.crop_draws, second.crop_draws)


@given(samplers, st.integers(0, 200))
def test_the_caption_is_one_that_the_picture_has(sampler, step):
    batch = sampler.draw_batch(step)
    counts = np.asarray(sampler.caption_counts)[batch.images]
    assert (batch.captions >= 0).all()
    assert (batch.captions < counts).all()


@given(samplers, st.integers(0, 50), st.integers(1, 80))
def test_a_picture_s_caption_and_crop_of_an_epoch_do_not_depend_on_the_batch_size(sampler, epoch, batch_size):
    def epoch_by_picture(plan):
        batches = [plan.draw_batch(epoch * plan.steps_per_epoch + place) for place in range(plan.steps_per_epoch)]
        return {
            int(picture): (int(caption), tuple(crop))
            for batch in batches
            for picture, caption, crop in zip(batch.images, batch.captions, batch.crop_draws, strict=True)
        }

    other = BatchSampler(sampler.caption_counts, batch_size, sampler.seed)
    assert epoch_by_picture(sampler) == epoch_by_picture(other)


def test_every_caption_gets_its_turn_equally_often():
    """300 pictures of 3 captions over 40 epochs: each caption a third of the time, within four standard deviations."""
    sampler = BatchSampler((3,) * 300, 64, seed=5)
    drawn = np.concatenate([sampler.draw_batch(step).captions for step in range(40 * sampler.steps_per_epoch)])
    shares = np.bincount(drawn, minlength=3) / len(drawn)
    assert shares == pytest.approx(1 / 3, abs=4 * np.sqrt(2 / 9 / len(drawn)))


def test_epochs_and_seeds_differ():
    orders = [
        BatchSampler((1,) * 50, 50, seed).draw_batch(step).images.tolist()
        for seed, step in [(0, 0), (0, 1), (1, 0), (1, 1)]
    ]
    assert len({tuple(order) for order in orders}) == 4


def test_the_stream_is_the_one_that_was_always_drawn():
    """A changed number here breaks the resuming of every run in the world."""
    assert draw_uniform(7, epoch=3, stream=0, count=3) == pytest.approx(
        [0.4821286018761155, 0.7241355726248441, 0.05025403948627161], abs=0
    )
    assert BatchSampler((2,) * 6, 4, seed=7).draw_batch(4).images.tolist() == [4, 0, 1]


def test_draws_fill_the_unit_interval_evenly():
    draws = draw_uniform(0, epoch=0, stream=2, count=100_000)
    counts, _ = np.histogram(draws, bins=20, range=(0, 1))
    assert counts.sum() == 100_000
    assert counts == pytest.approx(5_000, abs=5 * np.sqrt(5_000))
