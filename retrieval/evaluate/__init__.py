"""Measure an encoder on image-text pairs: embed each picture and each text once, rank both ways, report.

What is counted is decided in `retrieval.evaluate.collection`: which captions are right for which images, and who is
asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from retrieval.errors import EvaluationError
from retrieval.evaluate.collection import Collection, build_collection
from retrieval.evaluate.embedding import Meter, Pictures, embed_pictures, embed_texts
from retrieval.evaluate.report import Direction, Report, bootstrap
from retrieval.evaluate.served import measure_index_recall
from retrieval.metrics import rank, take_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from retrieval.encoder import Encoder
    from retrieval.evaluate.served import Gap, Served
    from retrieval.metrics import Relevance, Rows
    from retrieval.pairs import Pair, Pairs, Skipped


def evaluate(
    encoder: Encoder,
    pairs: Pairs,
    *,
    resamples: int = 1000,
    seed: int = 0,
    served: Served | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Recall@K, median rank, MRR, mAP@R and RSUM of `encoder` on `pairs`, text to image and image to text.

    Args:
        encoder: what turns pictures and texts into rows of one space.
        pairs: what belongs together. Pictures that cannot be read are left out, with their captions, and listed.
        resamples: samples of the items that the intervals come from; 0 for no intervals.
        seed: of these samples.
        served: the indexes of a catalog, to measure what they lose against exact search.
        progress: called with (done, total), pictures and texts together.

    Raises:
        EvaluationError: no readable picture has a caption, or the encoder's vectors are not finite.
    """
    if resamples < 0:
        raise EvaluationError(f"{resamples} resamples cannot be drawn: ask for 1000, or for 0 to have no intervals.")
    meter = Meter(progress, total=_count_inputs(pairs.pairs))
    pictures = embed_pictures(encoder, [pair.image for pair in pairs.pairs], meter)
    skipped = (*pairs.skipped, *pictures.skipped)
    collection = build_collection(pairs.pairs, pictures.numbers, images=len(pictures.rows))
    if not collection.texts:
        raise EvaluationError(_nothing_to_measure(pairs, skipped))
    right = collection.relevant_images()
    text_rows = embed_texts(encoder, collection.texts, meter)
    text_to_image = _direction(text_rows, pictures.rows, right, asked=collection.item_texts)
    image_to_text = _direction(pictures.rows, text_rows, right.transpose(), asked=collection.item_images)
    return Report(
        encoder=encoder.name,
        source=str(pairs.source),
        items=collection.items,
        text_to_image=text_to_image,
        image_to_text=image_to_text,
        skipped=skipped,
        resamples=resamples,
        intervals=bootstrap(text_to_image, image_to_text, items=collection.items, resamples=resamples, seed=seed),
        gaps={} if served is None else _gaps(served, collection, pictures, right=right, text_rows=text_rows),
    )


def _direction(queries: Rows, targets: Rows, right: Relevance, *, asked: Relevance) -> Direction:
    """Rank each distinct query once, and count it once for each item that `asked` gives it to."""
    answered = right.answers > 0
    chosen = np.flatnonzero(answered)
    ranks = rank(take_rows(queries, chosen), targets, right.take(chosen))
    place = np.cumsum(answered) - 1
    kept = answered[asked.ids]
    return Direction(ranks.take(place[asked.ids[kept]]), asked.query_of_pair()[kept])


def _gaps(
    served: Served, collection: Collection, pictures: Pictures, *, right: Relevance, text_rows: Rows
) -> dict[str, Gap]:
    gaps = {
        "text_to_image": measure_index_recall(
            served.images, text_rows, right, contents=pictures.contents, asked=collection.item_texts.ids
        ),
        "image_to_text": measure_index_recall(
            served.captions,
            pictures.rows,
            right.transpose(),
            contents=collection.texts,
            asked=collection.item_images.ids,
        ),
    }
    return {way: gap for way, gap in gaps.items() if gap is not None}


def _nothing_to_measure(pairs: Pairs, skipped: Sequence[Skipped]) -> str:
    if skipped:
        first = skipped[0]
        return (
            f"{pairs.source} holds no caption of a picture that can be read, and {len(skipped)} skipped rows or files; "
            f"the first, {first.name}: {first.reason}."
        )
    return (
        f"None of the {len(pairs)} pictures of {pairs.source} has a caption, so there is nothing to ask: add captions."
    )


def _count_inputs(pairs: Sequence[Pair]) -> int:
    """Pictures and distinct texts, those of pictures that turn out bad included."""
    return len(pairs) + len({text for pair in pairs for text in pair.captions})
