"""The route of pictures: those of items, and no others, as they are or small."""

from typing import Annotated

from fastapi import FastAPI, Path, Query, Request, Response

from retrieval.errors import ImageError
from retrieval.server.auth import READ_ACCESS
from retrieval.server.catalog_api import VersionedImage
from retrieval.server.errors import ApiError
from retrieval.server.openapi import error_responses
from retrieval.server.paths import parse_id
from retrieval.server.service import Service, ServiceDep
from retrieval.server.thumbnails import SIZES, EncodedImage, entity_tag, make_thumbnail, read_original

_FRESH = 60  # seconds: an address shows another picture after a change


def add_routes(app: FastAPI) -> None:
    """Add the route of pictures."""
    content = {"image/*": {"schema": {"type": "string", "format": "binary"}}}
    app.add_api_route(
        "/items/{id}/images/{position}",
        picture,
        methods=["GET"],
        dependencies=READ_ACCESS,
        response_class=Response,
        responses={
            200: {"content": content, "description": "The picture."},
            **error_responses(304, 401, 403, 404, 422),
        },
        summary="A picture of an item",
    )


async def picture(  # noqa: PLR0917 - FastAPI hands them in by name
    request: Request,
    service: ServiceDep,
    id: str,  # noqa: A002 - as the address calls it
    position: Annotated[int, Path(ge=0, le=10_000)],
    size: Annotated[int | None, Query(description=f"Longer side in pixels: one of {SIZES}; as it is without.")] = None,
) -> Response:
    """Return a picture as it was put, or, with `size`, as a small WebP."""
    if size is not None and size not in SIZES:
        raise ApiError(422, f"There are pictures of size {', '.join(map(str, SIZES))}, and as they are without a size.")
    stored = await service.read_executor.run(service.api.picture, parse_id(id), position)
    tag = entity_tag(stored.version, size)
    if _is_held(request, tag):
        return Response(status_code=304, headers=_headers(tag))
    try:
        shown = await _shown(service, stored, size)
    except ImageError as error:
        said = str(error)
        raise ApiError(404, f"The picture {said.replace('there is no such file', 'has no file any more')}.") from None
    return Response(shown.data, media_type=shown.kind, headers=_headers(tag))


async def _shown(service: Service, stored: VersionedImage, size: int | None) -> EncodedImage:
    if size is None:
        return await service.read_executor.run(read_original, stored.source)
    tag = entity_tag(stored.version, size)
    kept = service.thumbnails.get(tag)
    service.metrics.thumbnails.labels("made" if kept is None else "kept").inc()
    if kept is None:
        kept = await service.read_executor.run(make_thumbnail, stored.source, size)
        service.thumbnails.put(tag, kept)
    return kept


def _is_held(request: Request, tag: str) -> bool:
    """Whether the client says that it has these bytes."""
    held = request.headers.get("if-none-match", "")
    return held.strip() == "*" or tag in {one.strip().removeprefix("W/") for one in held.split(",")}


def _headers(tag: str) -> dict[str, str]:
    # An open answer in a browser may be a picture and nothing else, whatever its bytes could also be read as.
    return {"ETag": tag, "Cache-Control": f"private, max-age={_FRESH}", "Content-Disposition": "inline"}
