"""Hard negatives: for each image the nearest texts that are wrong for it, and epochs in which those meet in a batch.

They are mined before every epoch with the model as it is, by exact search. A text that is right for an image is never
taken, nor is one nearly as near to it as its own: that is more likely right than wrong (de Souza Moreira et al. 2024,
"NV-Retriever", arXiv 2407.15831, section 4: positive-aware mining).
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np

from index.exact import exact_search, score_pairs
from index.vectors import Ids, Rows

Numbers = Sequence[Sequence[int]]

NEGATIVES_PER_IMAGE: Final = 8
MAX_RELATIVE_SCORE: Final = 0.95  # of a negative, relative to the score of the image's own text
_CANDIDATES: Final = 128  # nearest texts to take the negatives from


@dataclass(frozen=True, slots=True, eq=False)
class HardNegatives:
    """The hard negatives of each of n images: other images with one of their captions, the hardest first."""

    images: Ids  # (n, `NEGATIVES_PER_IMAGE`), -1 where there are fewer
    captions: Ids  # likewise, which of that image's own captions


def mine_hard_negatives(images: Rows, texts: Rows, *, captions: Numbers, positives: Numbers) -> HardNegatives:
    """Return the hard negatives of n images among t texts, whose rows are (n, d) and (t, d).

    `captions` are the numbers of each image's own texts, `positives` those of all texts that are right for it.
    """
    found = exact_search(images, texts, min(_CANDIDATES, len(texts)))
    counts = [len(own) for own in captions]
    queries = np.repeat(np.arange(len(captions)), counts)
    scores = score_pairs(images, texts, query=queries, row=np.concatenate([np.asarray(own) for own in captions]))
    # (n,): the score of each image's nearest own text.
    own_scores = np.maximum.reduceat(scores, np.cumsum([0, *counts[:-1]])).astype(np.float64)
    limits = own_scores - (1 - MAX_RELATIVE_SCORE) * np.abs(own_scores)
    owners = defaultdict(list)  # of each text: the images that it is a caption of, with its place among theirs
    for image, own in enumerate(captions):
        for caption, text in enumerate(own):
            owners[text].append((image, caption))
    negatives = HardNegatives(*(np.full((len(images), NEGATIVES_PER_IMAGE), -1) for _ in range(2)))
    for image, right in enumerate(map(set, positives)):
        below = found.ids[image][found.scores[image] < limits[image]]
        wrong = [text for text in below.tolist() if text in owners and text not in right]
        for rank, text in enumerate(wrong[:NEGATIVES_PER_IMAGE]):
            # Of several images with that text each image takes another one, so that all of them are used.
            owner = owners[text][image % len(owners[text])]
            negatives.images[image, rank], negatives.captions[image, rank] = owner
    return negatives


def place_hard_negatives(
    order: Ids, captions: Ids, *, negatives: HardNegatives, sizes: Sequence[int], fraction: float
) -> tuple[Ids, Ids]:
    """Reorder an epoch so that about a `fraction` of each batch is hard for the rest of it.

    `order` (n,) are the images of the epoch, `captions` (n,) which caption of each image is drawn, and `sizes` those of
    the batches. Each image is still shown once. Toward the end of an epoch fewer hard ones are left.

    Returns:
        The new order and the new captions.
    """
    captions, unused = captions.copy(), np.ones(len(order), np.bool_)
    queue = (image for image in order.tolist() if unused[image])
    epoch: list[int] = []
    for size in sizes:
        batch = list(islice(queue, size - round(fraction * size)))
        rows = np.array(batch, np.int64)
        unused[rows] = False
        # The hardest negative of each anchor, then the second of each, and so on.
        hardest = (table[rows].T.reshape(-1).tolist() for table in (negatives.images, negatives.captions))
        for image, caption in zip(*hardest, strict=True):
            if len(batch) == size:
                break
            if image >= 0 and unused[image]:
                unused[image], captions[image] = False, caption
                batch.append(image)
        for image in islice(queue, size - len(batch)):
            unused[image] = False
            batch.append(image)
        epoch += batch
    return np.array(epoch, np.int64), captions
