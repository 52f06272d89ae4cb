"""The training dataset: images with their captions, all texts that are right for each, and the held-out split."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from index.vectors import Ids
from retrieval.errors import TrainingError
from retrieval.evaluate.collection import build_collection, caption_key
from retrieval.metrics import Relevance
from retrieval.pairs import Pair
from retrieval.train.data.image_cache import ImageCache
from retrieval.train.data.near_duplicates import connect_pairs

MIN_HELD_OUT: Final = 20
MAX_HELD_OUT: Final = 2000
CLASS_BY_TEXT: Final = "text"
_LISTED_NAMES: Final = 8


@dataclass(frozen=True, slots=True)
class PairDataset:
    """Images with captions, all as numbers: what the batches are drawn from."""

    images: tuple[int, ...]  # numbers in the image cache
    texts: tuple[str, ...]  # the distinct texts
    captions: tuple[tuple[int, ...], ...]  # of each image, the texts that it is paired with
    # Of each image, all texts that are right for it: those of its items, equal ones of other items, and those of its
    # near-duplicates.
    positives: tuple[tuple[int, ...], ...]
    classes: tuple[int, ...] = ()  # of each image, where epochs are balanced by class; else empty
    weights: NDArray[np.float64] | None = None  # (n,), of each image in the loss; None for equal weights

    @classmethod
    def from_pairs(
        cls,
        pairs: Sequence[Pair],
        image_of_pair: Ids,
        *,
        duplicate_groups: Ids | None = None,
        balance: str = "",
        weight: str = "",
    ) -> "PairDataset":
        """Return the dataset of those pairs whose image has a number in the image cache; -1 leaves a pair out.

        `duplicate_groups` are those of all images of the cache. `balance` names the attribute of the classes, or is
        "text" for classes of equal captions, and `weight` that of the weights; empty for none.

        Raises:
            TrainingError: no image has the attribute to balance by, or a weight is no number of at least 0.
        """
        images, compact = np.unique(image_of_pair[image_of_pair >= 0], return_inverse=True)
        image_of_pair = image_of_pair.copy()
        image_of_pair[image_of_pair >= 0] = compact
        captioned = [Pair(pair.id, pair.image, tuple(filter(str.strip, pair.captions))) for pair in pairs]
        collection = build_collection(captioned, image_of_pair, images=len(images))
        text_numbers = {text: number for number, text in enumerate(collection.texts)}
        captions: list[dict[int, None]] = [{} for _ in images]
        for pair, image in zip(captioned, image_of_pair.tolist(), strict=True):
            if image >= 0:
                captions[image].update(dict.fromkeys(text_numbers[text] for text in pair.captions))
        positives = collection.relevant_images().transpose()
        if duplicate_groups is not None and len(images):
            groups, group_of_image = np.unique(duplicate_groups[images], return_inverse=True)
            members = Relevance.from_pairs(
                np.arange(len(images)), group_of_image, queries=len(images), targets=len(groups)
            )
            positives = members.compose(members.transpose()).compose(positives)
        return cls(
            images=tuple(images.tolist()),
            texts=collection.texts,
            captions=tuple(map(tuple, captions)),
            positives=tuple(tuple(positives.ids[start:stop].tolist()) for start, stop in pairwise(positives.offsets)),
            classes=read_classes(pairs, image_of_pair, images=len(images), by=balance) if balance else (),
            weights=read_weights(pairs, image_of_pair, images=len(images), attribute=weight) if weight else None,
        )

    def digest(self, cache: ImageCache) -> str:
        """Return a hash of the images' bytes and the texts: equal where a sampler would draw the same batches."""
        content: list[object] = [self.texts, self.captions, [cache.content_hashes[image] for image in self.images]]
        content += [self.classes] if self.classes else []
        content += [] if self.weights is None else [self.weights.tolist()]
        return hashlib.blake2b(json.dumps(content).encode(), digest_size=16).hexdigest()


