"""Facets: how many of the matching items have each value of an attribute, or a value in each range."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from retrieval.errors import QueryError
from retrieval.filters.attributes import iter_values
from retrieval.filters.values import NUMBER, TEXT, Scalar, escape_text, kind_of, normalize_value, short_repr

if TYPE_CHECKING:
    from collections.abc import Callable

    from retrieval.filters.columns import Column, Mask

Bound: TypeAlias = float | str | None

MAX_VALUES: Final = 20
MAX_LIMIT: Final = 1000
MAX_FACETS: Final = 50
MAX_RANGES: Final = 100
_AUTOMATIC_RANGES: Final = 5  # approximately, where numbers have more distinct values than the limit
_SMALLEST_STEP: Final = 1e-300


@dataclass(frozen=True, slots=True)
class FacetRequest:
    """A facet to count: the `limit` most frequent values of a key, or given ranges of it."""

    key: str
    limit: int = MAX_VALUES
    ranges: tuple[tuple[Bound, Bound], ...] = ()


@dataclass(frozen=True, slots=True)
class Range:
    """The number of items with a value v, low <= v < high; None is unbounded."""

    low: Bound
    high: Bound
    count: int


@dataclass(frozen=True, slots=True)
class Facet:
    """Counts of one attribute; an item with several values counts once for each."""

    # value and number of items, the most frequent first; texts in the spelling of one of the items
    values: tuple[tuple[Scalar, int], ...]
    other: int  # the number of distinct values that are not listed
    ranges: tuple[Range, ...]  # the requested ranges; or a few, where numbers have more distinct values than the limit
    missing: int  # items without a value
    least: float | None
    greatest: float | None


def parse_facets(facets: object) -> tuple[FacetRequest, ...]:
    """Return the requests in a list of names, or in a mapping of names to a number of values or to ranges.

    Anything else, a range whose bounds are of two kinds, and too many facets are a QueryError.
    """
    if isinstance(facets, str) or not isinstance(facets, Mapping | Sequence):
        raise QueryError(f'Facets are a list such as ["color"], or {{"color": 20}}, not {short_repr(facets)}.')
    if len(facets) > MAX_FACETS:
        raise QueryError(f"A search counts at most {MAX_FACETS} facets, not {len(facets)}.")
    pairs = facets.items() if isinstance(facets, Mapping) else ((key, MAX_VALUES) for key in facets)
    return tuple(_parse_facet(key, option) for key, option in pairs)


def _parse_facet(key: object, option: object) -> FacetRequest:
    if not isinstance(key, str) or not key:
        raise QueryError(f"A facet is the name of an attribute, not {short_repr(key)}.")
    if isinstance(option, int) and not isinstance(option, bool) and 1 <= option <= MAX_LIMIT:
        return FacetRequest(escape_text(key), limit=option)
    if isinstance(option, Sequence) and not isinstance(option, str) and 1 <= len(option) <= MAX_RANGES:
        return FacetRequest(escape_text(key), ranges=tuple(_parse_range(key, bounds) for bounds in option))
    raise QueryError(
        f"The facet {short_repr(key)} takes a number of values from 1 to {MAX_LIMIT}, or ranges such as "
        f"[[null, 20], [20, 50]], not {short_repr(option)}."
    )


def _parse_range(key: str, bounds: object) -> tuple[Bound, Bound]:
    if isinstance(bounds, Sequence) and not isinstance(bounds, str):
        with suppress(TypeError, ValueError):  # of another type, or not two
            low, high = map(normalize_value, bounds)
            kinds = {kind_of(bound) for bound in (low, high) if bound is not None}
            if kinds in ({NUMBER}, {TEXT}):
                return low, high
    raise QueryError(
        f"A range of {short_repr(key)} is [from, to], both numbers or both texts, or null for no bound, not "
        f"{short_repr(bounds)}."
    )


def count_facet(
    column: Column, mask: Mask, request: FacetRequest, *, spelling: Callable[[Scalar, int], Scalar]
) -> Facet:
    """Count the items in the mask (by item number); `spelling` returns a text as one item, by number, spells it."""
    counts = sorted(column.value_counts(mask), key=lambda entry: (-entry[2], entry[0], entry[1]))
    numbers = [float(value) for kind, value, _, _ in counts if kind == NUMBER]
    limit = 0 if request.ranges else request.limit
    ranges = request.ranges or (_round_ranges(numbers) if len(numbers) > limit else ())
    listed = counts[:limit]
    return Facet(
        values=tuple((spelling(value, item) if kind == TEXT else value, count) for kind, value, count, item in listed),
        other=len(counts) - len(listed),
        ranges=tuple(Range(low, high, int(np.sum(column.in_range(low, high) & mask))) for low, high in ranges),
        missing=int(np.sum(mask & ~column.present())),
        least=min(numbers, default=None),
        greatest=max(numbers, default=None),
    )


def _round_ranges(numbers: Sequence[float]) -> tuple[tuple[Bound, Bound], ...]:
    """Return a few ranges with round bounds that cover the numbers; the first and the last are unbounded."""
    finite = [number for number in numbers if math.isfinite(number)]
    if not finite or min(finite) == max(finite):
        return ()
    step = (max(finite) - min(finite)) / _AUTOMATIC_RANGES
    if not _SMALLEST_STEP < step < math.inf:
        return ()
    power = 10.0 ** math.floor(math.log10(step))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= step * (1 - 1e-9))
    bounds = [step * index for index in range(math.floor(min(finite) / step) + 1, math.ceil(max(finite) / step))]
    inner = [round(bound, 12) for bound in bounds if math.isfinite(bound)]
    edges: list[Bound] = [None, *inner, None]
    return tuple(pairwise(edges)) if inner else ()


def find_spelling(attributes: Mapping[str, Any], key: str, value: Scalar) -> Scalar:
    """Return the text under a dotted key that equals the normalized value, as the attributes spell it."""
    spellings = (text for name, text in iter_values(attributes) if name == key and isinstance(text, str))
    return next((text for text in spellings if normalize_value(text) == value), value)
