"""What validation pairs share with training pairs, which should be nothing."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from retrieval.evaluate.collection import caption_key
from retrieval.train.data.near_duplicates import group_near_duplicates

if TYPE_CHECKING:
    from retrieval.train.data.dataset import PairDataset
    from retrieval.train.data.image_cache import ImageCache
    from retrieval.train.validation.validator import ValidationSet


@dataclass(frozen=True, slots=True)
class Leakage:
    """How much of the validation set was trained on."""

    images: int  # validation images that are a training image, byte for byte
    near_duplicates: int  # further ones that are near-duplicates of a training image
    texts: int  # validation texts that are training texts, except for case and spacing. Short ones recur naturally.

    @classmethod
    def measure(cls, validation_set: "ValidationSet", dataset: "PairDataset", image_cache: "ImageCache") -> "Leakage":
        """Count what the validation set shares with the dataset."""
        content_hashes = {image_cache.content_hashes[number] for number in dataset.images}
        equal = np.array([content in content_hashes for content in validation_set.content_hashes], np.bool_)
        trained = image_cache.perceptual_hashes[np.array(dataset.images, np.int64)]
        groups = group_near_duplicates(np.concatenate([trained, validation_set.perceptual_hashes]))
        similar = np.isin(groups[len(trained) :], groups[: len(trained)])
        texts = {caption_key(text) for text in dataset.texts}
        return cls(
            images=int(equal.sum()),
            near_duplicates=int((similar & ~equal).sum()),
            texts=sum(caption_key(text) in texts for text in validation_set.collection.texts),
        )

    def __bool__(self) -> bool:
        return bool(self.images or self.near_duplicates)

    def __str__(self) -> str:
        return f"{self.images} images, {self.near_duplicates} near-duplicates of images and {self.texts} texts"
