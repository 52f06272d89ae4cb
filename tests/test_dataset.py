"""What is learned from: which pictures count as one, what is held out, which texts are right, and whole batches."""

from contextlib import closing

import numpy as np
import pytest
import torch
from PIL import Image

from retrieval.errors import TrainingError
from retrieval.images import ImageSource
from retrieval.pairs import Pair
from retrieval.train.data.dataset import PairDataset, hold_out_pairs
from retrieval.train.data.image_cache import DiskCache, build_image_cache
from retrieval.train.data.loader import BatchLoader
from retrieval.train.data.sampler import BatchSampler
from retrieval.train.data.transforms import TrainTransform

CROPS = TrainTransform(16, 16, "shortest", bicubic=True, fill=0, min_scale=0.7)


def draw(folder, name, *, seed=None, size=24):
    """A picture of noise, of one file name's own unless a seed says otherwise."""
    generator = np.random.default_rng(abs(hash(name)) if seed is None else seed)
    path = folder / name
    Image.fromarray(generator.integers(0, 256, (size, size, 3), np.uint8)).save(path)
    return path


def pair(path, item, *captions):
    return Pair(item, ImageSource(path, path.name), captions)


def many(folder, count, *, per_item=1):
    return [
        pair(draw(folder, f"{number}.png", seed=number), f"item{number // per_item}", f"thing {number}")
        for number in range(count)
    ]


def open_all(pairs, **settings):
    return build_image_cache(pairs, CROPS, **{"cache_bytes": 2**20, "threads": 2, **settings})


def test_one_picture_under_two_names_and_two_ids_is_one_picture(tmp_path):
    pairs = [
        pair(draw(tmp_path, "a.png", seed=1), "a", "one"),
        pair(draw(tmp_path, "copy.png", seed=1), "b", "two"),
        pair(tmp_path / "a.png", "c", "three"),
        pair(draw(tmp_path, "other.png", seed=2), "d", "four"),
    ]
    image_cache = open_all(pairs)
    assert image_cache.image_of_pair.tolist() == [0, 0, 0, 1]
    assert [source.name for source in image_cache.sources] == ["a.png", "other.png"]
    dataset = PairDataset.from_pairs(pairs, image_cache.image_of_pair)
    own = [{dataset.texts[text] for text in texts} for texts in dataset.captions]
    assert own == [{"one", "two", "three"}, {"four"}]


def test_what_cannot_be_learned_from_is_named_with_its_reason(tmp_path):
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    pairs = [
        pair(damaged, "a", "a picture"),
        pair(tmp_path / "gone.png", "b", "another"),
        pair(draw(tmp_path, "mute.png"), "c", "  "),
        pair(draw(tmp_path, "good.png"), "d", "a good one"),
    ]
    image_cache = open_all(pairs)
    assert image_cache.image_of_pair.tolist() == [-1, -1, -1, 0]
    reasons = {skipped.name: skipped.reason for skipped in image_cache.skipped}
    assert reasons.keys() == {"damaged.png", "gone.png", "mute.png"}
    assert reasons["mute.png"] == "has no caption to learn from"
    assert "damaged" in reasons["damaged.png"]


def test_pictures_beyond_the_budget_are_read_again_and_give_the_same_crops(tmp_path):
    pairs, chance = many(tmp_path, 4), np.array([0.2, 0.9, 0.4, 0.6])
    kept, half, none = (open_all(pairs, cache_bytes=size) for size in (2**20, 2 * 4 * 24 * 24, 0))
    assert [len(image_cache.in_memory) for image_cache in (kept, half, none)] == [4, 2, 0]  # framed they are 20 x 20
    for number in range(4):
        transform = {image_cache.crop(number, CROPS, chance).tobytes() for image_cache in (kept, half, none)}
        assert len(transform) == 1


def test_a_tenth_is_held_out_by_item_and_the_same_each_time(tmp_path):
    pairs = many(tmp_path, 300, per_item=3)
    image_cache = open_all(pairs)
    held = hold_out_pairs(pairs, image_cache, fraction=0.1, seed=5)
    assert held.sum() == 30
    inside, outside = ({pairs[n].id for n in np.flatnonzero(side)} for side in (held, ~held))
    assert not inside & outside
    assert np.array_equal(held, hold_out_pairs(pairs, image_cache, fraction=0.1, seed=5))
    assert not np.array_equal(held, hold_out_pairs(pairs, image_cache, fraction=0.1, seed=6))


