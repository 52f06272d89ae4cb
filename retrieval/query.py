"""A query: texts, images, items or vectors, each with a weight, that together make one vector to search with."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike
from PIL.Image import Image

from index.errors import VectorError
from index.vectors import Rows, unit_rows
from retrieval.errors import ImageError, QueryError
from retrieval.images import convert_image, open_image
from retrieval.images.sources import ImageSource

Kind: TypeAlias = Literal["text", "image", "like", "minus", "vector"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Picture: TypeAlias = Path | str | bytes | ImageSource | Image

# A mix shorter than this has no direction to speak of: its parts cancel each other.
_SHORTEST = 1e-4


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a query.

    Attributes:
        kind: "text" and "minus" are words, "image" a picture, "like" an item's id, "vector" a row of numbers.
        weight: How much it counts beside the other parts; positive, also that of "minus", which is subtracted.
    """

    kind: Kind
    value: Any
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Query:
    """Parts that make one query; at least one of them says what to look for."""

    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        if not any(part.kind != "minus" for part in self.parts):
            raise QueryError(
                "There is nothing to search for: give a text, an image, an item or a vector; or a filter, to browse."
            )

    @property
    def like(self) -> str | None:
        """The item whose likes are asked for; it is not its own answer."""
        return next((part.value for part in self.parts if part.kind == "like"), None)

    @property
    def is_image_alone(self) -> bool:
        """Whether a picture, and nothing else, is asked with."""
        return [part.kind for part in self.parts] == ["image"]


def make_query(
    *,
    text: str | None = None,
    image: Picture | None = None,
    like: str | None = None,
    minus: str | None = None,
    vector: ArrayLike | None = None,
    weights: Mapping[str, float] | None = None,
) -> Query:
    """Return the query of these parts; a part without a weight weighs 1.

    Raises:
        QueryError: nothing to search for, an empty text, a weight that is not positive or of a part that is not there.
    """
    given: dict[Kind, Any] = {"text": text, "image": image, "like": like, "minus": minus, "vector": vector}
    there = {kind: value for kind, value in given.items() if value is not None}
    for kind, value in there.items():
        if kind in {"text", "minus"} and not (isinstance(value, str) and value.strip()):
            raise QueryError(f"The {kind} of a query is words, not {value!r}.")
    weighed = _weights(weights or {}, there)
    return Query(tuple(Part(kind, there[kind], weighed.get(kind, 1.0)) for kind in KINDS if kind in there))


def mix(query: Query, rows: Mapping[Kind, Rows]) -> Rows:
    """Return the query's vector, (1, d): the weighted sum of its parts' unit rows, (1, d) each, made a unit row again.

    Raises:
        QueryError: the parts cancel each other.
    """
    if len(query.parts) == 1:
        return rows[query.parts[0].kind]
    total = np.sum([part.weight * _sign(part) * rows[part.kind].astype(np.float64) for part in query.parts], axis=0)
    if np.linalg.norm(total) < _SHORTEST * sum(part.weight for part in query.parts):
        raise QueryError("The parts of the query cancel each other: change a weight or leave a part out.")
    return unit_rows(total)


def vector_row(vector: ArrayLike, *, dimension: int | None) -> Rows:
    """Return a vector that was handed in as a unit row, (1, d); it may come as (d,) or (1, d).

    Raises:
        QueryError: another dimension, or not one vector of finite numbers.
    """
    try:
        given = np.asarray(vector)
        row = unit_rows(given[None] if given.ndim == 1 else given, dimension=dimension)
    except (VectorError, ValueError) as error:
        raise QueryError(f"The query's vector: {error}") from error
    if len(row) != 1:
        raise QueryError(f"A query has one vector, not {len(row)}: search with them one by one.")
    return row


def opened_picture(picture: Picture, *, size: int) -> Image:
    """Return a query's picture upright and RGB, no smaller than `size` needs; it is not checked before.

    Raises:
        ImageError: it cannot be read.
    """
    if isinstance(picture, str):
        picture = Path(picture)
    try:
        if isinstance(picture, bytes | Path | ImageSource):
            return open_image(picture, size=size)
        return convert_image(picture, size=size)
    except ImageError as error:
        raise ImageError(f"The query's picture {_named(picture)}: {error}") from error


def _named(picture: Picture) -> str:
    return "" if isinstance(picture, bytes) else str(getattr(picture, "name", picture))


def mean_row(rows: Rows) -> Rows:
    """Return the direction between the rows (n, d), as (1, d): what an item of several pictures looks like."""
    return unit_rows(rows.astype(np.float64).mean(axis=0, keepdims=True))


def _sign(part: Part) -> float:
    return -1.0 if part.kind == "minus" else 1.0


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _weights(weights: Mapping[str, float], there: Mapping[Kind, Any]) -> dict[str, float]:
    for kind, weight in weights.items():
        if kind not in there:
            raise QueryError(
                f"There is a weight of {kind!r}, which the query does not have; it has {', '.join(there) or 'no part'}."
            )
        if not _is_number(weight) or not 0 < weight < math.inf:
            raise QueryError(f"The weight of {kind} is a positive number, not {weight!r}.")
    return {kind: float(weight) for kind, weight in weights.items()}
