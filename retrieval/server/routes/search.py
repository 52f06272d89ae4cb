"""The route of searches."""

from fastapi import FastAPI, Request
from PIL.Image import Image
from starlette.responses import JSONResponse

from retrieval.errors import ImageError
from retrieval.server.auth import READING
from retrieval.server.catalog_api import request_of
from retrieval.server.errors import Problem
from retrieval.server.openapi import body, told
from retrieval.server.parsing import check_kind, form_parts, kind_of, model_of, parse_json
from retrieval.server.schemas import SearchAnswer, SearchBody
from retrieval.server.service import Served, Service

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
        dependencies=READING,
        responses={200: {"model": SearchAnswer}, **told(400, 401, 403, 409, 413, 415, 422, 503, 504)},
        openapi_extra=body(json=SearchBody, form=_FORM_SCHEMA),
        summary="Search",
    )


async def search(request: Request, served: Served) -> JSONResponse:
    """Search by text, picture, item or vector, or a weighted mix; without any, everything that passes the filter."""
    asked, picture = await (_from_form(request, served) if kind_of(request) == _FORM else _from_json(request, served))
    _check_reach(asked, served)
    opened = None if picture is None else await _opened(picture, served)
    found = await served.searches.ask(request_of(asked, opened))
    return JSONResponse(found)


async def _opened(picture: bytes, served: Service) -> Image:
    """Decode a picture beside the one thread of searches: 89 megapixels take seconds, in which nobody else's ran."""
    try:
        return await served.reads.run(served.engine.opened, picture, max_pixels=served.settings.max_pixels)
    except ImageError as error:
        raise Problem(422, f"The image {error}.") from None


async def _from_json(request: Request, served: Service) -> tuple[SearchBody, bytes | None]:
    check_kind(request, _JSON, _FORM)
    asked = await served.parsed(_parsed, await request.body())
    return asked, asked.image


async def _from_form(request: Request, served: Service) -> tuple[SearchBody, bytes | None]:
    parts = await form_parts(request)
    if unknown := parts.keys() - {"image", "request"}:
        raise Problem(422, f"The form has parts besides 'image' and 'request', such as {min(unknown)[:50]!r}.")
    if not parts:
        raise Problem(422, "The form is empty: it has a part 'image', or 'request', or both.")
    asked = await served.parsed(_parsed, parts.get("request", b"{}"))
    if asked.image is not None and "image" in parts:
        raise Problem(422, "There are two images, in the form and in its request: send one.")
    return asked, parts.get("image", asked.image)


def _parsed(data: bytes) -> SearchBody:
    return model_of(SearchBody, parse_json(data))


def _check_reach(asked: SearchBody, served: Service) -> None:
    most = served.settings.max_results
    if asked.offset + asked.k > most:
        raise Problem(422, f"offset + k is {asked.offset + asked.k}; this service goes as far as {most}.")
