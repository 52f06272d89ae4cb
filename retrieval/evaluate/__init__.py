"""Measure an encoder on image-text pairs: embed each picture and each text once, rank in both directions, report.

`retrieval.evaluate.collection` defines the queries and their relevant answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from retrieval.errors import EvaluationError
from retrieval.evaluate.collection import build_collection
from retrieval.evaluate.embedding import embed_distinct_images, embed_texts
from retrieval.evaluate.index_recall import measure_index_recall
from retrieval.evaluate.measures import Direction, bootstrap
from retrieval.evaluate.report import Report
from retrieval.metrics import rank
from retrieval.pairs import Skipped

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from retrieval.encoder import Encoder
    from retrieval.evaluate.index_recall import CatalogIndexes
    from retrieval.metrics import Relevance, Rows
    from retrieval.pairs import Pairs


def evaluate(
    encoder: Encoder,
    pairs: Pairs,
    *,
    resamples: int = 1000,
    seed: int = 0,
    indexes: CatalogIndexes | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Measure recall@K, median rank, MRR, mAP@R and RSUM of `encoder` on `pairs`, text to image and image to text.

    Args:
        encoder: Embeds pictures and texts in one space.
        pairs: The pictures and their captions. Unreadable pictures are excluded with their captions, and listed.
        resamples: Bootstrap samples of the items for the intervals; 0 for no intervals.
        seed: Seed of the bootstrap samples.
        indexes: The indexes of a catalog, to measure their loss against exact search.
        progress: Called with (done, total), pictures and texts together.

    Raises:
        EvaluationError: No readable picture has a caption, or the encoder's vectors are not finite.
    """
    if resamples < 0:
        raise EvaluationError(f"{resamples} resamples cannot be drawn. Ask for 1000, or for 0 to have no intervals.")
    files = {(pair.image.path, pair.image.member) for pair in pairs.pairs}
    done, total = 0, len(files) + len({text for pair in pairs.pairs for text in pair.captions})

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total)

    images, image_rows = embed_distinct_images(encoder, [pair.image for pair in pairs.pairs], advance)
    skipped = (*pairs.skipped, *(Skipped(source.name, reason) for source, reason in images.failures))
    collection = build_collection(pairs.pairs, images.numbers, images=len(image_rows))
    if not collection.texts:
        raise EvaluationError(_explain_no_captions(pairs, skipped))
    relevance = collection.relevant_images()
    text_rows = embed_texts(encoder, collection.texts, advance)
    text_to_image = _rank_direction(text_rows, image_rows, relevance, asked=collection.item_texts)
    image_to_text = _rank_direction(image_rows, text_rows, relevance.transpose(), asked=collection.item_images)
    index_recalls = {}
    if indexes is not None:
        index_recalls = {
            "text_to_image": measure_index_recall(
                indexes.images, text_rows, relevance, contents=images.contents, asked=collection.item_texts.ids
            ),
            "image_to_text": measure_index_recall(
                indexes.captions,
                image_rows,
                relevance.transpose(),
                contents=collection.texts,
                asked=collection.item_images.ids,
            ),
        }
    return Report(
        encoder=encoder.name,
        source=str(pairs.source),
        items=collection.items,
        text_to_image=text_to_image,
        image_to_text=image_to_text,
        skipped=skipped,
        resamples=resamples,
        intervals=bootstrap(text_to_image, image_to_text, items=collection.items, resamples=resamples, seed=seed),
        index_recalls={way: recall for way, recall in index_recalls.items() if recall is not None},
    )


def _rank_direction(queries: Rows, targets: Rows, relevance: Relevance, *, asked: Relevance) -> Direction:
    """Rank each distinct query once, and count it once for each item that `asked` assigns it to."""
    has_answer = relevance.answers > 0
    ranked = np.flatnonzero(has_answer)
    ranks = rank(queries if has_answer.all() else queries[ranked], targets, relevance.take(ranked))
    counted = has_answer[asked.ids]
    rank_of_query = np.cumsum(has_answer) - 1
    return Direction(ranks.take(rank_of_query[asked.ids[counted]]), asked.query_of_pair()[counted])


def _explain_no_captions(pairs: Pairs, skipped: Sequence[Skipped]) -> str:
    if skipped:
        first = skipped[0]
        return (
            f"{pairs.source} contains no readable picture with a caption, and {len(skipped)} skipped rows or files. "
            f"The first is {first.name}: {first.reason}."
        )
    return f"None of the {len(pairs)} pictures of {pairs.source} has a caption. Add captions to have queries."
