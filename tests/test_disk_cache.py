"""Decoded pictures on disk: the same pixels, within the budget, and no harm from a full disk."""

import errno
import os
import shutil
from contextlib import closing
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from retrieval.errors import TrainingError
from retrieval.train.data.image_cache import DiskCache


def picture(seed, width=30, height=20):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def test_pictures_come_back_pixel_for_pixel(tmp_path):
    """Enough of them to cross pages of memory, in sizes that do not divide them."""
    with closing(DiskCache(tmp_path, 2**20)) as cache:
        for seed in range(40):
            cache.put(str(seed), picture(seed, width=31 + seed, height=17))
        for seed in range(40):
            found = cache.get(str(seed))
            assert found is not None
            assert np.array_equal(np.asarray(found), np.asarray(picture(seed, width=31 + seed, height=17)))
        assert cache.get(str(40)) is None


def test_the_budget_is_kept(tmp_path):
    with closing(DiskCache(tmp_path, 2 * 1800 + 1)) as cache:
        for seed in range(3):
            cache.put(str(seed), picture(seed))
        assert len(cache) == 2
        assert os.fstat(cache._file.fileno()).st_size == 3600


def test_processes_of_one_machine_share_the_budget_and_half_of_what_is_free(tmp_path, monkeypatch):
    """Four of them: a quarter of the budget each, or an eighth of what is free."""
    for free, kept in ((10**9, 2), (8 * 1800, 1)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=free))
        with closing(DiskCache(tmp_path, 4 * 2 * 1800, processes=4)) as cache:
            for seed in range(3):
                cache.put(str(seed), picture(seed))
            assert len(cache) == kept


@pytest.mark.parametrize("half", [True, False])
def test_a_full_disk_ends_the_keeping_and_loses_nothing(tmp_path, monkeypatch, half):
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
            cache.put(str(seed), picture(seed))
        monkeypatch.undo()
        cache.put(str(3), picture(3, width=1, height=1))
        assert [cache.get(str(seed)) is not None for seed in range(4)] == [True, False, False, False]
        assert np.array_equal(np.asarray(cache.get(str(0))), np.asarray(picture(0)))


def test_nothing_is_left_behind_and_no_budget_makes_no_file(tmp_path):
    with closing(DiskCache(tmp_path / "some", 2**20)) as cache:
        cache.put(str(0), picture(0))
        assert list((tmp_path / "some").iterdir()) == []  # nameless from the start: a kill leaves nothing either
    with closing(DiskCache(tmp_path / "none", 0)) as cache:
        cache.put(str(0), picture(0))
        assert cache.get(str(0)) is None
    assert not (tmp_path / "none").exists()


def test_a_folder_that_cannot_be_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        TrainingError, match=r"The image cache cannot be written to .*file/cache: .*\. Name another cache_folder"
    ):
        DiskCache(tmp_path / "file" / "cache", 2**20)
