"""What validation shares with training, where it should share nothing."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from retrieval.evaluate.collection import caption_key
from retrieval.train.data.near_duplicates import PerceptualHashes, group_near_duplicates

if TYPE_CHECKING:
    from retrieval.train.data.dataset import PairDataset
    from retrieval.train.data.image_cache import ImageCache
    from retrieval.train.validation.validator import Exam


@dataclass(frozen=True, slots=True)
class Leakage:
    """What of the validation pairs was learned from too.

    Attributes:
        pictures: validation pictures that are one learned from, byte for byte.
        twins: further ones that are near-duplicates of one learned from.
        texts: validation texts that are learned from, but for case and spacing. Short ones recur of themselves.
    """

    pictures: int
    twins: int
    texts: int

    @classmethod
    def of(cls, exam: "Exam", dataset: "PairDataset", image_cache: "ImageCache") -> "Leakage":
        """What this exam shares with these dataset."""
        learned = np.array(dataset.images, np.int64)
        contents = {image_cache.content_hashes[number] for number in dataset.images}
        same = np.array([content in contents for content in exam.contents], np.bool_)
        texts = {caption_key(text) for text in dataset.texts}
        return cls(
            pictures=int(same.sum()),
            twins=int((_have_twins(exam.prints, image_cache.perceptual_hashes[learned]) & ~same).sum()),
            texts=sum(caption_key(text) in texts for text in exam.collection.texts),
        )

    def __bool__(self) -> bool:
        return bool(self.pictures or self.twins)

    def __str__(self) -> str:
        return f"{self.pictures} pictures, {self.twins} near-duplicates of pictures and {self.texts} texts"


def _have_twins(prints: PerceptualHashes, known: PerceptualHashes) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    """Which pictures (n,) have a near-duplicate among those known."""
    groups = group_near_duplicates(np.concatenate([known, prints]))
    count = len(known)
    return np.isin(groups[count:], groups[:count])
