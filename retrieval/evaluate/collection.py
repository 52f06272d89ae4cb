"""The queries and relevant answers of a set of pairs.

* Equal files are one image; equal captions are one text.
* All captions of an item are relevant to all of its images. A caption that equals one of another item, ignoring case
  and spacing, is relevant to that item's images too.
* Each caption of an item is a query among all images, and each captioned image of an item a query among all texts: a
  text that three items share counts three times. An image without a caption is ranked, but is no query.
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

MAX_RELEVANT_PAIRS = 20_000_000  # of a text and an image, 160 MB in each of a few arrays


@dataclass(frozen=True, slots=True)
class Collection:
    """Numbered items with their images and texts."""

    texts: tuple[str, ...]  # the distinct captions of readable pictures, in order
    item_images: Relevance  # the images of each item
    item_texts: Relevance  # the texts of each item

    @property
    def items(self) -> int:
        """Number of items."""
        return self.item_images.queries

    def relevant_images(self) -> Relevance:
        """Return the images that are relevant to each text.

        Raises:
            EvaluationError: They are so many that items must share ids by mistake.
        """
        pairs = int(self.item_texts.answers @ self.item_images.answers)
        if pairs > MAX_RELEVANT_PAIRS:
            most = int(self.item_images.answers.max())
            raise EvaluationError(
                f"There are {pairs:,} pairs of a text and a relevant image; one item has {most:,} images. "
                "Rows that share an id are one item: give each item an id of its own."
            )
        keys: dict[str, int] = {}
        key_of_text = [keys.setdefault(caption_key(text), len(keys)) for text in self.texts]
        text_keys = Relevance.from_pairs(
            np.arange(len(key_of_text)), key_of_text, queries=len(self.texts), targets=len(keys)
        )
        key_items = self.item_texts.compose(text_keys).transpose()
        return text_keys.compose(key_items).compose(self.item_images)


def caption_key(text: str) -> str:
    """Return the form in which captions are compared: without case and spacing."""
    return " ".join(text.casefold().split())


def build_collection(pairs: Sequence[Pair], image_of_pair: Ids, *, images: int) -> Collection:
    """Number the items and texts of the pairs with a readable image (-1 for an unreadable one)."""
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
