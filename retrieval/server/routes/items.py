"""The routes of items, one at a time."""

from functools import partial
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from starlette.responses import JSONResponse

from retrieval.server.auth import READ_ACCESS, WRITE_ACCESS
from retrieval.server.changes import ItemChange, check_images
from retrieval.server.errors import ApiError
from retrieval.server.openapi import error_responses, request_body
from retrieval.server.parsing import parse_json, require_media_type, validate_model
from retrieval.server.paths import item_path, parse_id
from retrieval.server.schemas import ChangeResponse, Id, ItemBody, ItemPage, ItemPatch, ItemResponse, PatchBody
from retrieval.server.service import Service, ServiceDep

_JSON = "application/json"
_MERGE = "application/merge-patch+json"
_MOST = 1000  # items of a page
_REFUSED = (400, 401, 403, 404, 409, 413, 415, 422, 503, 504, 507)


def add_routes(app: FastAPI) -> None:
    """Add the routes of items."""
    add, address, changed = (
        app.add_api_route,
        "/items/{id}",
        {200: {"model": ChangeResponse}, **error_responses(*_REFUSED)},
    )
    got: dict[int | str, Any] = {200: {"model": ItemResponse}, **error_responses(401, 404, 503)}
    listed: dict[int | str, Any] = {200: {"model": ItemPage}, **error_responses(401, 403, 422, 503)}
    created: dict[int | str, Any] = {201: {"model": ChangeResponse, "description": "It is new."}}
    put_body, patch_body = request_body(json=ItemBody), request_body(json=PatchBody, merge_patch=PatchBody)
    add(address, get, methods=["GET"], dependencies=READ_ACCESS, responses=got, summary="An item")
    add("/items", page, methods=["GET"], dependencies=READ_ACCESS, responses=listed, summary="A page of items")
    add(
        address,
        put,
        methods=["PUT"],
        dependencies=WRITE_ACCESS,
        responses=changed | created,
        openapi_extra=put_body,
        summary="Add or replace an item",
    )
    add(
        address,
        patch,
        methods=["PATCH"],
        dependencies=WRITE_ACCESS,
        responses=changed,
        openapi_extra=patch_body,
        summary="Change parts of an item",
    )
    add(address, delete, methods=["DELETE"], dependencies=WRITE_ACCESS, responses=changed, summary="Delete an item")


async def get(service: ServiceDep, id: str) -> JSONResponse:  # noqa: A002 - as the address calls it
    """Return an item."""
    return JSONResponse(await service.read_executor.run(service.api.item, parse_id(id)))


async def page(
    service: ServiceDep,
    after: Annotated[Id | None, Query(description="Id that the page before ended with: its `next`.")] = None,
    limit: Annotated[int, Query(ge=1, le=_MOST, description="Most items of a page.")] = 100,
) -> JSONResponse:
    """Return items in the order of their ids, page by page; what changes meanwhile is on the pages that come after."""
    return JSONResponse(await service.read_executor.run(service.api.items, after, limit=limit))


async def put(request: Request, service: ServiceDep, id: str) -> JSONResponse:  # noqa: A002
    """Add an item, or put it in the place of the one with its id; the same again changes nothing."""
    name = parse_id(id)
    require_media_type(request, _JSON)
    item = await service.parse_body(partial(_item, name=name), await request.body())
    await service.read_executor.run(check_images, item.images, service.settings.max_pixels)
    return await _changed(service, ItemChange("put", name, item))


async def patch(request: Request, service: ServiceDep, id: str) -> JSONResponse:  # noqa: A002
    """Change what is given of an item: attributes are merged (RFC 7396), lists replaced."""
    name = parse_id(id)
    require_media_type(request, _JSON, _MERGE)
    change = await service.parse_body(_change, await request.body())
    await service.read_executor.run(check_images, change.images, service.settings.max_pixels)
    return await _changed(service, ItemChange("patch", name, ItemPatch(id=name, **_given(change))))


async def delete(service: ServiceDep, id: str) -> JSONResponse:  # noqa: A002
    """Delete an item; it stays deleted until it is put again, whatever a build finds."""
    return await _changed(service, ItemChange("delete", parse_id(id), None))


def _item(data: bytes, *, name: str) -> ItemBody:
    value = parse_json(data)
    if isinstance(value, dict) and value.setdefault("id", name) != name:
        raise ApiError(422, f"The address names the item {name!r}, its body {value['id']!r}.")
    return validate_model(ItemBody, value)


def _change(data: bytes) -> PatchBody:
    return validate_model(PatchBody, parse_json(data))


def _given(change: PatchBody) -> dict[str, Any]:
    return {name: getattr(change, name) for name in change.model_fields_set}


async def _changed(service: Service, change: ItemChange) -> JSONResponse:
    (outcome,) = await service.change([change])
    if outcome.error is not None:
        raise outcome.error
    headers = {"Location": item_path(change.id)} if outcome.status == 201 else None  # noqa: PLR2004
    return JSONResponse({"id": change.id, "status": outcome.status}, outcome.status, headers)
