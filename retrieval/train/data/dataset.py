"""What a training run learns from: pictures, the texts beside them, what is held out, and batches for the model."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from retrieval.evaluate.collection import Collection, build_collection
from retrieval.metrics import Relevance
from retrieval.pairs import Pair
from retrieval.train.data.augmentation import Augmentation, with_words_left_out
from retrieval.train.data.balance import classes_of
from retrieval.train.data.caption_words import pieces
from retrieval.train.data.sampler import BatchIndices, BatchSampler
from retrieval.train.data.weights import weights_of
from retrieval.train.distributed import ProcessGroup
from retrieval.train.losses import Positives

if TYPE_CHECKING:
    from retrieval.train.data.image_cache import ImageCache
    from retrieval.train.data.transforms import TrainTransform

Ids = NDArray[np.int64]

MIN_HELD_OUT: Final = 20
MAX_HELD_OUT: Final = 2000
_ALONE: Final = ProcessGroup()
_KEPT_TEXTS: Final = 2**17  # texts that stay tokenised, 80 MB at the usual 77 tokens


def hold_out_pairs(pairs: Sequence[Pair], image_cache: "ImageCache", *, share: float, seed: int) -> NDArray[np.bool_]:
    """Which pairs (p,) are kept for validation: about this share of the pictures, `MAX_HELD_OUT` at most.

    Pairs that share an item or a picture, or have near-duplicate pictures, directly or through others, stay together.
    Which are held out hangs on what is in the pictures, not on their order or number: when pairs come and go, nearly
    all stay on their side, and a model that goes on from an earlier run is not graded on what that run learned from.
    Nothing is held out where that would be fewer than `MIN_HELD_OUT` pictures: too few to tell one model from
    another.
    """
    families = _families(
        build_collection(pairs, image_cache.image_of_pair, images=len(image_cache.sources)),
        image_cache.duplicate_groups,
    )
    wanted = min(round(share * len(families)), MAX_HELD_OUT)
    names, sizes = np.unique(families, return_counts=True)
    drawn = dict.fromkeys(names.tolist(), "~")  # behind every hash
    for family, content in zip(families.tolist(), image_cache.content_hashes, strict=True):
        drawn[family] = min(drawn[family], _drawn(content, seed))
    held, room = [], wanted
    for place in sorted(range(len(names)), key=lambda place: drawn[int(names[place])]):
        if sizes[place] <= room:
            held.append(names[place])
            room -= sizes[place]
    if wanted - room < MIN_HELD_OUT:
        return np.zeros(len(pairs), np.bool_)
    return (image_cache.image_of_pair >= 0) & np.isin(families[image_cache.image_of_pair], held)


def _drawn(content: str, seed: int) -> str:
    """What decides a picture's side: as good as random, but always the same for the same bytes."""
    return hashlib.blake2b(f"{seed} {content}".encode(), digest_size=16).hexdigest()


def _families(collection: Collection, twins: Ids) -> Ids:
    """For each picture (n,) the least picture that it is connected with through items and near-duplicates."""
    least = np.arange(collection.item_images.targets)
    items = collection.item_images
    item_of_pair = items.query_of_pair()
    while True:
        of_item = np.full(items.queries, len(least))
        np.minimum.at(of_item, item_of_pair, least[items.ids])
        closer = least.copy()
        np.minimum.at(closer, items.ids, of_item[item_of_pair])
        np.minimum.at(closer, twins, closer.copy())
        closer = np.minimum(closer, closer[twins])
        if np.array_equal(closer, least):
            return least
        least = closer


@dataclass(frozen=True, slots=True)
class PairDataset:
    """Pictures with texts, by number: what a sampler draws from.

    Attributes:
        pictures: the image_cache's number of each picture.
        texts: the distinct texts.
        captions: of each picture, the texts beside it.
        right: of each picture, all texts that are right for it: those of its items, equal ones of others, and what is
            right for its near-duplicates.
        classes: of each picture, where epochs are balanced by class; else empty.
        weights: (n,) what each picture counts in the loss; None where all count alike.
    """

    images: tuple[int, ...]
    texts: tuple[str, ...]
    captions: tuple[tuple[int, ...], ...]
    positives: tuple[tuple[int, ...], ...]
    classes: tuple[int, ...] = ()
    weights: NDArray[np.float64] | None = None

    @classmethod
    def from_pairs(
        cls, pairs: Sequence[Pair], numbers: Ids, *, twins: Ids | None = None, balance: str = "", weight: str = ""
    ) -> "PairDataset":
        """The dataset in those pairs whose picture has a number in the image_cache.

        Args:
            pairs: pictures with captions.
            numbers: the image_cache's number of each pair's picture, -1 for those to leave out.
            twins: of each picture of the image_cache, the group of near-duplicates that it belongs to.
            balance: what `balance.classes_of` makes classes by; empty for none.
            weight: the attribute that pictures count by; empty for none.

        Raises:
            TrainingError: no picture has the attribute to balance by; or a weight is no number of at least 0.
        """
        pictures, places = np.unique(numbers[numbers >= 0], return_inverse=True)
        place_of_pair = np.full(len(numbers), -1)
        place_of_pair[numbers >= 0] = places
        spoken = [_spoken(pair) for pair in pairs]
        collection = build_collection(spoken, place_of_pair, images=len(pictures))
        text_numbers = {text: number for number, text in enumerate(collection.texts)}
        captions: list[dict[int, None]] = [{} for _ in pictures]
        for pair, place in zip(spoken, place_of_pair.tolist(), strict=True):
            if place >= 0:
                captions[place].update(dict.fromkeys(text_numbers[text] for text in pair.captions))
        right = collection.relevant_images().transpose()
        if twins is not None and len(pictures):
            right = _shared_by_twins(right, twins[pictures])
        bounds = zip(right.offsets[:-1], right.offsets[1:], strict=True)
        return cls(
            images=tuple(pictures.tolist()),
            texts=collection.texts,
            captions=tuple(map(tuple, captions)),
            positives=tuple(tuple(right.ids[start:stop].tolist()) for start, stop in bounds),
            classes=() if not balance else classes_of(pairs, place_of_pair, pictures=len(pictures), by=balance),
            weights=None if not weight else weights_of(pairs, place_of_pair, attribute=weight, count=len(pictures)),
        )

    def digest(self, image_cache: "ImageCache") -> str:
        """Hash of the pictures' bytes and the texts: equal where a sampler would draw the same."""
        told: list[object] = [
            self.texts,
            self.captions,
            [image_cache.content_hashes[number] for number in self.images],
        ]
        told += [self.classes] if self.classes else []
        told += [] if self.weights is None else [self.weights.tolist()]
        return hashlib.blake2b(json.dumps(told).encode(), digest_size=16).hexdigest()