def read_classes(pairs: Sequence[Pair], image_of_pair: Ids, *, images: int, by: str) -> tuple[int, ...]:
    """Return the class of each image, numbered from 0; images without a value are one class of their own.

    Classes are `by` the values of an attribute, or by the first caption where it is "text". Of several pairs of one
    image the first that has a value counts; -1 is no image.

    Raises:
        TrainingError: no image has that attribute.
    """
    values: dict[int, str | None] = {}
    for pair, image in zip(pairs, image_of_pair.tolist(), strict=True):
        if image >= 0 and values.get(image) is None:
            own = pair.attributes.get(by)
            if by == CLASS_BY_TEXT:
                own = next(filter(str.strip, pair.captions), None)
            values[image] = None if own is None else caption_key(str(own))
    if not any(value is not None for value in values.values()):
        names = sorted({name for pair in pairs for name in pair.attributes})
        known = ", ".join(repr(name) for name in [*names[:_LISTED_NAMES], CLASS_BY_TEXT])
        raise TrainingError(f"No image has an attribute {by!r} to balance by. Take one of {known}.")
    numbers: dict[str | None, int] = {}
    return tuple(numbers.setdefault(values.get(image), len(numbers)) for image in range(images))


def read_weights(pairs: Sequence[Pair], image_of_pair: Ids, *, images: int, attribute: str) -> NDArray[np.float64]:
    """Return the weight of each image, (n,): the mean of its pairs' values of the attribute; -1 is no image.

    Raises:
        TrainingError: a value is missing or no number of at least 0, or all are 0.
    """
    sums, counts = np.zeros(images), np.zeros(images)
    for pair, image in zip(pairs, image_of_pair.tolist(), strict=True):
        if image >= 0:
            value = pair.attributes.get(attribute)
            try:
                weight = float(value) if isinstance(value, str | int | float) else math.nan
            except ValueError:
                weight = math.nan
            if not (math.isfinite(weight) and weight >= 0):
                raise TrainingError(
                    f"The weight_attribute {attribute!r} of {pair.id} is {value!r}. Give every pair a number of at"
                    " least 0."
                )
            sums[image] += weight
            counts[image] += 1
    if images and not sums.any():
        raise TrainingError(f"The weight_attribute {attribute!r} is 0 for every pair. Give some a larger one.")
    return np.asarray(sums / counts)


def hold_out_pairs(pairs: Sequence[Pair], cache: ImageCache, *, fraction: float, seed: int) -> NDArray[np.bool_]:
    """Return which pairs (p,) to hold out for validation: about this fraction of the images, at most `MAX_HELD_OUT`.

    Pairs that share an item or an image, or have near-duplicate images, directly or through others, stay together. The
    choice depends on the images' bytes, not on their order or number: when pairs come and go, nearly all stay on their
    side, and a model fine-tuned from an earlier run is not evaluated on what that run learned from. Nothing is held out
    where that would be fewer than `MIN_HELD_OUT` images: too few to tell one model from another.
    """
    images = np.arange(len(cache.sources))
    items = build_collection(pairs, cache.image_of_pair, images=len(images)).item_images
    first_of_item = items.ids[items.offsets[:-1]][items.query_of_pair()]
    groups = connect_pairs(
        len(images), np.concatenate([items.ids, images]), np.concatenate([first_of_item, cache.duplicate_groups])
    )
    wanted = min(round(fraction * len(groups)), MAX_HELD_OUT)
    names, sizes = np.unique(groups, return_counts=True)
    keys = dict.fromkeys(names.tolist(), "~")  # sorts after every hash
    for group, content_hash in zip(groups.tolist(), cache.content_hashes, strict=True):
        # As good as random, but the same each time for the same bytes.
        key = hashlib.blake2b(f"{seed} {content_hash}".encode(), digest_size=16).hexdigest()
        keys[group] = min(keys[group], key)
    held, room = [], wanted
    for place in sorted(range(len(names)), key=lambda place: keys[int(names[place])]):
        if sizes[place] <= room:
            held.append(names[place])
            room -= sizes[place]
    if wanted - room < MIN_HELD_OUT:
        return np.zeros(len(pairs), np.bool_)
    return (cache.image_of_pair >= 0) & np.isin(groups[cache.image_of_pair], held)
