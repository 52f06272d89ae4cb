"""Routes of single items."""

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse

from retrieval.server.auth import READ_ACCESS, WRITE_ACCESS
from retrieval.server.catalog_api import ItemChange
from retrieval.server.errors import ApiError
from retrieval.server.parsing import check_images, parse_json, parse_model, require_media_type, validate_model
from retrieval.server.paths import ItemId, item_path
from retrieval.server.schemas import (
    ChangeResponse,
    Id,
    ItemBody,
    ItemPage,
    ItemPatch,
    ItemResponse,
    PatchBody,
    error_responses,
    request_body,
)
from retrieval.server.service import Service, ServiceDep

_JSON = "application/json"
_MERGE_PATCH = "application/merge-patch+json"
_MAX_PAGE = 1000
_CREATED = 201
_CHANGED: dict[int | str, Any] = {
    200: {"model": ChangeResponse},
    **error_responses(400, 401, 403, 404, 409, 413, 415, 422, 503, 504, 507),
}

router = APIRouter()


@router.get(
    "/items/{id}",
    dependencies=READ_ACCESS,
    responses={200: {"model": ItemResponse}, **error_responses(401, 404, 503)},
    summary="An item",
)
async def get_item(service: ServiceDep, item_id: ItemId) -> JSONResponse:
    """Return an item."""
    return JSONResponse(await service.read_executor.run(service.api.get_item, item_id))


@router.get(
    "/items",
    dependencies=READ_ACCESS,
    responses={200: {"model": ItemPage}, **error_responses(401, 403, 422, 503)},
    summary="A page of items",
)
async def list_items(
    service: ServiceDep,
    after: Annotated[Id | None, Query(description="`next` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=_MAX_PAGE, description="Largest number of items in the page.")] = 100,
) -> JSONResponse:
    """Return items in the order of their ids, page by page; a change in between shows on the pages after it."""
    return JSONResponse(await service.read_executor.run(service.api.list_items, after, limit=limit))


@router.put(
    "/items/{id}",
    dependencies=WRITE_ACCESS,
    responses=_CHANGED | {_CREATED: {"model": ChangeResponse, "description": "The item is new."}},
    openapi_extra=request_body({_JSON: ItemBody}),
    summary="Add or replace an item",
)
async def put_item(request: Request, service: ServiceDep, item_id: ItemId) -> JSONResponse:
    """Add an item, or replace the one with its id; repeating the request changes nothing."""
    require_media_type(request, _JSON)
    item = await service.parse_body(partial(_parse_item, item_id=item_id), await request.body())
    await service.read_executor.run(check_images, item.images, service.settings.max_pixels)
    return await _apply(service, ItemChange("put", item_id, item))


@router.patch(
    "/items/{id}",
    dependencies=WRITE_ACCESS,
    responses=_CHANGED,
    openapi_extra=request_body({_JSON: PatchBody, _MERGE_PATCH: PatchBody}),
    summary="Change parts of an item",
)
async def patch_item(request: Request, service: ServiceDep, item_id: ItemId) -> JSONResponse:
    """Change the given parts of an item: attributes are merged (RFC 7396), lists are replaced."""
    require_media_type(request, _JSON, _MERGE_PATCH)
    patch = await service.parse_body(partial(parse_model, PatchBody), await request.body())
    await service.read_executor.run(check_images, patch.images, service.settings.max_pixels)
    fields = {name: getattr(patch, name) for name in patch.model_fields_set}
    return await _apply(service, ItemChange("patch", item_id, ItemPatch(id=item_id, **fields)))


@router.delete("/items/{id}", dependencies=WRITE_ACCESS, responses=_CHANGED, summary="Delete an item")
async def delete_item(service: ServiceDep, item_id: ItemId) -> JSONResponse:
    """Delete an item; it stays deleted until it is put again, whatever a build finds."""
    return await _apply(service, ItemChange("delete", item_id, None))


def _parse_item(data: bytes, *, item_id: str) -> ItemBody:
    value = parse_json(data)
    if isinstance(value, dict) and value.setdefault("id", item_id) != item_id:
        raise ApiError(422, f"The path names the item {item_id!r}, its body {value['id']!r}. Send one id.")
    return validate_model(ItemBody, value)


async def _apply(service: Service, change: ItemChange) -> JSONResponse:
    (result,) = await service.apply([change])
    if result.error is not None:
        raise result.error
    headers = {"Location": item_path(change.id)} if result.status == _CREATED else None
    return JSONResponse({"id": change.id, "status": result.status}, result.status, headers)
