"""The parts of many requests as vectors: all their texts in one forward pass, all their pictures in another."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeAlias, TypeVar

from index.errors import IndexingError
from index.vectors import Rows
from retrieval.catalog.encoder import CatalogEncoder
from retrieval.catalog.search.request import SearchRequest
from retrieval.errors import RetrievalError
from retrieval.query import Part, PartKind, open_query_image, parse_vector

Result = TypeVar("Result")
Key = TypeVar("Key")

QueryVectors: TypeAlias = dict[PartKind, Rows]
Failure: TypeAlias = RetrievalError | IndexingError
FAILURES: Final = (RetrievalError, IndexingError)

_Encoded: TypeAlias = dict[int, Rows | Failure]  # by the identity of the part


def attempt(function: Callable[..., Result], *arguments: Any, **options: Any) -> Result | Failure:
    """Return what the function returns, or the error that one request fails with and the others do not see."""
    try:
        return function(*arguments, **options)
    except FAILURES as error:
        return error


def encode_queries(
    encoder: CatalogEncoder, requests: Sequence[SearchRequest], *, dimension: int | None
) -> list[QueryVectors | Failure]:
    """Return the parts of each request as rows, (1, d) each, without those of items, or the error that prevents it.

    Without vectors in the catalog (`dimension` is None) there is nothing to find, and the encoder is not loaded.
    """
    queries = [() if request.query is None or request.mode == "words" else request.query.parts for request in requests]
    parts = [part for query in queries for part in query]
    texts = [part for part in parts if part.kind in {"text", "minus"}]
    images = [part for part in parts if part.kind == "image"]
    rows: _Encoded = {
        id(part): attempt(parse_vector, part.value, dimension=dimension) for part in parts if part.kind == "vector"
    }
    if dimension is not None and texts:
        rows |= _encode_texts(encoder, texts)
    if dimension is not None and images:
        rows |= _encode_images(encoder, images)
    return [_collect(query, rows) for query in queries]


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
    texts = list(dict.fromkeys(part.value for part in parts))
    rows = _split(texts, attempt(lambda: encoder.load("text").encode_texts(texts)))
    return {id(part): rows[part.value] for part in parts}


def _encode_images(encoder: CatalogEncoder, parts: Sequence[Part]) -> _Encoded:
    loaded = attempt(encoder.load, "image")
    if isinstance(loaded, FAILURES):
        return {id(part): loaded for part in parts}
    opened = {id(part): attempt(open_query_image, part.value, size=loaded.image_size) for part in parts}
    failed: _Encoded = {part: error for part, error in opened.items() if isinstance(error, FAILURES)}
    images = {part: image for part, image in opened.items() if not isinstance(image, FAILURES)}
    return failed | (_split(images, attempt(loaded.encode_images, list(images.values()))) if images else {})


def _split(keys: Iterable[Key], rows: Rows | Failure) -> dict[Key, Rows | Failure]:
    """Return the row of each key, (1, d), or the error that all of them have."""
    return {key: rows if isinstance(rows, FAILURES) else rows[place : place + 1] for place, key in enumerate(keys)}
