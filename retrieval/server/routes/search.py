"""The route of searches."""

from functools import partial

from fastapi import APIRouter, Request
from PIL.Image import Image
from starlette.responses import JSONResponse

from retrieval.errors import ImageError
from retrieval.server.auth import READ_ACCESS
from retrieval.server.catalog_api import request_of
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
    body, image = await read(request, service)
    _check_reach(body, service)
    opened = None if image is None else await _open_image(image, service)
    return JSONResponse(await service.batcher.submit(request_of(body, opened)))


async def _open_image(data: bytes, service: Service) -> Image:
    """Decode an image outside the one thread of searches: 89 megapixels would hold up the others for seconds."""
    try:
        return await service.read_executor.run(
            service.api.open_query_image, data, max_pixels=service.settings.max_pixels
        )
    except ImageError as error:
        raise ApiError(422, f"The image {error}.") from None


async def _read_json(request: Request, service: Service) -> tuple[SearchBody, bytes | None]:
    require_media_type(request, _JSON, _FORM)
    body = await service.parse_body(partial(parse_model, SearchBody), await request.body())
    return body, body.image


async def _read_form(request: Request, service: Service) -> tuple[SearchBody, bytes | None]:
    parts = await read_form(request)
    if unknown := parts.keys() - {"image", "request"}:
        raise ApiError(422, f"The form has parts besides 'image' and 'request', such as {min(unknown)[:50]!r}.")
    if not parts:
        raise ApiError(422, "The form is empty. Send a part 'image', or 'request', or both.")
    body = await service.parse_body(partial(parse_model, SearchBody), parts.get("request", b"{}"))
    if body.image is not None and "image" in parts:
        raise ApiError(422, "There are two images, one in the form and one in its request. Send one.")
    return body, parts.get("image", body.image)


def _check_reach(body: SearchBody, service: Service) -> None:
    limit = service.settings.max_results
    if body.offset + body.k > limit:
        raise ApiError(422, f"offset + k is {body.offset + body.k}, above this service's limit of {limit}.")
