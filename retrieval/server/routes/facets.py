"""The route of facets: which attributes of a catalog suit a side bar of filters, and which one groups variants."""

from collections.abc import Mapping
from time import monotonic
from typing import Literal

from fastapi import FastAPI, Request
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse

from retrieval.catalog.search.request import make_request
from retrieval.filters.facets import MAX_FACETS
from retrieval.server.auth import READ_ACCESS
from retrieval.server.catalog_api import Answer, CatalogAPI
from retrieval.server.openapi import error_responses
from retrieval.server.service import ServiceDep

_MOST = 12
_FRESH = 60.0  # seconds: the choice, not the counts; those come with each search
_LEAST_SHARE = 0.03  # of the items, that have a value
_MOST_ALIKE = 0.98  # of those that have one, that have the same
_FEW_NUMBERS = 12  # different ones: a list, not a range
_LONGEST = 40  # characters of a value, on average
_FEW_VALUES = 10
_LEAST_GROUP = 1.1  # items of a value, on average

# As shops' feeds call what variants of one product share, the surest first.
_GROUPS = ("item_group_id", "group_id", "parent_id", "parent_sku", "parent", "handle", "model", "name", "title")


class FacetInfo(BaseModel):
    """An attribute for a side bar."""

    attribute: str
    kind: Literal["values", "numbers"] = Field(description='A list of values, or, of "numbers", a range.')


class FacetsResponse(BaseModel):
    """What a side bar may offer, what most items have first."""

    facets: list[FacetInfo]
    group: str | None = Field(description="Attribute that the variants of a product share.")
    most: int = Field(description="Hits that a search reaches.")


def add_routes(app: FastAPI) -> None:
    """Add the route of facets."""
    app.state.choice = FacetChooser()
    app.add_api_route(
        "/facets",
        facets,
        methods=["GET"],
        dependencies=READ_ACCESS,
        responses={200: {"model": FacetsResponse}, **error_responses(401, 403, 503)},
        summary="Attributes for a side bar",
    )


async def facets(request: Request, service: ServiceDep) -> JSONResponse:
    """Say which attributes tell items apart with few values or with numbers; at most a minute old."""
    choice = await service.read_executor.run(request.app.state.choice.of, service.api)
    return JSONResponse({**choice, "most": service.settings.max_results})


class FacetChooser:
    """What suits a side bar, kept for a while."""

    def __init__(self) -> None:
        self._chosen: tuple[float, Answer] | None = None

    def of(self, engine: CatalogAPI) -> Answer:
        """Return the choice for a catalog, made anew where it is old."""
        if self._chosen is None or monotonic() - self._chosen[0] > _FRESH:
            self._chosen = monotonic(), choose_facets(*_counted(engine))
        return self._chosen[1]


def choose_facets(counted: Mapping[str, Answer], items: int) -> Answer:
    """Return the attributes that suit a side bar, and the one that groups variants.

    Args:
        counted: The facet of each attribute, over all items.
        items: How many there are.
    """
    useful = [name for name, facet in counted.items() if _is_useful(facet, items)]
    useful.sort(key=lambda name: (-round(_present(counted[name], items) / max(items, 1), 1), counted[name]["missing"]))
    groups = (name for name in _GROUPS if name in counted and _is_group(counted[name], items))
    return {
        "facets": [{"attribute": name, "kind": _kind(counted[name])} for name in useful[:_MOST]],
        "group": next(groups, None),
    }


def _counted(engine: CatalogAPI) -> tuple[dict[str, Answer], int]:
    names = [name for name in engine.attributes() if name]  # JSON may have an empty one, which no facet takes
    pages = [names[start : start + MAX_FACETS] for start in range(0, len(names), MAX_FACETS)] or [[]]
    answers = engine.search_many([make_request(where={}, k=1, facets=page) for page in pages])
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    found = [answer for answer in answers if isinstance(answer, dict)]
    return {name: facet for answer in found for name, facet in answer["facets"].items()}, found[0]["total"]


def _present(facet: Answer, items: int) -> int:
    return items - int(facet["missing"])


def _distinct(facet: Answer) -> int:
    return len(facet["values"]) + int(facet["other"])


def _kind(facet: Answer) -> str:
    return "numbers" if facet["min"] is not None and _distinct(facet) > _FEW_NUMBERS else "values"


def _is_useful(facet: Answer, items: int) -> bool:
    present = _present(facet, items)
    if _distinct(facet) < 2 or present < _LEAST_SHARE * items:  # noqa: PLR2004 - one value is no choice
        return False
    if _kind(facet) == "numbers":
        return bool(facet["ranges"]) and not _is_identifier(facet, present)
    values = [one["value"] for one in facet["values"]]
    length = sum(len(str(value)) for value in values) / len(values)
    few = max(_FEW_VALUES, present // 4)
    return facet["values"][0]["count"] <= _MOST_ALIKE * present and _distinct(facet) <= few and length <= _LONGEST


def _is_identifier(facet: Answer, present: int) -> bool:
    """Whether whole numbers differ from item to item."""
    whole = all(float(one["value"]).is_integer() for one in facet["values"] if isinstance(one["value"], int | float))
    return whole and _distinct(facet) > 0.9 * present


def _is_group(facet: Answer, items: int) -> bool:
    present = _present(facet, items)
    return present >= items / 2 and 1 < _distinct(facet) <= present / _LEAST_GROUP
