"""Hard negatives are near, wrong, and placed in a batch with what they are hard for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.vectors import unit_rows
from retrieval.train.data.dataset import PairDataset
from retrieval.train.data.negatives import (
    MAX_RELATIVE_SCORE,
    NEGATIVES_PER_IMAGE,
    HardNegatives,
    mine_hard_negatives,
    place_hard_negatives,
)
from retrieval.train.data.sampler import BatchSampler
from retrieval.train.loop.hard_negatives import prefetch_depth


def test_prefetching_is_bounded_by_memory_and_holds_two_batches_at_least():
    """Of 512 images of 224 by 224 a batch takes 77 MB: 18 of them 1.4 GB. One of 4,096 takes 617 MB."""
    small, large = 512 * 224 * 224 * 3, 4096 * 224 * 224 * 3
    assert prefetch_depth(16, batch_bytes=small, memory=2**32) == 18
    assert prefetch_depth(64, batch_bytes=small, memory=2**32) == 55
    assert prefetch_depth(16, batch_bytes=large, memory=2**32) == 6
    assert prefetch_depth(16, batch_bytes=large, memory=2**29) == 2
    assert prefetch_depth(1, batch_bytes=0, memory=0) == 3


def dataset_of(captions, right):
    texts = tuple(f"text {number}" for number in range(1 + max(max(own) for own in captions)))
    return PairDataset(tuple(range(len(captions))), texts, tuple(map(tuple, captions)), tuple(map(tuple, right)))


def noisy(count, *, texts=None, seed=0, dimension=8):
    random = np.random.default_rng(seed)
    return unit_rows(random.standard_normal((texts or count, dimension)).astype(np.float32))


@st.composite
def cases(draw):
    count = draw(st.integers(2, 12))
    numbers = st.integers(0, count + 2)
    captions = [sorted(set(draw(st.lists(numbers, min_size=1, max_size=3)))) for _ in range(count)]
    captions[-1] = sorted({*captions[-1], count + 2})  # so that every number is a text
    right = [sorted({*own, *draw(st.lists(numbers, max_size=3))}) for own in captions]
    return captions, right, draw(st.integers(0, 1000))


@settings(deadline=None)
@given(cases())
def test_mined_negatives_are_the_nearest_wrong_texts_below_the_relative_score(case):
    """Against a loop over all texts."""
    captions, right, seed = case
    images, texts = noisy(len(captions), seed=seed), noisy(0, texts=len(captions) + 3, seed=seed + 1)
    hard = mine_hard_negatives(images, texts, captions=captions, positives=right)
    scores = images.astype(np.float64) @ texts.T.astype(np.float64)
    beside = {text for own in captions for text in own}
    for place in range(len(captions)):
        own = max(scores[place, text] for text in captions[place])
        cap = own - (1 - MAX_RELATIVE_SCORE) * abs(own)
        wrong = [text for text in np.argsort(-scores[place]).tolist() if text not in right[place]]
        wanted = [text for text in wrong if scores[place, text] < cap and text in beside][:NEGATIVES_PER_IMAGE]
        pairs = zip(hard.images[place].tolist(), hard.captions[place].tolist(), strict=True)
        assert [captions[other][caption] for other, caption in pairs if other >= 0] == wanted
        assert (hard.images[place, len(wanted) :] == -1).all()


@st.composite
def tables(draw):
    count = draw(st.integers(1, 40))
    random = np.random.default_rng(draw(st.integers(0, 1000)))
    images = random.integers(-1, count, (count, NEGATIVES_PER_IMAGE))
    hard = HardNegatives(images, random.integers(0, 3, (count, NEGATIVES_PER_IMAGE)))
    steps = draw(st.integers(1, count))
    sizes = [len(part) for part in np.array_split(np.arange(count), steps)]
    return random.permutation(count), random.integers(0, 3, count), hard, sizes, draw(st.floats(0, 0.9))


@settings(deadline=None)
@given(tables())
def test_an_epoch_with_hard_negatives_shows_every_image_once(case):
    order, captions, hard, sizes, share = case
    shown, drawn = place_hard_negatives(order, captions, negatives=hard, sizes=sizes, fraction=share)
    assert sorted(shown.tolist()) == list(range(len(order)))
    changed = np.flatnonzero(drawn != captions)
    known = {(int(p), int(c)) for p, c in zip(hard.images.flat, hard.captions.flat, strict=True)}
    assert all((place, int(drawn[place])) in known for place in changed.tolist())


def test_a_fraction_of_each_batch_is_hard_negatives_of_the_rest():
    """Forty images in ten families of four: a batch of eight is four anchors and what is hard for them."""
    count = 40
    images = np.full((count, NEGATIVES_PER_IMAGE), -1)
    for place in range(count):
        images[place, :3] = [other for other in range(place // 4 * 4, place // 4 * 4 + 4) if other != place]
    hard = HardNegatives(images, np.zeros_like(images))
    order = np.random.default_rng(1).permutation(count)
    sizes = [8] * 5
    shown, _ = place_hard_negatives(order, np.zeros(count, np.int64), negatives=hard, sizes=sizes, fraction=0.5)
    batches = shown.reshape(5, 8)
    plain = order.reshape(5, 8)

    def met(batch):
        return sum(other in batch for place in batch for other in images[place] if other >= 0)

    assert batches[0, :4].tolist() == order[:4].tolist()
    assert all(any(other in images[anchor] for anchor in batches[0, :4]) for other in batches[0, 4:])
    assert sum(map(met, batches.tolist())) > 3 * sum(map(met, plain.tolist()))


def test_without_a_fraction_or_negatives_the_order_stays():
    order, captions = np.random.default_rng(0).permutation(10), np.arange(10) % 2
    none = HardNegatives(np.full((10, NEGATIVES_PER_IMAGE), -1), np.full((10, NEGATIVES_PER_IMAGE), -1))
    all_of_them = HardNegatives(
        np.tile(np.arange(NEGATIVES_PER_IMAGE), (10, 1)), np.zeros((10, NEGATIVES_PER_IMAGE), np.int64)
    )
    for hard, share in ((none, 0.5), (all_of_them, 0.0)):
        shown, drawn = place_hard_negatives(order, captions, negatives=hard, sizes=[5, 5], fraction=share)
        assert np.array_equal(shown, order)
        assert np.array_equal(drawn, captions)


def test_batches_with_hard_negatives_depend_on_seed_step_and_table_alone():
    hard = HardNegatives(np.tile(np.arange(NEGATIVES_PER_IMAGE), (30, 1)), np.ones((30, NEGATIVES_PER_IMAGE), np.int64))
    samplers = [BatchSampler((2,) * 30, 8, 4, negatives=hard, negative_fraction=0.5) for _ in range(2)]
    for step in (5, 0, 5, 3):
        batches = [sampler.draw_batch(step) for sampler in samplers]
        assert np.array_equal(batches[0].images, batches[1].images)
        assert np.array_equal(batches[0].captions, batches[1].captions)
        assert batches[0].captions[np.isin(batches[0].images, range(NEGATIVES_PER_IMAGE))].sum() > 0 or step % 4


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_a_hard_negative_comes_with_the_caption_that_was_mined(share):
    random = np.random.default_rng(2)
    hard = HardNegatives(
        (np.arange(24)[:, None] + 1 + np.arange(NEGATIVES_PER_IMAGE)) % 24,
        random.integers(0, 3, (24, NEGATIVES_PER_IMAGE)),
    )
    sampler = BatchSampler((3,) * 24, 8, 0, negatives=hard, negative_fraction=share)
    batch = sampler.draw_batch(0)
    anchors = batch.images[: 8 - round(share * 8)].tolist()
    for image, caption in list(zip(batch.images.tolist(), batch.captions.tolist(), strict=True))[len(anchors) :]:
        mined = [
            (int(other), int(which))
            for one in anchors
            for other, which in zip(hard.images[one], hard.captions[one], strict=True)
        ]
        assert (image, caption) in mined
