"""The image cache: each distinct image once, in memory or on disk, with the same pixels and within its budgets."""

import errno
import os
import shutil
from contextlib import closing
from types import SimpleNamespace

import numpy as np
import pytest
from noise_images import TRANSFORM, build_cache, make_pair, make_pairs, write_image
from PIL import Image

from retrieval.errors import TrainingError
from retrieval.train.data.dataset import PairDataset
from retrieval.train.data.image_cache import DiskCache


def test_equal_files_under_two_names_and_ids_are_one_image(tmp_path):
    pairs = [
        make_pair(write_image(tmp_path, "a.png", seed=1), "a", "one"),
        make_pair(write_image(tmp_path, "copy.png", seed=1), "b", "two"),
        make_pair(tmp_path / "a.png", "c", "three"),
        make_pair(write_image(tmp_path, "other.png", seed=2), "d", "four"),
    ]
    image_cache = build_cache(pairs)
    assert image_cache.image_of_pair.tolist() == [0, 0, 0, 1]
    assert [source.name for source in image_cache.sources] == ["a.png", "other.png"]
    dataset = PairDataset.from_pairs(pairs, image_cache.image_of_pair)
    own = [{dataset.texts[text] for text in texts} for texts in dataset.captions]
    assert own == [{"one", "two", "three"}, {"four"}]


def test_unreadable_and_uncaptioned_images_are_skipped_with_a_reason(tmp_path):
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    pairs = [
        make_pair(damaged, "a", "an image"),
        make_pair(tmp_path / "gone.png", "b", "another"),
        make_pair(write_image(tmp_path, "mute.png"), "c", "  "),
        make_pair(write_image(tmp_path, "good.png"), "d", "a good one"),
    ]
    image_cache = build_cache(pairs)
    assert image_cache.image_of_pair.tolist() == [-1, -1, -1, 0]
    reasons = {skipped.name: skipped.reason for skipped in image_cache.skipped}
    assert reasons.keys() == {"damaged.png", "gone.png", "mute.png"}
    assert reasons["mute.png"] == "has no caption to learn from"
    assert "damaged" in reasons["damaged.png"]


def test_images_beyond_the_memory_budget_are_decoded_again_and_give_the_same_crops(tmp_path):
    pairs, chance = make_pairs(tmp_path, 4), np.array([0.2, 0.9, 0.4, 0.6])
    kept, half, none = (build_cache(pairs, cache_bytes=size) for size in (2**20, 2 * 4 * 24 * 24, 0))
    assert [len(image_cache.in_memory) for image_cache in (kept, half, none)] == [4, 2, 0]  # framed they are 20 x 20
    for number in range(4):
        transform = {image_cache.crop(number, TRANSFORM, chance).tobytes() for image_cache in (kept, half, none)}
        assert len(transform) == 1


def test_images_beyond_memory_are_cached_on_disk_and_give_the_same_crops(tmp_path):
    pairs, chance = make_pairs(tmp_path, 4), np.array([0.2, 0.9, 0.4, 0.6])
    with closing(DiskCache(tmp_path / "cache", 2**20)) as disk:
        image_cache = build_cache(pairs, cache_bytes=4 * 24 * 24, disk=disk)
        plain = build_cache(pairs)
        assert (len(image_cache.in_memory), len(disk), image_cache.is_complete) == (1, 3, True)
        for path in tmp_path.glob("*.png"):
            path.unlink()
        for number in range(4):
            assert np.array_equal(image_cache.crop(number, TRANSFORM, chance), plain.crop(number, TRANSFORM, chance))
    assert list((tmp_path / "cache").iterdir()) == []


def noise(seed, width=30, height=20):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def test_cached_images_are_the_same_pixel_for_pixel(tmp_path):
    """Enough of them to cross pages of memory, in sizes that do not divide them."""
    with closing(DiskCache(tmp_path, 2**20)) as cache:
        for seed in range(40):
            cache.put(str(seed), noise(seed, width=31 + seed, height=17))
        for seed in range(40):
            found = cache.get(str(seed))
            assert found is not None
            assert np.array_equal(np.asarray(found), np.asarray(noise(seed, width=31 + seed, height=17)))
        assert cache.get(str(40)) is None


def test_the_disk_cache_stays_within_its_budget(tmp_path):
    with closing(DiskCache(tmp_path, 2 * 1800 + 1)) as cache:
        for seed in range(3):
            cache.put(str(seed), noise(seed))
        assert len(cache) == 2
        assert os.fstat(cache._file.fileno()).st_size == 3600


def test_processes_of_one_machine_share_the_disk_budget_and_half_of_the_free_space(tmp_path, monkeypatch):
    """Four of them: a quarter of the budget each, or an eighth of what is free."""
    for free, kept in ((10**9, 2), (8 * 1800, 1)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=free))
        with closing(DiskCache(tmp_path, 4 * 2 * 1800, processes=4)) as cache:
            for seed in range(3):
                cache.put(str(seed), noise(seed))
            assert len(cache) == kept


@pytest.mark.parametrize("half", [True, False])
def test_a_full_disk_stops_the_writing_and_loses_nothing(tmp_path, monkeypatch, half):
    write = os.pwrite

    def full(descriptor, data, offset):
        if offset < 1800:
            return write(descriptor, data, offset)
        if half:
            return write(descriptor, data[:900], offset)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with closing(DiskCache(tmp_path, 2**20)) as cache:
        for seed in range(3):
            cache.put(str(seed), noise(seed))
        monkeypatch.undo()
        cache.put(str(3), noise(3, width=1, height=1))
        assert [cache.get(str(seed)) is not None for seed in range(4)] == [True, False, False, False]
        assert np.array_equal(np.asarray(cache.get(str(0))), np.asarray(noise(0)))


def test_the_disk_cache_leaves_no_file_and_needs_none_without_a_budget(tmp_path):
    with closing(DiskCache(tmp_path / "some", 2**20)) as cache:
        cache.put(str(0), noise(0))
        assert list((tmp_path / "some").iterdir()) == []  # nameless from the start: a kill leaves nothing either
    with closing(DiskCache(tmp_path / "none", 0)) as cache:
        cache.put(str(0), noise(0))
        assert cache.get(str(0)) is None
    assert not (tmp_path / "none").exists()


def test_a_cache_folder_that_cannot_be_created_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        TrainingError, match=r"The image cache cannot be written to .*file/cache: .*\. Name another cache_folder"
    ):
        DiskCache(tmp_path / "file" / "cache", 2**20)
