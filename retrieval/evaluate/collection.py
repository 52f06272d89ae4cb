"""Which texts and images of a set of pairs belong together, in numbers: who is asked, and what is right.

* A picture is its bytes: equal files are one image. A text is its characters: equal captions are one text.
* All captions of an item belong to all of its images. A caption that equals one of another item, but for case and
  spacing, is right for that item's images too.
* Each caption of an item is a query among all images, and each captioned image of an item a query among all texts: a
  text that three items share is asked three times, once for each. An image without a caption is ranked, never asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from retrieval.errors import EvaluationError
from retrieval.metrics import Relevance

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from retrieval.metrics import Ids
    from retrieval.pairs import Pair

MAX_RELEVANT_PAIRS = 20_000_000  # pairs of a text and a right image, 160 MB in each of a few arrays


@dataclass(frozen=True, slots=True)
class Collection:
    """Items, images and texts as numbers.

    Attributes:
        texts: the distinct captions of readable pictures, in their order.
        item_images: the images of each item.
        item_texts: the texts of each item.
    """

    texts: tuple[str, ...]
    item_images: Relevance
    item_texts: Relevance

    @property
    def items(self) -> int:
        """How many items there are."""
        return self.item_images.queries

    def relevant_images(self) -> Relevance:
        """The images that are right for each text.

        Raises:
            EvaluationError: so many that the ids cannot be those of single things.
        """
        right = int(self.item_texts.answers @ self.item_images.answers)
        if right > MAX_RELEVANT_PAIRS:
            most = int(self.item_images.answers.max())
            raise EvaluationError(
                f"{right:,} pairs of a text and a right image: one item has {most:,} images. "
                f"Give things ids of their own; rows that share an id are one item."
            )
        keys: dict[str, int] = {}
        key_of_text = [keys.setdefault(caption_key(text), len(keys)) for text in self.texts]
        text_keys = Relevance.from_pairs(
            np.arange(len(key_of_text)), key_of_text, queries=len(self.texts), targets=len(keys)
        )
        key_items = self.item_texts.compose(text_keys).transpose()
        return text_keys.compose(key_items).compose(self.item_images)


def caption_key(text: str) -> str:
    """What two captions have in common that count as equal: everything but case and spacing."""
    return " ".join(text.casefold().split())


def build_collection(pairs: Sequence[Pair], image_of_pair: Ids, *, images: int) -> Collection:
    """Number the items and texts of the pairs whose image could be read (-1: it could not)."""
    items: dict[str, int] = {}
    texts: dict[str, int] = {}
    item_images, item_texts = [], []
    for pair, image in zip(pairs, image_of_pair, strict=True):
        if image >= 0:
            item = items.setdefault(pair.id, len(items))
            item_images.append((item, image))
            item_texts += [(item, texts.setdefault(text, len(texts))) for text in pair.captions]
    return Collection(
        texts=tuple(texts),
        item_images=_relevance(item_images, queries=len(items), targets=images),
        item_texts=_relevance(item_texts, queries=len(items), targets=len(texts)),
    )


def _relevance(pairs: Iterable[tuple[int, int]], *, queries: int, targets: int) -> Relevance:
    query, target = np.array(list(pairs), np.int64).reshape(-1, 2).T  # (2, pairs)
    return Relevance.from_pairs(query, target, queries=queries, targets=targets)
