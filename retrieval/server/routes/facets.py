"""The route of facets: which attributes of a catalog suit a sidebar of filters, and which one groups variants."""

from collections.abc import Mapping
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse

from retrieval.catalog.search.request import SearchRequest
from retrieval.filters.facets import MAX_FACETS
from retrieval.server.auth import READ_ACCESS
from retrieval.server.catalog_api import CatalogAPI, Json
from retrieval.server.schemas import error_responses
from retrieval.server.service import ServiceDep

_MAX_SHOWN = 12
_MIN_PRESENT = 0.03  # fraction of items that have a value
_MAX_SAME = 0.98  # fraction of those that have the commonest one
_MAX_LISTED_NUMBERS = 12  # distinct numbers: a list up to here, a range above
_MAX_LENGTH = 40  # characters of a value, on average
_MAX_VALUES = 10  # distinct values that always make a list
_MIN_GROUP = 1.1  # items of a group, on average
_IDENTIFIER = 0.9  # distinct whole numbers per item, above which they are ids

# Names in shops' feeds for what the variants of one product share, the most reliable first.
_GROUPS = ("item_group_id", "group_id", "parent_id", "parent_sku", "parent", "handle", "model", "name", "title")

router = APIRouter()


class FacetInfo(BaseModel):
    """An attribute for a sidebar."""

    attribute: str
    kind: Literal["values", "numbers"] = Field(description='A list of values, or, for "numbers", a range.')


class FacetsResponse(BaseModel):
    """What a sidebar may offer; attributes that most items have come first."""

    facets: list[FacetInfo]
    group: str | None = Field(description="Attribute that the variants of a product share.")
    most: int = Field(description="Largest `offset` + `k` of a search.")


@router.get(
    "/facets",
    dependencies=READ_ACCESS,
    responses={200: {"model": FacetsResponse}, **error_responses(401, 403, 503)},
    summary="Attributes for a sidebar",
)
async def list_facets(service: ServiceDep) -> JSONResponse:
    """List the attributes that tell items apart with few values or with numbers; at most a minute old."""
    sidebar = service.sidebar.get("facets")
    if sidebar is None:
        sidebar = service.sidebar["facets"] = choose_facets(
            *await service.read_executor.run(_count_values, service.api)
        )
    return JSONResponse({**sidebar, "most": service.settings.max_results})


def choose_facets(counts: Mapping[str, Json], items: int) -> Json:
    """Return the attributes that suit a sidebar, and the one that groups variants, by each attribute's facet."""
    useful = [name for name, facet in counts.items() if _is_useful(facet, items)]
    useful.sort(key=lambda name: (-round(_present(counts[name], items) / max(items, 1), 1), counts[name]["missing"]))
    groups = (name for name in _GROUPS if name in counts and _is_group(counts[name], items))
    return {
        "facets": [{"attribute": name, "kind": _kind(counts[name])} for name in useful[:_MAX_SHOWN]],
        "group": next(groups, None),
    }


def _count_values(api: CatalogAPI) -> tuple[dict[str, Json], int]:
    names = [name for name in api.list_attributes() if name]  # JSON allows an empty name, facets do not
    pages = [names[start : start + MAX_FACETS] for start in range(0, len(names), MAX_FACETS)] or [[]]
    facets: dict[str, Json] = {}
    items = 0
    for result in api.search_many([SearchRequest(where={}, k=1, facets=page) for page in pages]):
        if isinstance(result, BaseException):
            raise result
        facets |= result["facets"]
        items = result["total"]
    return facets, items


def _present(facet: Json, items: int) -> int:
    return items - int(facet["missing"])


def _distinct(facet: Json) -> int:
    return len(facet["values"]) + int(facet["other"])


def _kind(facet: Json) -> str:
    return "numbers" if facet["min"] is not None and _distinct(facet) > _MAX_LISTED_NUMBERS else "values"


def _is_useful(facet: Json, items: int) -> bool:
    present = _present(facet, items)
    if _distinct(facet) < 2 or present < _MIN_PRESENT * items:  # noqa: PLR2004 - one value is no choice
        return False
    if _kind(facet) == "numbers":
        return bool(facet["ranges"]) and not _is_identifier(facet, present)
    values = [one["value"] for one in facet["values"]]
    length = sum(len(str(value)) for value in values) / len(values)
    is_short_list = _distinct(facet) <= max(_MAX_VALUES, present // 4)
    return facet["values"][0]["count"] <= _MAX_SAME * present and is_short_list and length <= _MAX_LENGTH


def _is_identifier(facet: Json, present: int) -> bool:
    """Whether these are whole numbers that differ from item to item."""
    values = [one["value"] for one in facet["values"]]
    are_whole = all(float(value).is_integer() for value in values if isinstance(value, int | float))
    return are_whole and _distinct(facet) > _IDENTIFIER * present


def _is_group(facet: Json, items: int) -> bool:
    present = _present(facet, items)
    return present >= items / 2 and 1 < _distinct(facet) <= present / _MIN_GROUP
