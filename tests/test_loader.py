"""Batches: each image with its caption, the extra positives, and word dropout."""

import numpy as np
import pytest
import torch
from noise_images import TRANSFORM, build_cache, make_pair, make_pairs, write_image

from retrieval.errors import TrainingError
from retrieval.train.data.dataset import PairDataset
from retrieval.train.data.loader import BatchLoader
from retrieval.train.data.sampler import BatchSampler


def test_word_dropout_drops_other_words_each_epoch_and_is_reproducible(tmp_path):
    words = "one two three four five six"
    pairs = [make_pair(write_image(tmp_path, f"{n}.png", seed=n), f"{n}", words) for n in range(30)]
    image_cache = build_cache(pairs)
    dataset = PairDataset.from_pairs(pairs, image_cache.image_of_pair)
    sampler = BatchSampler([1] * 30, 8, seed=3)

    def texts_of(step):
        loader = BatchLoader(
            dataset,
            image_cache,
            sampler=sampler,
            transform=TRANSFORM,
            tokenizer=lambda texts: [texts],
            word_dropout=0.5,
        )
        return [str(tokens[0]) for tokens in loader.load(step).tokens]

    texts = [text for step in range(40) for text in texts_of(step)]
    assert texts_of(7) == texts_of(7)
    assert all(text.split() for text in texts)
    assert len(set(texts)) > 30
    share = np.mean([len(text.split()) for text in texts]) / 6
    assert share == pytest.approx(0.5 + 0.5**6 / 6, abs=4 * 0.5 / np.sqrt(6 * len(texts)))


def tokenizer(texts):
    """Tokens are the characters' codes."""
    return torch.tensor([[ord(character) for character in text.ljust(12)[:12]] for text in texts])


def loader_of(pairs, *, cache_bytes=2**20, batch_size=8):
    image_cache = build_cache(pairs, cache_bytes=cache_bytes)
    dataset = PairDataset.from_pairs(pairs, image_cache.image_of_pair)
    sampler = BatchSampler([len(own) for own in dataset.captions], batch_size, seed=3)
    return (
        dataset,
        BatchLoader(dataset, image_cache, sampler=sampler, transform=TRANSFORM, tokenizer=tokenizer),
        sampler,
    )


def test_batch_pairs_each_image_with_its_caption_and_marks_other_positives(tmp_path):
    """Two labels over eight images: those of one label are right for each other, in whatever order they come."""
    pairs = [make_pair(write_image(tmp_path, f"{n}.png", seed=n), f"{n}", ["a cat", "a dog"][n % 2]) for n in range(8)]
    dataset, loader, sampler = loader_of(pairs)
    batch = loader.load(5)
    order = sampler.draw_batch(5).images
    texts = ["".join(map(chr, row)).strip() for row in batch.tokens]
    assert texts == [pairs[dataset.images[place]].captions[0] for place in order]
    assert batch.positives.rows(0, 8).tolist() == [[one == other for other in texts] for one in texts]
    assert batch.pixels.shape == (8, 16, 16, 3)
    assert batch.epoch == 5


def test_batches_are_the_same_with_and_without_cached_images(tmp_path):
    pairs = make_pairs(tmp_path, 6)
    _, kept, _ = loader_of(pairs)
    _, read, _ = loader_of(pairs, cache_bytes=0)
    for step in range(3):
        assert np.array_equal(kept.load(step).pixels, read.load(step).pixels)
        assert np.array_equal(kept.load(step).tokens, read.load(step).tokens)


def test_an_image_that_disappears_during_training_is_named(tmp_path):
    pairs = make_pairs(tmp_path, 3)
    _, loader, _ = loader_of(pairs, cache_bytes=0)
    (tmp_path / "1.png").unlink()
    with pytest.raises(
        TrainingError, match=r"1\.png could be read before training, but now it .*\. Put it back and resume\."
    ):
        loader.load(0)
