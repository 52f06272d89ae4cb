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

from retrieval.errors import RetrievalError, TrainingError
from retrieval.evaluate.collection import Collection, collect
from retrieval.pairs import Pair
from retrieval.train.batches import Batch, Schedule, positives, uniform

if TYPE_CHECKING:
    from retrieval.train.album import Album
    from retrieval.train.crops import Crops

Ids = NDArray[np.int64]

LEAST_HELD_OUT: Final = 20
MOST_HELD_OUT: Final = 2000
_SPLIT: Final = 3  # what a stream of random numbers is for; batches.py has the others
_KEPT_TEXTS: Final = 2**17  # texts that stay tokenised, 80 MB at the usual 77 tokens


def hold_out(pairs: Sequence[Pair], album: "Album", *, share: float, seed: int) -> NDArray[np.bool_]:
    """Which pairs (p,) are kept for validation: about this share of the pictures, `MOST_HELD_OUT` at most.

    Pairs that share an item or a picture, directly or through others, stay together. Nothing is held out where that
    would be fewer than `LEAST_HELD_OUT` pictures: too few to tell one model from another.
    """
    families = _families(collect(pairs, album.numbers, images=len(album.sources)))
    wanted = min(round(share * len(families)), MOST_HELD_OUT)
    names, sizes = np.unique(families, return_counts=True)
    held, room = [], wanted
    for place in np.argsort(uniform(seed, epoch=0, purpose=_SPLIT, count=len(names)), kind="stable"):
        if sizes[place] <= room:
            held.append(names[place])
            room -= sizes[place]
    if wanted - room < LEAST_HELD_OUT:
        return np.zeros(len(pairs), np.bool_)
    return (album.numbers >= 0) & np.isin(families[album.numbers], held)


def _families(collection: Collection) -> Ids:
    """For each picture (n,) the least picture that it is connected with through items."""
    least = np.arange(collection.item_images.targets)
    items = collection.item_images
    item_of_pair = items.query_of_pair()
    while True:
        of_item = np.full(items.queries, len(least))
        np.minimum.at(of_item, item_of_pair, least[items.ids])
        closer = least.copy()
        np.minimum.at(closer, items.ids, of_item[item_of_pair])
        if np.array_equal(closer, least):
            return least
        least = closer


@dataclass(frozen=True, slots=True)
class Lessons:
    """Pictures with texts, by number: what a schedule draws from.

    Attributes:
        pictures: the album's number of each picture.
        texts: the distinct texts.
        captions: of each picture, the texts beside it.
        right: of each picture, all texts that are right for it: those of its items, and equal ones of others.
    """

    pictures: tuple[int, ...]
    texts: tuple[str, ...]
    captions: tuple[tuple[int, ...], ...]
    right: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, pairs: Sequence[Pair], numbers: Ids) -> "Lessons":
        """The lessons in those pairs whose picture has a number in the album."""
        pictures, places = np.unique(numbers[numbers >= 0], return_inverse=True)
        place_of_pair = np.full(len(numbers), -1)
        place_of_pair[numbers >= 0] = places
        spoken = [_spoken(pair) for pair in pairs]
        collection = collect(spoken, place_of_pair, images=len(pictures))
        text_numbers = {text: number for number, text in enumerate(collection.texts)}
        captions: list[dict[int, None]] = [{} for _ in pictures]
        for pair, place in zip(spoken, place_of_pair.tolist(), strict=True):
            if place >= 0:
                captions[place].update(dict.fromkeys(text_numbers[text] for text in pair.captions))
        right = collection.right_images().swapped()
        bounds = zip(right.offsets[:-1], right.offsets[1:], strict=True)
        return cls(
            pictures=tuple(pictures.tolist()),
            texts=collection.texts,
            captions=tuple(map(tuple, captions)),
            right=tuple(tuple(right.ids[start:stop].tolist()) for start, stop in bounds),
        )

    def digest(self, album: "Album") -> str:
        """Hash of the pictures' bytes and the texts: equal where a schedule would draw the same."""
        told = [self.texts, self.captions, [album.contents[number] for number in self.pictures]]
        return hashlib.blake2b(json.dumps(told).encode(), digest_size=16).hexdigest()


def _spoken(pair: Pair) -> Pair:
    return Pair(pair.id, pair.image, tuple(caption for caption in pair.captions if caption.strip()))


@dataclass(frozen=True, slots=True)
class Exercise:
    """A batch that is ready for the model.

    Attributes:
        step: counted from 0.
        epoch: counted from 0.
        pictures: (b,) by their places in the lessons.
        texts: (b,) by their numbers there.
        pixels: (b, height, width, 3) bytes; empty where what the image tower makes of the pictures is known.
        tokens: (b, context length).
        positives: (b, b); [i, j] says that text j is right for picture i.
    """

    step: int
    epoch: int
    pictures: Ids
    texts: Ids
    pixels: NDArray[np.uint8]
    tokens: Ids
    positives: NDArray[np.bool_]


class Teacher:
    """Prepares the exercise of any step; called on several threads at once."""

    def __init__(
        self,
        lessons: Lessons,
        album: "Album",
        *,
        schedule: Schedule,
        crops: "Crops | None",
        tokenizer: Callable[..., Any],
    ) -> None:
        """Begin; without crops, no exercise shows its pictures."""
        self._lessons, self._album, self._schedule, self._crops = lessons, album, schedule, crops
        self._tokenizer, self._one_at_a_time = tokenizer, Lock()
        self.tokens = lru_cache(_KEPT_TEXTS)(self._tokenize)

    def exercise(self, step: int) -> Exercise:
        """The exercise of a step.

        Raises:
            TrainingError: a picture that could be read at first no longer can.
        """
        batch, lessons = self._schedule.batch(step), self._lessons
        texts = [
            lessons.captions[place][caption] for place, caption in zip(batch.pictures, batch.captions, strict=True)
        ]
        return Exercise(
            step=step,
            epoch=batch.epoch,
            pictures=batch.pictures,
            texts=np.array(texts),
            pixels=self._pixels(batch),
            tokens=np.stack([self.tokens(text) for text in texts]),
            positives=positives(texts, [lessons.right[place] for place in batch.pictures]),
        )

    def _pixels(self, batch: Batch) -> NDArray[np.uint8]:
        if self._crops is None:
            return np.empty((0, 0, 0, 3), np.uint8)
        chosen = zip(batch.pictures, batch.crops, strict=True)
        return np.stack([self._cut(self._lessons.pictures[place], chance, self._crops) for place, chance in chosen])

    def _cut(self, number: int, chance: NDArray[np.float64], crops: "Crops") -> NDArray[np.uint8]:
        try:
            return self._album.cut(number, crops, chance)
        except RetrievalError as error:
            name = self._album.sources[number].name
            raise TrainingError(f"{name} could be read at first, but now {error}; put it back and resume") from error

    def _tokenize(self, text: int) -> Ids:
        """Tokens of one text; Hugging Face's tokenizers must not run on two threads at once."""
        with self._one_at_a_time:
            return np.asarray(self._tokenizer([self._lessons.texts[text]])[0])