def test_pairs_that_come_and_go_leave_the_others_on_their_side(tmp_path):
    """A hundred new ones before 300 old ones, of which the first fifty are gone."""
    pairs = many(tmp_path, 400)
    before, after = pairs[100:], pairs[:100] + pairs[150:]
    sides = []
    for some in (before, after):
        held = hold_out_pairs(some, open_all(some), fraction=0.1, seed=0)
        sides.append({one.id: bool(out) for one, out in zip(some, held, strict=True)})
    both = sides[0].keys() & sides[1].keys()
    assert len(both) == 250
    assert sum(sides[0][name] for name in both) > 20
    assert sum(sides[0][name] != sides[1][name] for name in both) <= 5


def test_items_that_share_a_picture_stay_on_one_side(tmp_path):
    """A chain: item i has picture i and picture i + 1, in chains of ten."""
    for number in range(220):
        draw(tmp_path, f"{number}.png", seed=number)
    chains = [
        pair(tmp_path / f"{number + step}.png", f"item{number}", f"thing {number}")
        for number in range(200)
        for step in ((0, 1) if number % 10 < 9 else (0,))
    ]
    image_cache = open_all(chains)
    held = hold_out_pairs(chains, image_cache, fraction=0.2, seed=0)
    chain_of_pair = np.array([int(one.id.removeprefix("item")) // 10 for one in chains])
    assert held.any()
    assert not set(chain_of_pair[held]) & set(chain_of_pair[~held])
    assert not set(image_cache.image_of_pair[held]) & set(image_cache.image_of_pair[~held])


def test_nothing_is_held_out_of_a_small_set_and_a_huge_item_does_not_take_the_whole_share(tmp_path):
    few = many(tmp_path, 150)
    assert not hold_out_pairs(few, open_all(few), fraction=0.1, seed=0).any()
    huge = [
        pair(one.image.path, "all" if place < 100 else one.id, "text") for place, one in enumerate(many(tmp_path, 300))
    ]
    held = hold_out_pairs(huge, open_all(huge), fraction=0.1, seed=0)
    assert held.sum() == 30
    assert not held[:100].any()


def test_all_captions_of_an_item_and_equal_ones_of_others_are_right(tmp_path):
    pairs = [
        pair(draw(tmp_path, "front.png"), "shoe", "Red shoe", "seen from the front"),
        pair(draw(tmp_path, "side.png"), "shoe", "seen from the side"),
        pair(draw(tmp_path, "twin.png"), "twin", "red  SHOE"),
        pair(draw(tmp_path, "hat.png"), "hat", "a hat"),
    ]
    dataset = PairDataset.from_pairs(pairs, open_all(pairs).image_of_pair)
    named = [{dataset.texts[text] for text in texts} for texts in dataset.positives]
    shoe = {"Red shoe", "seen from the front", "seen from the side", "red  SHOE"}
    assert named == [shoe, shoe, {"Red shoe", "red  SHOE"}, {"a hat"}]
    assert [{dataset.texts[text] for text in texts} for texts in dataset.captions] == [
        {"Red shoe", "seen from the front"},
        {"seen from the side"},
        {"red  SHOE"},
        {"a hat"},
    ]


def test_near_duplicates_stay_on_one_side_and_are_never_negatives_of_each_other(tmp_path):
    """Two hundred smooth pictures, each with a copy saved again under another id and text."""
    pairs = []
    for number in range(200):
        small = np.random.default_rng(number).integers(0, 256, (5, 5, 3), np.uint8)
        image = Image.fromarray(small).resize((48, 48), Image.Resampling.BICUBIC)
        image.save(tmp_path / f"{number}.png")
        image.save(tmp_path / f"{number}.jpg", quality=85)
        pairs += [
            pair(tmp_path / f"{number}.png", f"first{number}", f"text {number}"),
            pair(tmp_path / f"{number}.jpg", f"second{number}", f"another {number}"),
        ]
    image_cache = open_all(pairs)
    assert image_cache.duplicate_groups.tolist() == [place - place % 2 for place in range(400)]
    held = hold_out_pairs(pairs, image_cache, fraction=0.2, seed=0)
    assert held.sum() == 80
    assert np.array_equal(held[::2], held[1::2])
    dataset = PairDataset.from_pairs(pairs, image_cache.image_of_pair, duplicate_groups=image_cache.duplicate_groups)
    for place, own in enumerate(dataset.positives):
        assert {dataset.texts[text] for text in own} == {f"text {place // 2}", f"another {place // 2}"}
    assert [len(own) for own in dataset.captions] == [1] * 400


def test_pictures_beyond_memory_are_kept_on_disk_and_give_the_same_crops(tmp_path):
    pairs, chance = many(tmp_path, 4), np.array([0.2, 0.9, 0.4, 0.6])
    with closing(DiskCache(tmp_path / "cache", 2**20)) as disk:
        image_cache = open_all(pairs, cache_bytes=4 * 24 * 24, disk=disk)
        plain = open_all(pairs)
        assert (len(image_cache.in_memory), len(disk), image_cache.is_complete) == (1, 3, True)
        for path in tmp_path.glob("*.png"):
            path.unlink()
        for number in range(4):
            assert np.array_equal(image_cache.crop(number, CROPS, chance), plain.crop(number, CROPS, chance))
    assert list((tmp_path / "cache").iterdir()) == []


def test_word_dropout_leaves_out_words_anew_each_epoch_and_replays(tmp_path):
    words = "one two three four five six"
    pairs = [pair(draw(tmp_path, f"{n}.png", seed=n), f"{n}", words) for n in range(30)]
    image_cache = open_all(pairs)
    dataset = PairDataset.from_pairs(pairs, image_cache.image_of_pair)
    sampler = BatchSampler([1] * 30, 8, seed=3)

    def said(step):
        loader = BatchLoader(
            dataset, image_cache, sampler=sampler, transform=CROPS, tokenizer=lambda texts: [texts], word_dropout=0.5
        )
        return [str(tokens[0]) for tokens in loader.load(step).tokens]

    told = [text for step in range(40) for text in said(step)]
    assert said(7) == said(7)
    assert all(text.split() for text in told)
    assert len(set(told)) > 30
    share = np.mean([len(text.split()) for text in told]) / 6
    assert share == pytest.approx(0.5 + 0.5**6 / 6, abs=4 * 0.5 / np.sqrt(6 * len(told)))


def test_the_digest_changes_with_pictures_and_texts_and_not_with_names(tmp_path):
    def digest(*pairs):
        image_cache = open_all(pairs)
        return PairDataset.from_pairs(pairs, image_cache.image_of_pair).digest(image_cache)

    first = pair(draw(tmp_path, "a.png", seed=1), "a", "one")
    base = digest(first, pair(draw(tmp_path, "b.png", seed=2), "b", "two"))
    assert base == digest(first, pair(draw(tmp_path, "renamed.png", seed=2), "b", "two"))
    assert base != digest(first, pair(draw(tmp_path, "c.png", seed=3), "b", "two"))
    assert base != digest(first, pair(tmp_path / "b.png", "b", "three"))


def tokenizer(texts):
    """Tokens are the characters' codes."""
    return torch.tensor([[ord(character) for character in text.ljust(12)[:12]] for text in texts])


def loader_of(pairs, *, cache_bytes=2**20, batch_size=8):
    image_cache = open_all(pairs, cache_bytes=cache_bytes)
    dataset = PairDataset.from_pairs(pairs, image_cache.image_of_pair)
    sampler = BatchSampler([len(own) for own in dataset.captions], batch_size, seed=3)
    return dataset, BatchLoader(dataset, image_cache, sampler=sampler, transform=CROPS, tokenizer=tokenizer), sampler


def test_an_exercise_has_each_picture_s_own_caption_and_knows_the_other_right_ones(tmp_path):
    """Two labels over eight pictures: those of one label are right for each other, in whatever order they come."""
    pairs = [pair(draw(tmp_path, f"{n}.png", seed=n), f"{n}", ["a cat", "a dog"][n % 2]) for n in range(8)]
    dataset, loader, sampler = loader_of(pairs)
    batch = loader.load(5)
    order = sampler.draw_batch(5).images
    said = ["".join(map(chr, row)).strip() for row in batch.tokens]
    assert said == [pairs[dataset.images[place]].captions[0] for place in order]
    assert batch.positives.matrix().tolist() == [[one == other for other in said] for one in said]
    assert batch.pixels.shape == (8, 16, 16, 3)
    assert batch.epoch == 5


def test_an_exercise_is_the_same_from_memory_and_from_disk(tmp_path):
    pairs = many(tmp_path, 6)
    _, kept, _ = loader_of(pairs)
    _, read, _ = loader_of(pairs, cache_bytes=0)
    for step in range(3):
        assert np.array_equal(kept.load(step).pixels, read.load(step).pixels)
        assert np.array_equal(kept.load(step).tokens, read.load(step).tokens)


def test_a_picture_that_is_gone_in_the_middle_is_named(tmp_path):
    pairs = many(tmp_path, 3)
    _, loader, _ = loader_of(pairs, cache_bytes=0)
    (tmp_path / "1.png").unlink()
    with pytest.raises(
        TrainingError, match=r"1\.png could be read before training, but now it .*\. Put it back and resume\."
    ):
        loader.load(0)
