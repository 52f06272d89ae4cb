"""Loads the batch of any training step: crops, tokens, and which texts are right for which images."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from index.vectors import Ids
from retrieval.train.data.caption_words import split_words
from retrieval.train.data.transforms import drop_words
from retrieval.train.distributed import ProcessGroup
from retrieval.train.losses import Positives

if TYPE_CHECKING:
    from retrieval.train.data.dataset import PairDataset
    from retrieval.train.data.image_cache import ImageCache
    from retrieval.train.data.sampler import BatchIndices, BatchSampler
    from retrieval.train.data.transforms import Augmentation, TrainTransform


_ALONE: Final = ProcessGroup()
_CACHED_TEXTS: Final = 2**17  # texts that stay tokenized, 80 MB at the usual 77 tokens


@dataclass(frozen=True, slots=True)
class Batch:
    """A process's part of a batch, ready for the model."""

    step: int  # counted from 0
    epoch: int  # counted from 0
    images: Ids  # (b,), numbers in the dataset
    texts: Ids  # (b,), likewise
    pixels: NDArray[np.uint8]  # (b, height, width, 3); empty where the images' features are precomputed
    tokens: Ids  # (b, context length)
    positives: Positives  # of the whole batch; their length is its number of pairs
    weights: NDArray[np.float64] | None = None  # (whole batch,), of each pair in the loss; None for equal weights
    offset: int = 0  # where in the whole batch these b are: other processes have the rest


class BatchLoader:
    """Loads the batch of any step; called on several threads at once.

    Attributes:
        sampler: Chooses the images and captions of each step; only to be replaced while no thread loads.
    """

    def __init__(
        self,
        dataset: "PairDataset",
        image_cache: "ImageCache",
        *,
        sampler: "BatchSampler",
        transform: "TrainTransform | None",
        tokenizer: Callable[..., Any],
        augmentation: "Augmentation | None" = None,
        word_dropout: float = 0.0,
        process_group: ProcessGroup = _ALONE,
    ) -> None:
        """Without a transform, batches come without pixels. Each process loads its own shard of every batch."""
        self._dataset, self._image_cache, self.sampler, self._transform = dataset, image_cache, sampler, transform
        self._augmentation, self._word_dropout, self._process_group = augmentation, word_dropout, process_group
        self._tokenizer, self._tokenizer_lock = tokenizer, Lock()
        self.tokenize_text = lru_cache(_CACHED_TEXTS)(lambda text: self._tokenize(dataset.texts[text]))

    def load(self, step: int) -> Batch:
        """Return the batch of a step.

        Raises:
            TrainingError: an image that could be read before no longer can.
        """
        drawn, dataset = self.sampler.draw_batch(step), self._dataset
        texts = [dataset.captions[image][caption] for image, caption in zip(drawn.images, drawn.captions, strict=True)]
        part = self._process_group.shard(len(texts))
        own = slice(part.start, part.stop)
        return Batch(
            step=step,
            epoch=drawn.epoch,
            images=drawn.images[own],
            texts=np.array(texts[own]),
            pixels=np.stack([self._load_pixels(drawn, place) for place in part]),
            tokens=np.stack([self._load_tokens(texts[place], drawn, place) for place in part]),
            positives=Positives.from_texts(texts, [dataset.positives[image] for image in drawn.images]),
            weights=None if dataset.weights is None else dataset.weights[drawn.images],
            offset=part.start,
        )

    def _load_pixels(self, drawn: "BatchIndices", place: int) -> NDArray[np.uint8]:
        if self._transform is None:
            return np.empty((0, 0, 3), np.uint8)
        image = int(drawn.images[place])
        pixels = self._image_cache.crop(self._dataset.images[image], self._transform, drawn.crop_draws[place])
        if self._augmentation is None:
            return pixels
        return self._augmentation.apply(image, pixels, drawn.augmentation_draws[place])

    def _load_tokens(self, text: int, drawn: "BatchIndices", place: int) -> Ids:
        """Return the tokens of a text of the batch, perhaps without some of its words."""
        if not self._word_dropout:
            return self.tokenize_text(text)
        whole = self._dataset.texts[text]
        draws = self.sampler.draw_words(drawn.epoch, int(drawn.samples[place]), len(split_words(whole)))
        shortened = drop_words(whole, draws, probability=self._word_dropout)
        return self.tokenize_text(text) if shortened == whole else self._tokenize(shortened)

    def _tokenize(self, text: str) -> Ids:
        """Tokenize one text; Hugging Face's tokenizers must not run on two threads at once."""
        with self._tokenizer_lock:
            return np.asarray(self._tokenizer([text])[0])
