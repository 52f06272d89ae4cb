"""One search as data: what to look for, among which items, in which order, and which page of the hits.

Each field of `SearchRequest` declares its default, help and range once. `Catalog.search`, the options of
`retrieval search` and the JSON of `POST /search` derive from them: a new search feature is one field here.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from numbers import Real
from typing import Any, Final, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike

from retrieval.errors import QueryError
from retrieval.filters import Filter, parse_filter
from retrieval.filters.facets import FacetRequest, parse_facets
from retrieval.filters.values import escape_text, short_repr
from retrieval.query import PART_KINDS, ImageInput, Query, check_weight, make_query
from retrieval.settings import check_settings, setting, settings_of
from retrieval.types import SideName, Target

Mode: TypeAlias = Literal["vectors", "words", "hybrid"]
Fusion: TypeAlias = Literal["best", "mean"]

MAX_HITS: Final = 100_000
"""Greatest sum of offset and k."""

_MAX_BOOSTS: Final = 20
_MAX_SORT_KEYS: Final = 8


@dataclass(frozen=True, slots=True)
class Boost:
    """A business signal that moves scores, such as popularity, margin or stock.

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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SearchRequest:
    """One search, checked; its fields are the arguments of `Catalog.search`.

    The fields without an option have a form of their own on the command line, see cli/searching.py.

    Attributes:
        query: What to look for; None browses all items that pass the filter.
        word_weight: Weight of the ranks by words beside those by vectors, in a hybrid search.
        condition: The filter `where`.
        sort_keys: Attributes to sort by and whether descending, the most significant first.
        facet_specs: The parsed `facets`.
        boost_specs: The parsed `boosts`.

    Raises:
        QueryError: an argument makes no sense; the message names it and says why.
    """

    text: str | None = setting(None, "Words to search for.", option=False)
    image: ImageInput | None = setting(None, "Picture to search with.", option=False)
    like: str | None = setting(None, "Search with the pictures of this item.", metavar="ITEM")
    minus: str | None = setting(None, "Words to search away from.", metavar="TEXT")
    vector: ArrayLike | None = setting(None, "Row of the encoder's space to search with.", option=False)
    weights: Mapping[str, float] | None = setting(
        None,
        'Weights of text, image, like, minus and vector, and of "words" in a hybrid search; 1 by default.',
        option=False,
    )
    mode: Mode | None = setting(
        None,
        "How a text is searched. Default: hybrid where the catalog has captions or attributes; vectors for captions, "
        "or in a mix with a picture, an item or a vector.",
        choices=get_args(Mode),
        option=False,
    )
    target: Target | None = setting(
        None,
        "What is ranked. Default: items for a search by words; captions for a picture alone, where there are any; "
        "else images.",
        choices=get_args(Target),
        option=False,
    )
    k: int = setting(10, "Number of hits.", low=1, flag="-k")
    offset: int = setting(0, "Number of best hits to skip, for paging.", low=0)
    where: Mapping[str, Any] | None = setting(
        None, 'Filter: {"price": {"$lt": 60}, "color": "gray", "title": {"$contains": "red"}}.', option=False
    )
    sort: str | Sequence[str] = setting((), 'Sort by this attribute; "-price" for descending order.', option=False)
    group: str | None = setting(None, "Return only the best hit of each value of this attribute.", metavar="NAME")
    facets: Sequence[str] | Mapping[str, Any] = setting((), "Attributes whose values are counted.", option=False)
    floor: float | None = setting(None, "Lowest cosine of a hit found by its vector.", low=-1, high=1, metavar="SCORE")
    boosts: Sequence[Boost | Mapping[str, Any]] = setting((), "Attributes that move scores.", option=False)
    fusion: Fusion = setting(
        "best",
        'Score of an item\'s several pictures, or captions, for the target "items".',
        choices=get_args(Fusion),
    )
    caption_weight: float | None = setting(
        None,
        'Weight of captions beside pictures for the target "items"; the catalog\'s own by default.',
        low=0,
        high=1,
    )
    effort: float | None = setting(
        None, "How hard an approximate index searches: 1 is slowest and most exact.", low=0, high=1
    )

    query: Query | None = field(init=False, repr=False)
    word_weight: float = field(init=False, repr=False)
    condition: Filter | None = field(init=False, repr=False)
    sort_keys: tuple[tuple[str, bool], ...] = field(init=False, repr=False)
    facet_specs: tuple[FacetRequest, ...] = field(init=False, repr=False)
    boost_specs: tuple[Boost, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Check every argument, and parse those that have a form of their own."""
        for name in settings_of(SearchRequest):
            if isinstance(value := getattr(self, name), np.generic):
                self._set(name, value.item())
        check_settings(self, error=QueryError)
        weights = dict(self.weights or {})
        word_weight = weights.pop("words", 1.0) if self._may_be_hybrid else 1.0
        self._set("word_weight", check_weight("words", word_weight))
        self._set("query", self._parse_query(weights))
        self._set("condition", None if self.where is None else parse_filter(self.where))
        self._set("sort_keys", _sort_keys(self.sort))
        self._set("group", None if self.group is None else _attribute_name("group", self.group))
        self._set("facet_specs", parse_facets(self.facets))
        self._set("boost_specs", _boost_specs(self.boosts))
        self._check_combination()

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # the class is frozen for everybody else

    def resolve(self, *, has_captions: bool, has_words: bool) -> "ResolvedRequest":
        """Return this request with the mode and the target that it has in a catalog.

        Args:
            has_captions: Whether any item has a caption.
            has_words: Whether any item has a caption or an attribute.
        """
        mode = self.mode or ("hybrid" if has_words and self._may_be_hybrid else "vectors")
        is_image_alone = self.query is not None and self.query.is_image_alone
        by_vectors: Target = "captions" if is_image_alone and has_captions else "images"
        return ResolvedRequest(self, mode, self.target or (by_vectors if mode == "vectors" else "items"))

    @property
    def _may_be_hybrid(self) -> bool:
        """Whether this is a hybrid search in a catalog that has words."""
        is_mix = any(part is not None for part in (self.image, self.like, self.vector))
        is_text = self.text is not None and not is_mix and self.target != "captions"
        return self.mode == "hybrid" or (self.mode is None and is_text)

    def _parse_query(self, weights: Mapping[str, float]) -> Query | None:
        parts = {kind: getattr(self, kind) for kind in PART_KINDS if getattr(self, kind) is not None}
        if self.where is not None and not weights and not parts:
            return None
        return make_query(parts, weights)

    def _check_combination(self) -> None:
        if self.offset + self.k > MAX_HITS:
            raise QueryError(f"offset + k is {self.offset + self.k:,}; it must be at most {MAX_HITS:,}.")
        if self.mode in {"words", "hybrid"}:
            if self.text is None:
                raise QueryError(f'A search in the mode "{self.mode}" needs a text.')
            if self.target == "captions":
                raise QueryError(f'Words rank items, not captions: use the mode "vectors", not "{self.mode}".')
        if self.mode == "words" and self.query is not None and len(self.query.parts) > 1:
            raise QueryError('A search in the mode "words" takes a text alone; "hybrid" takes other parts too.')


make_request = SearchRequest


@dataclass(frozen=True, slots=True)
class ResolvedRequest:
    """A request with the mode and the target that it has in a catalog."""

    request: SearchRequest
    mode: Mode
    target: Target

    @property
    def sides(self) -> tuple[SideName, ...]:
        """The sides that the search needs: an item to search with has pictures, whatever is ranked."""
        query = self.request.query
        has_item = query is not None and query.like is not None
        if self.target == "items" or (self.target == "captions" and has_item):
            return ("images", "captions")
        return (self.target,)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _attribute_name(what: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise QueryError(f"{what} must be the name of an attribute, not {short_repr(value)}.")
    return escape_text(value)


def _sort_keys(sort: Any) -> tuple[tuple[str, bool], ...]:
    names = [sort] if isinstance(sort, str) else list(sort) if isinstance(sort, Sequence) else None
    if names is None or len(names) > _MAX_SORT_KEYS:
        raise QueryError(
            f'sort must be a list of at most {_MAX_SORT_KEYS} attributes such as ["-price"], not {short_repr(sort)}.'
        )
    checked = [_attribute_name("An element of sort", name) for name in names]
    return tuple((_attribute_name("sort", name.removeprefix("-")), name.startswith("-")) for name in checked)


def _boost_specs(boosts: Any) -> tuple[Boost, ...]:
    if not isinstance(boosts, Sequence) or isinstance(boosts, str) or len(boosts) > _MAX_BOOSTS:
        raise QueryError(f"boosts must be a list of at most {_MAX_BOOSTS}, not {short_repr(boosts)}.")
    return tuple(_parse_boost(boost) for boost in boosts)


def _parse_boost(boost: Any) -> Boost:
    names = {one.name for one in fields(Boost)}
    if isinstance(boost, Boost):
        boost = {name: getattr(boost, name) for name in names}
    if not isinstance(boost, Mapping) or not {"attribute", "weight"} <= set(boost) <= names:
        raise QueryError(f'A boost must be {{"attribute": "popularity", "weight": 0.2}}, not {short_repr(boost)}.')
    low, high, weight = boost.get("low"), boost.get("high"), boost["weight"]
    for bound in (low, high):
        if bound is not None and not (_is_number(bound) and math.isfinite(bound)):
            raise QueryError(f"low and high of a boost must be numbers, not {short_repr(bound)}.")
    if low is not None and high is not None and low >= high:
        raise QueryError(f"A boost's low, {low:g}, must be below its high, {high:g}; to reverse it, negate its weight.")
    if not _is_number(weight) or not -1 <= weight <= 1:
        raise QueryError(f"The weight of a boost must be a number from -1 to 1, not {short_repr(weight)}.")
    bounds = (None if bound is None else float(bound) for bound in (low, high))
    return Boost(_attribute_name("A boost's attribute", boost["attribute"]), float(weight), *bounds)
