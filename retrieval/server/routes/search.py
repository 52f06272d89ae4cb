"""The route of searches."""

from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request
from PIL.Image import Image
from starlette.responses import JSONResponse

from retrieval.catalog.search.request import SearchRequest
from retrieval.errors import ImageError
from retrieval.query import PART_KINDS
from retrieval.server.auth import READ_ACCESS
from retrieval.server.errors import ApiError
from retrieval.server.parsing import get_media_type, parse_model, read_form, require_media_type
from retrieval.server.schemas import SearchBody, SearchResponse, error_responses, request_body
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

router = APIRouter()


@router.post(
    "/search",
    dependencies=READ_ACCESS,
    responses={200: {"model": SearchResponse}, **error_responses(400, 401, 403, 409, 413, 415, 422, 503, 504)},
    openapi_extra=request_body({_JSON: SearchBody, _FORM: _FORM_SCHEMA}),
    summary="Search",
)
async def search(request: Request, service: ServiceDep) -> JSONResponse:
    """Search by text, image, item or vector, or a weighted mix; without any, list everything that matches."""
    read = _read_form if get_media_type(request) == _FORM else _read_json
    fields = await read(request, service)
    if fields.keys().isdisjoint(PART_KINDS):
        fields.setdefault("where", {})  # matches everything
    search_request = SearchRequest(**fields)
    end, limit = search_request.offset + search_request.k, service.settings.max_results
    if end > limit:
        raise ApiError(422, f"offset + k is {end}, above this service's limit of {limit}.")
    if isinstance(search_request.image, bytes):
        image = await _open_image(search_request.image, service)
        search_request = replace(search_request, image=image)
    return JSONResponse(await service.batcher.submit(search_request))


async def _open_image(data: bytes, service: Service) -> Image:
    """Decode an image outside the one thread of searches: 89 megapixels would hold up the others for seconds."""
    try:
        return await service.read_executor.run(
            service.api.open_query_image, data, max_pixels=service.settings.max_pixels
        )
    except ImageError as error:
        raise ApiError(422, f"The image {error}.") from None


async def _read_json(request: Request, service: Service) -> dict[str, Any]:
    require_media_type(request, _JSON, _FORM)
    return await service.parse_body(_parse_fields, await request.body())


async def _read_form(request: Request, service: Service) -> dict[str, Any]:
    parts = await read_form(request)
    if unknown := parts.keys() - {"image", "request"}:
        raise ApiError(422, f"The form has parts besides 'image' and 'request', such as {min(unknown)[:50]!r}.")
    if not parts:
        raise ApiError(422, "The form is empty. Send a part 'image', or 'request', or both.")
    fields = await service.parse_body(_parse_fields, parts.pop("request", b"{}"))
    if "image" in fields and "image" in parts:
        raise ApiError(422, "There are two images, one in the form and one in its request. Send one.")
    return fields | parts


def _parse_fields(data: bytes) -> dict[str, Any]:
    """Return the fields of a SearchRequest that a JSON body has; null stands for the default."""
    body = parse_model(SearchBody, data)
    fields = {name: getattr(body, name) for name in body.model_fields_set}
    if "boosts" in fields:
        fields["boosts"] = [boost.model_dump() for boost in fields["boosts"]]
    return {name: value for name, value in fields.items() if value is not None}
