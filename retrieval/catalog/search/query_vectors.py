"""The parts of many requests as vectors: all their texts in one forward pass, all their pictures in another."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from index.errors import IndexingError
from index.vectors import Rows
from retrieval.catalog.encoder import CatalogEncoder
from retrieval.catalog.search.request import Request
from retrieval.errors import RetrievalError
from retrieval.query import Kind, Part, opened_picture, vector_row

if TYPE_CHECKING:
    from PIL.Image import Image

Encoded: TypeAlias = dict[Kind, Rows]
Failure: TypeAlias = RetrievalError | IndexingError
FAILURES: Final = (RetrievalError, IndexingError)


def encoded(encoder: CatalogEncoder, requests: Sequence[Request], *, dimension: int | None) -> list[Encoded | Failure]:
    """Return each request's parts as rows, (1, d) each, but for items, whose vectors are there; or why it cannot be.

    Where there are no vectors yet (`dimension` is None), nothing is there to find and no encoder is asked.
    """
    parts = [_parts(request) for request in requests]
    rows = _vectors(parts, dimension)
    if dimension is not None:
        rows |= _texts(encoder, parts) | _pictures(encoder, parts)
    return [_gathered(request, rows) for request in parts]


def _parts(request: Request) -> tuple[Part, ...]:
    return () if request.query is None or request.mode == "words" else request.query.parts


def _of_kind(parts: Sequence[Sequence[Part]], *kinds: Kind) -> list[Part]:
    return [part for request in parts for part in request if part.kind in kinds]


def _gathered(request: Sequence[Part], rows: Mapping[int, Rows | Failure]) -> Encoded | Failure:
    own: Encoded = {}
    for part in request:
        row = rows.get(id(part))
        if isinstance(row, FAILURES):
            return row
        if row is not None:
            own[part.kind] = row
    return own


# Each of these returns rows, or failures, by the identity of the part.


def _texts(encoder: CatalogEncoder, parts: Sequence[Sequence[Part]]) -> dict[int, Rows | Failure]:
    asked = _of_kind(parts, "text", "minus")
    if not asked:
        return {}
    different = list(dict.fromkeys(part.value for part in asked))
    try:
        rows = encoder.load("text").encode_texts(different)
    except FAILURES as error:
        return {id(part): error for part in asked}
    places = {text: place for place, text in enumerate(different)}
    return {id(part): rows[places[part.value] :][:1] for part in asked}


def _pictures(encoder: CatalogEncoder, parts: Sequence[Sequence[Part]]) -> dict[int, Rows | Failure]:
    asked = _of_kind(parts, "image")
    if not asked:
        return {}
    answers: dict[int, Rows | Failure] = {}
    opened: dict[int, Image] = {}
    try:
        loaded = encoder.load("image")
        for part in asked:
            try:
                opened[id(part)] = opened_picture(part.value, size=loaded.image_size)
            except RetrievalError as error:
                answers[id(part)] = error
        rows = loaded.encode_images(list(opened.values())) if opened else np.empty((0, 0), np.float32)
    except FAILURES as error:
        return {id(part): error for part in asked}
    return answers | {part: rows[place : place + 1] for place, part in enumerate(opened)}


def _vectors(parts: Sequence[Sequence[Part]], dimension: int | None) -> dict[int, Rows | Failure]:
    answers: dict[int, Rows | Failure] = {}
    for part in _of_kind(parts, "vector"):
        try:
            answers[id(part)] = vector_row(part.value, dimension=dimension)
        except RetrievalError as error:
            answers[id(part)] = error
    return answers
