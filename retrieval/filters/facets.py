"""Facets: how many of the items that pass a filter have each value of an attribute, or one of a range."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from retrieval.errors import QueryError
from retrieval.filters import Scalar, comparable, shown, storable
from retrieval.filters.attributes import NUMBER, TEXT

if TYPE_CHECKING:
    from collections.abc import Callable

    from retrieval.filters.columns import Column, Mask

Bound: TypeAlias = float | str | None

MAX_VALUES: Final = 20
MAX_LIMIT: Final = 1000
MAX_FACETS: Final = 50
MAX_RANGES: Final = 100
_RANGES: Final = 5  # about so many, where numbers have more values than are asked for
_BOUNDS: Final = 2
_TINY: Final = 1e-300


@dataclass(frozen=True, slots=True)
class Wanted:
    """A facet that is asked for: the most frequent values of a key, or given ranges of it."""

    key: str
    limit: int = MAX_VALUES
    ranges: tuple[tuple[Bound, Bound], ...] = ()


@dataclass(frozen=True, slots=True)
class Range:
    """Items that have a value v with low <= v < high; None is no bound."""

    low: Bound
    high: Bound
    count: int


@dataclass(frozen=True, slots=True)
class Facet:
    """Counts of one attribute; an item with several values counts once for each.

    Attributes:
        values: Value and number of items, the most frequent first; texts in the spelling of one of the items.
        other: How many different values are not listed.
        ranges: Those that were asked for; or, where numbers have more different values than were asked for, a few.
        missing: Items without a value.
        least: The least number, and `greatest` the greatest; None where there are none.
    """

    values: tuple[tuple[Scalar, int], ...]
    other: int
    ranges: tuple[Range, ...]
    missing: int
    least: float | None
    greatest: float | None


def wanted_facets(asked: object) -> tuple[Wanted, ...]:
    """Return the facets that a list of names, or a mapping of names to a number of values or to ranges, asks for.

    Raises:
        QueryError: it is neither, a range is no pair of bounds of one kind, or there are too many.
    """
    if isinstance(asked, str) or not isinstance(asked, Mapping | Sequence):
        raise QueryError(f'Facets are a list such as ["color"], or {{"color": 20}}, not {shown(asked)}.')
    if len(asked) > MAX_FACETS:
        raise QueryError(f"These are {len(asked)} facets; at most {MAX_FACETS} at once.")
    pairs = asked.items() if isinstance(asked, Mapping) else ((key, MAX_VALUES) for key in asked)
    return tuple(_wanted(key, how) for key, how in pairs)


def facet(column: Column, mask: Mask, wanted: Wanted, *, spelling: Callable[[Scalar, int], Scalar]) -> Facet:
    """Count the items in the mask (by item number).

    Args:
        column: The attribute.
        mask: Items that count.
        wanted: What is asked for.
        spelling: Returns a text value as one item, by number, spells it.
    """
    counts = sorted(column.counts(mask), key=lambda one: (-one[2], one[0], one[1]))
    numbers = [float(value) for kind, value, _, _ in counts if kind == NUMBER]
    limit = 0 if wanted.ranges else wanted.limit
    ranges = wanted.ranges or (_round_ranges(numbers) if len(numbers) > limit else ())
    listed = counts[:limit]
    return Facet(
        values=tuple((spelling(value, item) if kind == TEXT else value, count) for kind, value, count, item in listed),
        other=len(counts) - len(listed),
        ranges=tuple(Range(low, high, _count(column.within(low, high, len(mask)) & mask)) for low, high in ranges),
        missing=_count(mask & ~column.present(len(mask))),
        least=min(numbers, default=None),
        greatest=max(numbers, default=None),
    )


def spelled(attributes: Mapping[str, Any], key: str, value: Scalar) -> Scalar:
    """Return the text under a dotted key that equals the value but for case, as the attributes spell it."""
    return next((text for text in _texts(attributes, key) if comparable(text) == value), value)


def _texts(node: Any, key: str) -> list[str]:
    if isinstance(node, str):
        return [] if key else [node]
    if isinstance(node, list):
        return [text for one in node for text in _texts(one, key)]
    if not isinstance(node, Mapping) or not key:
        return []
    found = []
    for name, inner in node.items():
        if (name := storable(name)) == key:
            found += _texts(inner, "")
        elif key.startswith(name + "."):
            found += _texts(inner, key[len(name) + 1 :])
    return found


def _wanted(key: object, how: object) -> Wanted:
    if not isinstance(key, str) or not key:
        raise QueryError(f"A facet is the name of an attribute, not {shown(key)}.")
    if isinstance(how, int) and not isinstance(how, bool) and 1 <= how <= MAX_LIMIT:
        return Wanted(storable(key), limit=how)
    if isinstance(how, Sequence) and not isinstance(how, str) and 1 <= len(how) <= MAX_RANGES:
        return Wanted(storable(key), ranges=tuple(_range(key, one) for one in how))
    raise QueryError(
        f"The facet {shown(key)} is asked for by a number of values from 1 to {MAX_LIMIT}, or by ranges such as "
        f"[[null, 20], [20, 50]], not by {shown(how)}."
    )


def _range(key: str, given: object) -> tuple[Bound, Bound]:
    low, high = (
        (_bound(key, one) for one in given)
        if isinstance(given, Sequence) and not isinstance(given, str) and len(given) == _BOUNDS
        else (None, None)
    )
    if (low is None and high is None) or (low is not None and high is not None and type(low) is not type(high)):
        raise QueryError(f"A range of {shown(key)} is [from, to], both numbers or both texts, not {shown(given)}.")
    return low, high


def _bound(key: str, given: object) -> Bound:
    try:
        value = comparable(given)
    except TypeError:
        value = True
    if isinstance(value, bool):
        raise QueryError(f"A bound of a range of {shown(key)} is a number, a text or null, not {shown(given)}.")
    return value


def _round_ranges(numbers: Sequence[float]) -> tuple[tuple[Bound, Bound], ...]:
    """A few ranges with round bounds that cover the numbers, the first and the last one open."""
    finite = [number for number in numbers if math.isfinite(number)]
    if not finite or min(finite) == max(finite):
        return ()
    step = _round_step((max(finite) - min(finite)) / _RANGES)
    bounds = [step * place for place in range(math.floor(min(finite) / step) + 1, math.ceil(max(finite) / step))]
    inner = [round(bound, 12) for bound in bounds if math.isfinite(bound)]
    edges: list[Bound] = [None, *inner, None]
    return tuple(pairwise(edges)) if inner else ()


def _round_step(step: float) -> float:
    """The least of 1, 2, 2.5 and 5 times a power of ten that is not less."""
    if not _TINY < step < math.inf:
        return math.inf
    power = 10.0 ** math.floor(math.log10(step))
    return float(next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= step * (1 - 1e-9)))


def _count(mask: Mask) -> int:
    return int(np.count_nonzero(mask))
