"""A query: texts, images, items or vectors, each with a weight, that together make one vector to search with."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike

from index.errors import VectorError
from index.vectors import Rows, unit_rows
from retrieval.errors import ImageError, QueryError
from retrieval.images.sources import ImageSource

if TYPE_CHECKING:
    from PIL.Image import Image

PartKind: TypeAlias = Literal["text", "image", "like", "minus", "vector"]
PART_KINDS: tuple[PartKind, ...] = get_args(PartKind)
if TYPE_CHECKING:
    ImageInput: TypeAlias = Path | str | bytes | ImageSource | Image
else:
    ImageInput = Path | str | bytes | ImageSource  # or Pillow's class, which is not loaded for a name

# A mix shorter than this has no direction to speak of: its parts cancel each other.
_MIN_LENGTH = 1e-4


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a query."""

    kind: PartKind  # "text" and "minus" are words, "image" a picture, "like" an item's id, "vector" a row of numbers
    value: Any
    # how much it counts beside the other parts; positive, also that of "minus", which is subtracted
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
        """Id of the item to search with; it is not among its own hits."""
        return next((part.value for part in self.parts if part.kind == "like"), None)


def make_query(parts: Mapping[PartKind, Any], weights: Mapping[str, float] | None = None) -> Query:
    """Return the query of these parts; a part without a weight weighs 1.

    Raises:
        QueryError: nothing to search for, an empty text, a weight that is not positive or of a part that is missing.
    """
    for kind in ("text", "minus"):
        if kind in parts and not (isinstance(parts[kind], str) and parts[kind].strip()):
            raise QueryError(f"The {kind} of a query must be words, not {parts[kind]!r}.")
    for name in weights or {}:
        if name not in parts:
            raise QueryError(
                f"There is a weight of {name!r}, which the query does not have; it has {', '.join(parts) or 'no part'}."
            )
    checked = {name: check_weight(name, weight) for name, weight in (weights or {}).items()}
    return Query(tuple(Part(kind, parts[kind], checked.get(kind, 1.0)) for kind in PART_KINDS if kind in parts))


def check_weight(part: str, weight: Any) -> float:
    """Return the weight of a part.

    Raises:
        QueryError: it is not a positive number.
    """
    if isinstance(weight, bool) or not isinstance(weight, Real) or not 0 < float(weight) < math.inf:
        raise QueryError(f"The weight of {part} must be a positive number, not {weight!r}.")
    return float(weight)


def mix(query: Query, rows: Mapping[PartKind, Rows]) -> Rows:
    """Return the query's vector, (1, d): the normalized weighted sum of its parts' unit rows, (1, d) each.

    Raises:
        QueryError: the parts cancel each other.
    """
    if len(query.parts) == 1:
        return rows[query.parts[0].kind]
    signed = [-part.weight if part.kind == "minus" else part.weight for part in query.parts]
    parts = zip(query.parts, signed, strict=True)
    total = np.sum([weight * rows[part.kind].astype(np.float64) for part, weight in parts], axis=0)
    if np.linalg.norm(total) < _MIN_LENGTH * sum(part.weight for part in query.parts):
        raise QueryError("The parts of the query cancel each other: change a weight or leave a part out.")
    return unit_rows(total)


def parse_vector(vector: ArrayLike, *, dimension: int | None) -> Rows:
    """Return a query's vector, (d,) or (1, d), as a unit row (1, d).

    Raises:
        QueryError: another dimension, or not one vector of finite numbers.
    """
    try:
        array = np.asarray(vector)
        row = unit_rows(array[None] if array.ndim == 1 else array, dimension=dimension)
    except (VectorError, ValueError) as error:
        raise QueryError(f"The query's vector: {error}") from error
    if len(row) != 1:
        raise QueryError(f"A query has one vector, not {len(row)}: search with them one by one.")
    return row


def open_query_image(image: ImageInput, *, size: int) -> "Image":
    """Return a query's image upright and RGB, no smaller than `size` needs.

    Raises:
        ImageError: it cannot be read.
    """
    from retrieval.images import convert_image, open_image

    if isinstance(image, str):
        image = Path(image)
    try:
        if isinstance(image, bytes | Path | ImageSource):
            return open_image(image, size=size)
        return convert_image(image, size=size)
    except ImageError as error:
        name = "" if isinstance(image, bytes) else str(getattr(image, "name", image))
        raise ImageError(f"The query's picture {name}: {error}") from error
