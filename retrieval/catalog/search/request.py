"""One search as data: what to look for, among which items, in which order, and which page of the hits.

Each field of `SearchRequest` declares its default, help and range once. `Catalog.search`, the options of
`retrieval search` and the JSON of `POST /search` derive from them: a new search feature is one field here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field
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

    Args:
        attribute: A number or a boolean, which is 0 or 1.
        weight: Part of the score to add, or to subtract.
        low: Value that adds nothing; by default the least in the catalog.
        high: Value that adds all the weight; by default the greatest in the catalog.

    Raises:
        QueryError: a value is out of its range.
    """

    attribute: str = setting(MISSING)
    weight: float = setting(MISSING, low=-1, high=1)
    low: float | None = setting(None)
    high: float | None = setting(None)

    def __post_init__(self) -> None:
        _check_values(self)
        _set(self, attribute=_attribute_name("The attribute of a boost", self.attribute))
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise QueryError(f"A boost's low, {self.low:g}, must be below its high, {self.high:g}.")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SearchRequest:
    """One search, checked; its fields are the arguments of `Catalog.search`.

    Args:
        text: Words to search for.
        image: Picture to search with. In Python a path, bytes, an ImageSource or a Pillow image; in JSON base64.
        like: Search with the mean of this item's pictures. The item is not among its own hits.
        minus: Words to search away from.
        vector: Row of the encoder's space to search with, (d,).
        weights: Weights of text, image, like, minus and vector, and of "words" in a hybrid search; 1 by default.
        mode: "vectors" ranks by cosine, "words" by BM25 of the text in ids, captions and attributes, "hybrid" by both.
            An item whose id or number is typed comes first in the latter two. By default a text alone is a hybrid
            search where the catalog has captions or attributes, unless captions are ranked.
        target: What is ranked: images, captions, or items with their pictures and captions fused into one score. By
            default items where words are searched; captions for an image alone, where there are any; else images.
        k: Maximum number of hits.
        offset: Number of best hits to skip, for paging.
        where: Filter on attributes: {"price": {"$lt": 60}, "color": "gray", "title": {"$contains": "red"}}. With a
            filter ({} is one) and nothing to search for, all items that pass it are hits.
        sort: Attributes to sort the hits by: "price", or "-price" for descending order. Items without the attribute
            come last. With a query the best 100, or offset + k, are sorted; with a floor all above it.
        group: Return only the best hit of each value of this attribute.
        facets: Attributes whose values are counted: ["color"], or {"color": 50, "price": [[0, 20], [20, 50]]}. The
            number is the maximum of values; None, in JSON null, is an open bound.
        floor: Lowest cosine of a hit that is found by its vector.
        boosts: Signals that move scores within bounds: {"attribute": "popularity", "weight": 0.2}.
        fusion: Score of an item's several pictures, or captions, for the target "items".
        caption_weight: Weight of captions beside pictures for the target "items"; by default the learned one.
        effort: How hard an approximate index searches; 1 is the slowest and most exact.

    Attributes:
        query: What to look for; None browses all items that pass the filter.
        word_weight: Weight of the ranks by words beside those by vectors, in a hybrid search.
        condition: The filter `where`.
        sort_keys: Attributes to sort by and whether descending, the most significant first.
        facet_requests: The parsed `facets`.
        parsed_boosts: The parsed `boosts`.

    Raises:
        QueryError: an argument makes no sense; the message names it and says why.
    """

    # Fields without an option have a form of their own on the command line, in cli/searching.py.
    text: str | None = setting(None, option=False)
    image: ImageInput | None = setting(None, option=False)
    like: str | None = setting(None, metavar="ITEM")
    minus: str | None = setting(None, metavar="TEXT")
    vector: ArrayLike | None = setting(None, option=False)
    weights: Mapping[str, float] | None = setting(None, option=False)
    mode: Mode | None = setting(None, choices=get_args(Mode), option=False)
    target: Target | None = setting(None, choices=get_args(Target), option=False)
    k: int = setting(10, low=1, flag="-k")
    offset: int = setting(0, low=0)
    where: Mapping[str, Any] | None = setting(None, option=False)
    sort: str | Sequence[str] = setting((), option=False)
    group: str | None = setting(None, metavar="NAME")
    facets: Sequence[str] | Mapping[str, Any] = setting((), option=False)
    floor: float | None = setting(None, low=-1, high=1, metavar="SCORE")
    boosts: Sequence[Boost | Mapping[str, Any]] = setting((), option=False)
    fusion: Fusion = setting("best", choices=get_args(Fusion))
    caption_weight: float | None = setting(None, low=0, high=1)
    effort: float | None = setting(None, low=0, high=1)

    query: Query | None = field(init=False, repr=False)
    word_weight: float = field(init=False, repr=False)
    condition: Filter | None = field(init=False, repr=False)
    sort_keys: tuple[tuple[str, bool], ...] = field(init=False, repr=False)
    facet_requests: tuple[FacetRequest, ...] = field(init=False, repr=False)
    parsed_boosts: tuple[Boost, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Check every argument, and parse those that have a form of their own."""
        _check_values(self)
        weights = dict(self.weights or {})
        word_weight = weights.pop("words", 1.0) if self._may_be_hybrid else 1.0
        parts = {kind: getattr(self, kind) for kind in PART_KINDS if getattr(self, kind) is not None}
        browses = self.where is not None and not weights and not parts
        _set(
            self,
            query=None if browses else make_query(parts, weights),
            word_weight=check_weight("words", word_weight),
            condition=None if self.where is None else parse_filter(self.where),
            sort_keys=_parse_sort(self.sort),
            group=None if self.group is None else _attribute_name("group", self.group),
            facet_requests=parse_facets(self.facets),
            parsed_boosts=_parse_boosts(self.boosts),
        )
        if self.offset + self.k > MAX_HITS:
            raise QueryError(f"offset + k is {self.offset + self.k:,}; it must be at most {MAX_HITS:,}.")
        if self.mode in {"words", "hybrid"} and self.text is None:
            raise QueryError(f'A search in the mode "{self.mode}" needs a text.')
        if self.mode in {"words", "hybrid"} and self.target == "captions":
            raise QueryError(f'Words rank items, not captions: use the mode "vectors", not "{self.mode}".')
        if self.mode == "words" and len(parts) > 1:
            raise QueryError('A search in the mode "words" takes a text alone; "hybrid" takes other parts too.')

    def resolve(self, *, has_captions: bool, has_words: bool) -> "ResolvedRequest":
        """Return this request with the mode and the target that it has in a catalog.

        Args:
            has_captions: Whether any item has a caption.
            has_words: Whether any item has a caption or an attribute.
        """
        mode = self.mode or ("hybrid" if has_words and self._may_be_hybrid else "vectors")
        is_image_alone = self.query is not None and [part.kind for part in self.query.parts] == ["image"]
        by_vectors: Target = "captions" if is_image_alone and has_captions else "images"
        return ResolvedRequest(self, mode, self.target or (by_vectors if mode == "vectors" else "items"))

    @property
    def _may_be_hybrid(self) -> bool:
        """Whether this is a hybrid search in a catalog that has words."""
        is_mix = any(part is not None for part in (self.image, self.like, self.vector))
        is_text = self.text is not None and not is_mix and self.target != "captions"
        return self.mode == "hybrid" or (self.mode is None and is_text)


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


def _set(instance: Boost | SearchRequest, **values: Any) -> None:
    for name, value in values.items():
        object.__setattr__(instance, name, value)  # the instance is frozen once it is checked


def _check_values(instance: Boost | SearchRequest) -> None:
    """Check the fields against their settings; numpy scalars become Python's."""
    cls: type = type(instance)
    for name in settings_of(cls):
        if isinstance(value := getattr(instance, name), np.generic):
            _set(instance, **{name: value.item()})
    check_settings(instance, error=QueryError, of="a boost's " if cls is Boost else "")


def _attribute_name(what: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise QueryError(f"{what} must be the name of an attribute, not {short_repr(value)}.")
    return escape_text(value)


def _parse_sort(sort: Any) -> tuple[tuple[str, bool], ...]:
    names = [sort] if isinstance(sort, str) else list(sort) if isinstance(sort, Sequence) else None
    if names is None or len(names) > _MAX_SORT_KEYS:
        raise QueryError(
            f'sort must be a list of at most {_MAX_SORT_KEYS} attributes such as ["-price"], not {short_repr(sort)}.'
        )
    checked = [_attribute_name("An element of sort", name) for name in names]
    return tuple((_attribute_name("sort", name.removeprefix("-")), name.startswith("-")) for name in checked)


def _parse_boosts(boosts: Any) -> tuple[Boost, ...]:
    if not isinstance(boosts, Sequence) or isinstance(boosts, str) or len(boosts) > _MAX_BOOSTS:
        raise QueryError(f"boosts must be a list of at most {_MAX_BOOSTS}, not {short_repr(boosts)}.")
    try:
        return tuple(boost if isinstance(boost, Boost) else Boost(**boost) for boost in boosts)
    except TypeError as error:
        raise QueryError(
            f'A boost must be {{"attribute": "popularity", "weight": 0.2}}, not one of {short_repr(boosts)}.'
        ) from error
