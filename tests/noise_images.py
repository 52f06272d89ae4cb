"""Pairs of noise images on disk, and their image cache."""

import numpy as np
from PIL import Image

from retrieval.images import ImageSource
from retrieval.pairs import Pair
from retrieval.train.data.image_cache import build_image_cache
from retrieval.train.data.transforms import TrainTransform

TRANSFORM = TrainTransform(16, 16, "shortest", Image.Resampling.BICUBIC, fill=0, min_scale=0.7)


def write_image(folder, name, *, seed=None, size=24):
    """Write an image of noise, which depends on the file name unless a seed is given."""
    generator = np.random.default_rng(abs(hash(name)) if seed is None else seed)
    path = folder / name
    Image.fromarray(generator.integers(0, 256, (size, size, 3), np.uint8)).save(path)
    return path


def make_pair(path, item, *captions):
    return Pair(item, ImageSource(path, path.name), captions)


def make_pairs(folder, count, *, per_item=1):
    return [
        make_pair(write_image(folder, f"{number}.png", seed=number), f"item{number // per_item}", f"thing {number}")
        for number in range(count)
    ]


def build_cache(pairs, **settings):
    return build_image_cache(pairs, TRANSFORM, **{"cache_bytes": 2**20, "threads": 2, **settings})
