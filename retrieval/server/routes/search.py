"""The route of searches."""

from fastapi import FastAPI, Request
from PIL.Image import Image
from starlette.responses import JSONResponse

from retrieval.errors import ImageError
from retrieval.server.auth import READ_ACCESS
from retrieval.server.catalog_api import request_of
from retrieval.server.errors import ApiError
from retrieval.server.openapi import error_responses, request_body
from retrieval.server.parsing import media_type_of, parse_json, read_form, require_media_type, validate_model
from retrieval.server.schemas import SearchBody, SearchResponse
from retrieval.server.service import Service, ServiceDep

_JSON = "application/json"
_FORM = "multipart/form-data"

_FORM_SCHEMA = {
    "type": "object",
    "properties": {
        "image": {"type": "string", "format": "binary"},
        "request": {"type": "string", "description": "The JSON of a search."},
    },
    "required": ["image"],
    "additionalProperties": False,
}


def add_routes(app: FastAPI) -> None:
    """Add the route of searches."""
    app.add_api_route(
        "/search",
        search,
        methods=["POST"],
        dependencies=READ_ACCESS,
        responses={200: {"model": SearchResponse}, **error_responses(400, 401, 403, 409, 413, 415, 422, 503, 504)},
        openapi_extra=request_body(json=SearchBody, form=_FORM_SCHEMA),
        summary="Search",
    )


async def search(request: Request, service: ServiceDep) -> JSONResponse:
    """Search by text, picture, item or vector, or a weighted mix; without any, everything that passes the filter."""
    asked, picture = await (
        _from_form(request, service) if media_type_of(request) == _FORM else _from_json(request, service)
    )
    _check_reach(asked, service)
    opened = None if picture is None else await _opened(picture, service)
    found = await service.batcher.ask(request_of(asked, opened))
    return JSONResponse(found)


async def _opened(picture: bytes, service: Service) -> Image:
    """Decode a picture beside the one thread of searches: 89 megapixels take seconds, in which nobody else's ran."""
    try:
        return await service.read_executor.run(service.api.opened, picture, max_pixels=service.settings.max_pixels)
    except ImageError as error:
        raise ApiError(422, f"The image {error}.") from None


async def _from_json(request: Request, service: Service) -> tuple[SearchBody, bytes | None]:
    require_media_type(request, _JSON, _FORM)
    asked = await service.parse_body(_parsed, await request.body())
    return asked, asked.image


async def _from_form(request: Request, service: Service) -> tuple[SearchBody, bytes | None]:
    parts = await read_form(request)
    if unknown := parts.keys() - {"image", "request"}:
        raise ApiError(422, f"The form has parts besides 'image' and 'request', such as {min(unknown)[:50]!r}.")
    if not parts:
        raise ApiError(422, "The form is empty: it has a part 'image', or 'request', or both.")
    asked = await service.parse_body(_parsed, parts.get("request", b"{}"))
    if asked.image is not None and "image" in parts:
        raise ApiError(422, "There are two images, in the form and in its request: send one.")
    return asked, parts.get("image", asked.image)


def _parsed(data: bytes) -> SearchBody:
    return validate_model(SearchBody, parse_json(data))


def _check_reach(asked: SearchBody, service: Service) -> None:
    most = service.settings.max_results
    if asked.offset + asked.k > most:
        raise ApiError(422, f"offset + k is {asked.offset + asked.k}; this service goes as far as {most}.")
