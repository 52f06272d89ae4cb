"""The OpenAPI document: FastAPI's, with the bodies that the routes read themselves."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from retrieval.server.schemas import ChangeBody, ErrorResponse, ItemBody, PatchBody, SearchBody

_BODIES: tuple[type[BaseModel], ...] = (SearchBody, ItemBody, PatchBody, ChangeBody)
_REF = "#/components/schemas/{model}"
_ABOUT = {
    304: "The client has it already.",
    400: "The body cannot be read.",
    401: "No key, or an unknown one.",
    403: "The key may not, or the service is read only.",
    404: "There is no such thing.",
    409: "Another process is writing, if Retry-After says when to come again; else the catalog lacks its encoder.",
    413: "The body is too large.",
    415: "A body of another media type.",
    422: "A field makes no sense.",
    503: "Too much is waiting, or the service is not ready.",
    504: "It took too long.",
    507: "The disk is full.",
}


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what the document says of answers that tell of problems."""
    without = {304: {"description": _ABOUT[304]}}
    return {status: without.get(status, {"description": _ABOUT[status], "model": ErrorResponse}) for status in statuses}


def request_body(**kinds: type[BaseModel] | dict[str, Any]) -> dict[str, Any]:
    """Return what the document says of a body: by media type, with `__` for `/` and `_` for `-` or `+`, its schema."""
    content = {
        _KINDS[name]: {"schema": one if isinstance(one, dict) else {"$ref": _REF.format(model=one.__name__)}}
        for name, one in kinds.items()
    }
    return {"requestBody": {"required": True, "content": content}}


_KINDS = {
    "json": "application/json",
    "merge_patch": "application/merge-patch+json",
    "form": "multipart/form-data",
    "lines": "application/x-ndjson",
}


def openapi_document(app: FastAPI) -> dict[str, Any]:
    """Return the document; made once."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        for model in _BODIES:
            schema = model.model_json_schema(ref_template=_REF)
            schemas.update(schema.pop("$defs", {}))
            schemas[model.__name__] = schema
        app.openapi_schema = document
    return app.openapi_schema
