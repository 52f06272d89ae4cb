"""HardNegatives negatives: for each picture the wrong texts that come nearest to it, and batches in which those meet.

Mined before every epoch with the model as it is, by the exact search of `index`. What is right for a picture is never
taken, and neither is what comes as near to it as its own text: that is more likely right than wrong (de Souza Moreira
et al. 2024, "NV-Retriever", arXiv 2407.15831, section 4: positive-aware mining).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from index.exact import exact_search, score_pairs

if TYPE_CHECKING:
    from index.vectors import Rows
    from retrieval.train.data.dataset import PairDataset

Ids = NDArray[np.int64]

KEPT: Final = 8  # hard ones of each picture
CAP: Final = 0.95  # of its own text's score: what a wrong one must stay below
_DEPTH: Final = 128  # texts looked at for them


@dataclass(frozen=True, slots=True, eq=False)
class HardNegatives:
    """The hard negatives of each of n pictures: other pictures with one of their captions, the hardest first.

    Attributes:
        pictures: (n, `KEPT`), -1 where there are fewer.
        captions: (n, `KEPT`) which of that picture's own captions.
    """

    images: Ids
    captions: Ids


def mine_hard_negatives(pictures: "Rows", texts: "Rows", dataset: "PairDataset") -> HardNegatives:
    """The hard negatives of each picture.

    Args:
        pictures: (n, d), by the dataset' places.
        texts: (t, d), by the dataset' numbers.
        dataset: which texts are right for which pictures.
    """
    found = exact_search(pictures, texts, min(_DEPTH, len(texts)))
    own = _own_scores(pictures, texts, dataset.captions)
    caps = own - (1 - CAP) * np.abs(own)
    owners = _owners(dataset.captions, len(texts))
    hard = HardNegatives(*(np.full((len(pictures), KEPT), -1) for _ in range(2)))
    for place, (ids, scores) in enumerate(zip(found.ids, found.scores, strict=True)):
        right = set(dataset.positives[place])
        wrong = [text for text in ids[scores < caps[place]].tolist() if owners[text] and text not in right]
        for rank, text in enumerate(wrong[:KEPT]):
            # Of several with that text another one each time, so that all of them get their turn.
            hard.images[place, rank], hard.captions[place, rank] = owners[text][place % len(owners[text])]
    return hard


def _own_scores(pictures: "Rows", texts: "Rows", captions: Sequence[Sequence[int]]) -> NDArray[np.float64]:
    """The score (n,) of each picture's nearest own text."""
    counts = [len(own) for own in captions]
    places = np.repeat(np.arange(len(captions)), counts)
    scores = score_pairs(pictures, texts, query=places, row=np.concatenate([np.asarray(own) for own in captions]))
    return np.maximum.reduceat(scores, np.concatenate([[0], np.cumsum(counts)[:-1]])).astype(np.float64)


def _owners(captions: Sequence[Sequence[int]], texts: int) -> list[list[tuple[int, int]]]:
    """For each text the pictures that it is beside, with its place among their captions."""
    owners: list[list[tuple[int, int]]] = [[] for _ in range(texts)]
    for place, own in enumerate(captions):
        for caption, text in enumerate(own):
            owners[text].append((place, caption))
    return owners


def arrange_epoch(
    order: Ids, captions: Ids, *, hard: HardNegatives, sizes: Sequence[int], share: float
) -> tuple[Ids, Ids]:
    """An epoch's order (n,) and captions (n,) anew, such that about `share` of each batch is hard for the rest of it.

    Each picture is still shown once. Toward the end of an epoch fewer hard ones are left.

    Args:
        order: (n,) pictures, as they would be shown without.
        captions: (n,) by picture, which one is drawn.
        hard: what was mined.
        sizes: of the batches, n in all.
        share: in [0, 1).
    """
    captions, left = captions.copy(), np.ones(len(order), np.bool_)
    coming = iter(order.tolist())
    shown: list[int] = []
    for size in sizes:
        batch = _next(coming, left, count=size - round(share * size))
        for picture, caption in _hardest(batch, hard):
            if len(batch) == size:
                break
            if left[picture]:
                left[picture], captions[picture] = False, caption
                batch.append(picture)
        shown += batch + _next(coming, left, count=size - len(batch))
    return np.array(shown, np.int64), captions


def _hardest(anchors: Sequence[int], hard: HardNegatives) -> Iterator[tuple[int, int]]:
    """The hardest of each anchor, then the second of each, and so on."""
    rows = np.array(anchors, np.int64)
    pictures, captions = (table[rows].T.reshape(-1) for table in (hard.images, hard.captions))
    known = pictures >= 0
    return zip(pictures[known].tolist(), captions[known].tolist(), strict=True)


def _next(coming: Iterator[int], left: NDArray[np.bool_], *, count: int) -> list[int]:
    """The next pictures that have not been shown."""
    found: list[int] = []
    while len(found) < count:
        picture = next(coming)
        if left[picture]:
            left[picture] = False
            found.append(picture)
    return found
