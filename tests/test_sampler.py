"""A batch is a function of (seed, step): each property for any size, by hypothesis."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.train.data.sampler import Schedule, uniform

schedules = st.builds(
    Schedule,
    caption_counts=st.lists(st.integers(1, 6), min_size=1, max_size=70).map(tuple),
    batch_size=st.integers(1, 80),
    seed=st.integers(0, 2**63),
)


@given(schedules, st.integers(0, 5))
def test_an_epoch_shows_every_picture_once(schedule, epoch):
    steps = range(epoch * schedule.steps_per_epoch, (epoch + 1) * schedule.steps_per_epoch)
    seen = np.concatenate([schedule.batch(step).pictures for step in steps])
    assert sorted(seen) == list(range(len(schedule.caption_counts)))


@given(schedules, st.integers(0, 200))
def test_no_picture_is_twice_in_a_batch_and_no_batch_is_too_large(schedule, step):
    pictures = schedule.batch(step).pictures
    assert len(set(pictures.tolist())) == len(pictures)
    assert 1 <= len(pictures) <= schedule.batch_size


@given(schedules)
def test_batches_of_an_epoch_differ_by_one_picture_at_most(schedule):
    sizes = [len(schedule.batch(step).pictures) for step in range(schedule.steps_per_epoch)]
    assert max(sizes) - min(sizes) <= 1


@given(schedules, st.integers(0, 200))
def test_a_step_is_the_same_whoever_asks_and_whatever_came_before(schedule, step):
    """What a resumed run sees is what the undisturbed run saw."""
    again = Schedule(schedule.caption_counts, schedule.batch_size, schedule.seed)
    for earlier in range(step % 3):
        again.batch(earlier)
    first, second = schedule.batch(step), again.batch(step)
    assert np.array_equal(first.pictures, second.pictures)
    assert np.array_equal(first.captions, second.captions)
    assert np.array_equal(first.crops, second.crops)


@given(schedules, st.integers(0, 200))
def test_the_caption_is_one_that_the_picture_has(schedule, step):
    batch = schedule.batch(step)
    counts = np.asarray(schedule.caption_counts)[batch.pictures]
    assert (batch.captions >= 0).all()
    assert (batch.captions < counts).all()


@given(schedules, st.integers(0, 50), st.integers(1, 80))
def test_a_picture_s_caption_and_crop_of_an_epoch_do_not_depend_on_the_batch_size(schedule, epoch, batch_size):
    def epoch_by_picture(plan):
        batches = [plan.batch(epoch * plan.steps_per_epoch + place) for place in range(plan.steps_per_epoch)]
        return {
            int(picture): (int(caption), tuple(crop))
            for batch in batches
            for picture, caption, crop in zip(batch.pictures, batch.captions, batch.crops, strict=True)
        }

    other = Schedule(schedule.caption_counts, batch_size, schedule.seed)
    assert epoch_by_picture(schedule) == epoch_by_picture(other)


def test_every_caption_gets_its_turn_equally_often():
    """300 pictures of 3 captions over 40 epochs: each caption a third of the time, within four standard deviations."""
    schedule = Schedule((3,) * 300, 64, seed=5)
    drawn = np.concatenate([schedule.batch(step).captions for step in range(40 * schedule.steps_per_epoch)])
    shares = np.bincount(drawn, minlength=3) / len(drawn)
    assert shares == pytest.approx(1 / 3, abs=4 * np.sqrt(2 / 9 / len(drawn)))


def test_epochs_and_seeds_differ():
    orders = [
        Schedule((1,) * 50, 50, seed).batch(step).pictures.tolist() for seed, step in [(0, 0), (0, 1), (1, 0), (1, 1)]
    ]
    assert len({tuple(order) for order in orders}) == 4


def test_the_stream_is_the_one_that_was_always_drawn():
    """A changed number here breaks the resuming of every run in the world."""
    assert uniform(7, epoch=3, purpose=0, count=3) == pytest.approx(
        [0.4821286018761155, 0.7241355726248441, 0.05025403948627161], abs=0
    )
    assert Schedule((2,) * 6, 4, seed=7).batch(4).pictures.tolist() == [4, 0, 1]


def test_draws_fill_the_unit_interval_evenly():
    draws = uniform(0, epoch=0, purpose=2, count=100_000)
    counts, _ = np.histogram(draws, bins=20, range=(0, 1))
    assert counts.sum() == 100_000
    assert counts == pytest.approx(5_000, abs=5 * np.sqrt(5_000))
