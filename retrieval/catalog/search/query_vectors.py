"""The parts of many requests as vectors: all their texts in one forward pass, all their pictures in another."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from index.errors import IndexingError
from index.vectors import Rows
from retrieval.catalog.encoder import CatalogEncoder
from retrieval.catalog.search.request import SearchRequest
from retrieval.errors import RetrievalError
from retrieval.query import Part, PartKind, open_query_image, vector_row

if TYPE_CHECKING:
    from PIL.Image import Image

QueryVectors: TypeAlias = dict[PartKind, Rows]
Failure: TypeAlias = RetrievalError | IndexingError
FAILURES: Final = (RetrievalError, IndexingError)

_Encoded: TypeAlias = dict[int, Rows | Failure]  # by the identity of the part


def encode_queries(
    encoder: CatalogEncoder, requests: Sequence[SearchRequest], *, dimension: int | None
) -> list[QueryVectors | Failure]:
    """Return the parts of each request as rows, (1, d) each, without those of items, or the error that prevents it.

    Without vectors in the catalog (`dimension` is None) there is nothing to find, and the encoder is not loaded.
    """
    parts = [() if request.query is None or request.mode == "words" else request.query.parts for request in requests]
    every = [part for query in parts for part in query]
    rows = _parse_vectors([part for part in every if part.kind == "vector"], dimension)
    if dimension is not None:
        rows |= _encode_texts(encoder, [part for part in every if part.kind in {"text", "minus"}])
        rows |= _encode_images(encoder, [part for part in every if part.kind == "image"])
    return [_collect(query, rows) for query in parts]


def _collect(parts: Sequence[Part], rows: _Encoded) -> QueryVectors | Failure:
    vectors: QueryVectors = {}
    for part in parts:
        row = rows.get(id(part))
        if isinstance(row, FAILURES):
            return row
        if row is not None:
            vectors[part.kind] = row
    return vectors


def _encode_texts(encoder: CatalogEncoder, parts: Sequence[Part]) -> _Encoded:
    if not parts:
        return {}
    texts = list(dict.fromkeys(part.value for part in parts))
    try:
        rows = encoder.load("text").encode_texts(texts)
    except FAILURES as error:
        return {id(part): error for part in parts}
    by_text = {text: rows[place : place + 1] for place, text in enumerate(texts)}
    return {id(part): by_text[part.value] for part in parts}


def _encode_images(encoder: CatalogEncoder, parts: Sequence[Part]) -> _Encoded:
    if not parts:
        return {}
    encoded: _Encoded = {}
    images: dict[int, Image] = {}
    try:
        loaded = encoder.load("image")
        for part in parts:
            try:
                images[id(part)] = open_query_image(part.value, size=loaded.image_size)
            except RetrievalError as error:
                encoded[id(part)] = error
        rows = loaded.encode_images(list(images.values())) if images else np.empty((0, 0), np.float32)
    except FAILURES as error:
        return {id(part): error for part in parts}
    return encoded | {part: rows[place : place + 1] for place, part in enumerate(images)}


def _parse_vectors(parts: Sequence[Part], dimension: int | None) -> _Encoded:
    encoded: _Encoded = {}
    for part in parts:
        try:
            encoded[id(part)] = vector_row(part.value, dimension=dimension)
        except RetrievalError as error:
            encoded[id(part)] = error
    return encoded
