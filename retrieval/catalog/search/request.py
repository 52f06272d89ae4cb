"""A search as data: what is asked for, among which items, in which order, and how much of it comes back."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any, Final, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike

from index.errors import SpecError
from index.spec import check_effort
from retrieval.errors import QueryError
from retrieval.filters import Filter, parse_filter
from retrieval.filters.facets import FacetRequest, parse_facets
from retrieval.filters.values import escape_text, short_repr
from retrieval.query import Picture, Query, make_query
from retrieval.types import Target

Mode: TypeAlias = Literal["vectors", "words", "hybrid"]
Fusion: TypeAlias = Literal["best", "mean"]

MAX_HITS: Final = 100_000
"""How deep one may page: offset and k together."""

_MAX_BOOSTS: Final = 20
_MAX_SORTS: Final = 8


@dataclass(frozen=True, slots=True)
class Boost:
    """A signal of business that moves scores, such as popularity, margin or stock.

    The score is multiplied by 1 + the sum of weight x clip((value - low) / (high - low), 0, 1) of all boosts, kept
    within 0.5 and 2; divided by it where the score is negative. A missing value counts as `low`.

    Attributes:
        attribute: A number or a boolean, which is 0 or 1.
        weight: From -1 to 1.
        low: Value that adds nothing; the least in the catalog where None.
        high: Value that adds all the weight; the greatest in the catalog where None.
    """

    attribute: str
    weight: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """One search, checked; `make_request` makes it.

    Attributes:
        query: What to look for; None browses all items that the filter lets through, which `where={}` does with all.
        words: What is looked for by words, in the modes "words" and "hybrid".
        word_weight: Of the ranks by words beside those by vectors, in the mode "hybrid".
        target: Which side is ranked; None is decided by the query.
        offset: How many of the best hits to leave out, to page.
        sort: Attribute and whether descending, the first of most weight.
        floor: Least cosine of a hit that is found by its vector.
        fusion: How the several pictures, or captions, of an item make one score where the target is "items".
        caption_weight: Of the captions' score beside the pictures', in [0, 1], there; the catalog's own where None.
    """

    query: Query | None = None
    words: str | None = None
    word_weight: float = 1.0
    mode: Mode = "vectors"
    target: Target | None = None
    k: int = 10
    offset: int = 0
    condition: Filter | None = None
    sort: tuple[tuple[str, bool], ...] = ()
    group: str | None = None
    facets: tuple[FacetRequest, ...] = ()
    floor: float | None = None
    boosts: tuple[Boost, ...] = ()
    fusion: Fusion = "best"
    caption_weight: float | None = None
    effort: float | None = None


def make_request(
    *,
    text: str | None = None,
    image: Picture | None = None,
    like: str | None = None,
    minus: str | None = None,
    vector: ArrayLike | None = None,
    weights: Mapping[str, float] | None = None,
    mode: Mode = "vectors",
    target: Target | None = None,
    k: int = 10,
    offset: int = 0,
    where: Mapping[str, Any] | None = None,
    sort: str | Sequence[str] = (),
    group: str | None = None,
    facets: Sequence[str] | Mapping[str, Any] = (),
    floor: float | None = None,
    boosts: Sequence[Boost | Mapping[str, Any]] = (),
    fusion: Fusion = "best",
    caption_weight: float | None = None,
    effort: float | None = None,
) -> Request:
    """Return the search that these arguments, those of `Catalog.search`, describe.

    Raises:
        QueryError: an argument makes no sense; the message says which and why.
    """
    weights = dict(weights or {})
    word_weight = weights.pop("words", 1.0) if mode == "hybrid" else 1.0
    parts = {"text": text, "image": image, "like": like, "minus": minus, "vector": vector}
    browses = where is not None and not weights and all(part is None for part in parts.values())
    request = Request(
        query=None
        if browses
        else make_query(text=text, image=image, like=like, minus=minus, vector=vector, weights=weights),
        words=_words(mode, text),
        word_weight=_weight(word_weight),
        mode=_one_of("mode", mode, get_args(Mode)),
        target=None if target is None else _one_of("target", target, get_args(Target)),
        k=_count("k", k, least=1),
        offset=_count("offset", offset, least=0),
        condition=None if where is None else parse_filter(where),
        sort=_sort(sort),
        group=None if group is None else _name("group", group),
        facets=parse_facets(facets),
        floor=None if floor is None else _number("floor", floor, low=-1),
        boosts=_boosts(boosts),
        fusion=_one_of("fusion", fusion, get_args(Fusion)),
        caption_weight=None if caption_weight is None else _number("caption_weight", caption_weight, low=0),
        effort=_effort(effort),
    )
    _check(request)
    return request


def _words(mode: str, text: str | None) -> str | None:
    return text if mode in {"words", "hybrid"} else None


def _weight(weight: Any) -> float:
    if isinstance(weight, bool) or not isinstance(weight, Real) or not 0 < float(weight) < math.inf:
        raise QueryError(f"The weight of words is a positive number, not {short_repr(weight)}.")
    return float(weight)


def _check(request: Request) -> None:
    """Refuse what makes no sense together."""
    if request.offset + request.k > MAX_HITS:
        raise QueryError(f"offset and k are {request.offset + request.k:,} together; at most {MAX_HITS:,}.")
    if request.mode != "vectors" and request.words is None:
        raise QueryError(f'A search in the mode "{request.mode}" needs a text.')
    if request.mode == "words" and request.query is not None and len(request.query.parts) > 1:
        raise QueryError('A search in the mode "words" is by a text alone; "hybrid" takes other parts too.')
    if request.mode != "vectors" and request.target == "captions":
        raise QueryError(f'Words rank items, not captions: search in the mode "vectors", not "{request.mode}".')


def _one_of(name: str, value: Any, known: tuple[Any, ...]) -> Any:
    if not isinstance(value, str) or value not in known:
        *most, last = (repr(one) for one in known)
        raise QueryError(f"The {name} is {', '.join(most)} or {last}, not {short_repr(value)}.")
    return value


def _count(name: str, value: Any, *, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise QueryError(f"{name} is a number of hits, at least {least}, not {short_repr(value)}.")
    return int(value)


def _number(name: str, value: Any, *, low: float) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not low <= float(value) <= 1:
        raise QueryError(f"The {name} is a number from {low:g} to 1, not {short_repr(value)}.")
    return float(value)


def _name(what: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise QueryError(f"{what} is the name of an attribute, not {short_repr(value)}.")
    return escape_text(value)


def _effort(effort: Any) -> float | None:
    try:
        return None if effort is None else check_effort(effort)
    except SpecError as error:
        raise QueryError(str(error)) from error


def _sort(sort: Any) -> tuple[tuple[str, bool], ...]:
    names = [sort] if isinstance(sort, str) else list(sort) if isinstance(sort, Sequence) else None
    if names is None or len(names) > _MAX_SORTS:
        raise QueryError(
            f'sort is a list of at most {_MAX_SORTS} attributes such as ["-price"], not {short_repr(sort)}.'
        )
    checked = [_name("An element of sort", name) for name in names]
    return tuple((_name("sort", name.removeprefix("-")), name.startswith("-")) for name in checked)


def _boosts(boosts: Any) -> tuple[Boost, ...]:
    if not isinstance(boosts, Sequence) or isinstance(boosts, str) or len(boosts) > _MAX_BOOSTS:
        raise QueryError(f"boosts are a list of at most {_MAX_BOOSTS}, not {short_repr(boosts)}.")
    return tuple(_boost(one) for one in boosts)


def _boost(given: Any) -> Boost:
    names = {field.name for field in fields(Boost)}
    if isinstance(given, Boost):
        given = {name: getattr(given, name) for name in names}
    if not isinstance(given, Mapping) or not {"attribute", "weight"} <= set(given) <= names:
        raise QueryError(f'A boost is {{"attribute": "popularity", "weight": 0.2}}, not {short_repr(given)}.')
    low, high = (_bound(given.get(name)) for name in ("low", "high"))
    if low is not None and high is not None and low >= high:
        raise QueryError(f"A boost's low, {low:g}, is not below its high, {high:g}; a negative weight turns it round.")
    weight = _number("weight of a boost", given["weight"], low=-1)
    return Boost(_name("A boost's attribute", given["attribute"]), weight, low, high)


def _bound(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise QueryError(f"low and high of a boost are numbers, not {short_repr(value)}.")
    return float(value)