def _shared_by_twins(right: Relevance, twins: Ids) -> Relevance:
    """What is right for each picture, or for another of its group of near-duplicates (n,)."""
    _, group = np.unique(twins, return_inverse=True)
    members = Relevance.from_pairs(
        np.arange(len(group)), group, queries=len(group), targets=int(group.max(initial=-1)) + 1
    )
    return members.compose(members.transpose()).compose(right)


def _spoken(pair: Pair) -> Pair:
    return Pair(pair.id, pair.image, tuple(caption for caption in pair.captions if caption.strip()))


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch that is ready for the model.

    Attributes:
        step: counted from 0.
        epoch: counted from 0.
        pictures: (b,) by their places in the dataset.
        texts: (b,) by their numbers there.
        pixels: (b, height, width, 3) bytes; empty where what the image tower makes of the pictures is known.
        tokens: (b, context length).
        positives: which texts of the whole batch are right for which of its pictures.
        weights: (whole batch,) what each pair counts; None where all count alike.
        first: where in the whole batch these b are, which is all of it unless other processes have the rest.
    """

    step: int
    epoch: int
    images: Ids
    texts: Ids
    pixels: NDArray[np.uint8]
    tokens: Ids
    positives: Positives
    weights: NDArray[np.float64] | None = None
    offset: int = 0

    @property
    def total(self) -> int:
        """Pairs in the whole batch."""
        return len(self.positives)


class BatchLoader:
    """Prepares the batch of any step; called on several threads at once.

    Attributes:
        sampler: what it follows; to be changed while no thread is at work.
    """

    def __init__(
        self,
        dataset: PairDataset,
        image_cache: "ImageCache",
        *,
        sampler: BatchSampler,
        transform: "TrainTransform | None",
        tokenizer: Callable[..., Any],
        augmentation: Augmentation | None = None,
        word_dropout: float = 0.0,
        process_group: ProcessGroup = _ALONE,
    ) -> None:
        """Begin; without transform, no batch shows its pictures. Each process gets its own shard of every batch."""
        self._process_group = process_group
        self._dataset, self._image_cache, self.sampler, self._transform = dataset, image_cache, sampler, transform
        self._augmentation, self._word_dropout = augmentation, word_dropout
        self._tokenizer, self._one_at_a_time = tokenizer, Lock()
        self.tokens = lru_cache(_KEPT_TEXTS)(self._tokens_of)

    def load(self, step: int) -> Batch:
        """The batch of a step.

        Raises:
            TrainingError: a picture that could be read at first no longer can.
        """
        batch, dataset = self.sampler.draw_batch(step), self._dataset
        texts = [dataset.captions[place][caption] for place, caption in zip(batch.images, batch.captions, strict=True)]
        share = self._process_group.shard(len(texts))
        own = slice(share.start, share.stop)
        return Batch(
            step=step,
            epoch=batch.epoch,
            images=batch.images[own],
            texts=np.array(texts[own]),
            pixels=self._pixels(batch, share),
            tokens=np.stack([self._said(texts[place], batch, place) for place in share]),
            positives=Positives.from_texts(texts, [dataset.positives[place] for place in batch.images]),
            weights=None if dataset.weights is None else dataset.weights[batch.images],
            offset=share.start,
        )

    def _pixels(self, batch: BatchIndices, share: range) -> NDArray[np.uint8]:
        if self._transform is None:
            return np.empty((0, 0, 0, 3), np.uint8)
        return np.stack([self._shown(batch, place, self._transform) for place in share])

    def _shown(self, batch: BatchIndices, place: int, transform: "TrainTransform") -> NDArray[np.uint8]:
        """A picture of the batch as it is shown."""
        picture = int(batch.images[place])
        pixels = self._image_cache.crop(self._dataset.images[picture], transform, batch.crop_draws[place])
        return (
            pixels
            if self._augmentation is None
            else self._augmentation.apply(picture, pixels, batch.augmentation_draws[place])
        )

    def _said(self, text: int, batch: BatchIndices, place: int) -> Ids:
        """Tokens of a text of the batch as it is shown, perhaps without some of its words."""
        if not self._word_dropout:
            return self.tokens(text)
        whole = self._dataset.texts[text]
        chance = self.sampler.words(batch.epoch, int(batch.samples[place]), len(pieces(whole)))
        said = with_words_left_out(whole, chance, share=self._word_dropout)
        return self.tokens(text) if said == whole else self._tokenize(said)

    def _tokens_of(self, text: int) -> Ids:
        return self._tokenize(self._dataset.texts[text])

    def _tokenize(self, text: str) -> Ids:
        """Tokens of one text; Hugging Face's tokenizers must not run on two threads at once."""
        with self._one_at_a_time:
            return np.asarray(self._tokenizer([text])[0])
