"""The routes of items, one at a time."""

from functools import partial
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from starlette.responses import JSONResponse

from retrieval.server.auth import READING, WRITING
from retrieval.server.changes import Change, check_pictures
from retrieval.server.errors import Problem
from retrieval.server.openapi import body, told
from retrieval.server.parsing import check_kind, model_of, parse_json
from retrieval.server.paths import id_of, item_address
from retrieval.server.schemas import ChangeAnswer, Id, ItemAnswer, ItemBody, ItemsAnswer, NamedPatch, PatchBody
from retrieval.server.service import Served, Service

_JSON = "application/json"
_MERGE = "application/merge-patch+json"
_MOST = 1000  # items of a page
_REFUSED = (400, 401, 403, 404, 409, 413, 415, 422, 503, 504, 507)


def add_routes(app: FastAPI) -> None:
    """Add the routes of items."""
    add, address, changed = app.add_api_route, "/items/{id}", {200: {"model": ChangeAnswer}, **told(*_REFUSED)}
    got: dict[int | str, Any] = {200: {"model": ItemAnswer}, **told(401, 404, 503)}
    listed: dict[int | str, Any] = {200: {"model": ItemsAnswer}, **told(401, 403, 422, 503)}
    created: dict[int | str, Any] = {201: {"model": ChangeAnswer, "description": "It is new."}}
    put_body, patch_body = body(json=ItemBody), body(json=PatchBody, merge_patch=PatchBody)
    add(address, get, methods=["GET"], dependencies=READING, responses=got, summary="An item")
    add("/items", page, methods=["GET"], dependencies=READING, responses=listed, summary="A page of items")
    add(
        address,
        put,
        methods=["PUT"],
        dependencies=WRITING,
        responses=changed | created,
        openapi_extra=put_body,
        summary="Add or replace an item",
    )
    add(
        address,
        patch,
        methods=["PATCH"],
        dependencies=WRITING,
        responses=changed,
        openapi_extra=patch_body,
        summary="Change parts of an item",
    )
    add(address, delete, methods=["DELETE"], dependencies=WRITING, responses=changed, summary="Delete an item")


async def get(served: Served, id: str) -> JSONResponse:  # noqa: A002 - as the address calls it
    """Return an item."""
    return JSONResponse(await served.reads.run(served.engine.item, id_of(id)))


async def page(
    served: Served,
    after: Annotated[Id | None, Query(description="Id that the page before ended with: its `next`.")] = None,
    limit: Annotated[int, Query(ge=1, le=_MOST, description="Most items of a page.")] = 100,
) -> JSONResponse:
    """Return items in the order of their ids, page by page; what changes meanwhile is on the pages that come after."""
    return JSONResponse(await served.reads.run(served.engine.items, after, limit=limit))


async def put(request: Request, served: Served, id: str) -> JSONResponse:  # noqa: A002
    """Add an item, or put it in the place of the one with its id; the same again changes nothing."""
    name = id_of(id)
    check_kind(request, _JSON)
    item = await served.parsed(partial(_item, name=name), await request.body())
    await served.reads.run(check_pictures, item.images, served.settings.max_pixels)
    return await _changed(served, Change("put", name, item))


async def patch(request: Request, served: Served, id: str) -> JSONResponse:  # noqa: A002
    """Change what is given of an item: attributes are merged (RFC 7396), lists replaced."""
    name = id_of(id)
    check_kind(request, _JSON, _MERGE)
    change = await served.parsed(_change, await request.body())
    await served.reads.run(check_pictures, change.images, served.settings.max_pixels)
    return await _changed(served, Change("patch", name, NamedPatch(id=name, **_given(change))))


async def delete(served: Served, id: str) -> JSONResponse:  # noqa: A002
    """Delete an item; it stays deleted until it is put again, whatever a build finds."""
    return await _changed(served, Change("delete", id_of(id), None))


def _item(data: bytes, *, name: str) -> ItemBody:
    value = parse_json(data)
    if isinstance(value, dict) and value.setdefault("id", name) != name:
        raise Problem(422, f"The address names the item {name!r}, its body {value['id']!r}.")
    return model_of(ItemBody, value)


def _change(data: bytes) -> PatchBody:
    return model_of(PatchBody, parse_json(data))


def _given(change: PatchBody) -> dict[str, Any]:
    return {name: getattr(change, name) for name in change.model_fields_set}


async def _changed(served: Service, change: Change) -> JSONResponse:
    (outcome,) = await served.change([change])
    if outcome.problem is not None:
        raise outcome.problem
    headers = {"Location": item_address(change.id)} if outcome.status == 201 else None  # noqa: PLR2004
    return JSONResponse({"id": change.id, "status": outcome.status}, outcome.status, headers)
