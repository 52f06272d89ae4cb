"""The route of images: those of items, and no others."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from retrieval.errors import ImageError
from retrieval.images.sources import ImageSource
from retrieval.server.auth import READ_ACCESS
from retrieval.server.errors import ApiError
from retrieval.server.paths import ItemId
from retrieval.server.schemas import error_responses
from retrieval.server.service import Service, ServiceDep
from retrieval.server.thumbnails import SIZES, THUMBNAIL_TYPE, make_thumbnail, read_original

_MAX_AGE = 60  # seconds: after a change, a path has another image
_CONTENT = {"image/*": {"schema": {"type": "string", "format": "binary"}}}

router = APIRouter()


@router.get(
    "/items/{id}/images/{position}",
    dependencies=READ_ACCESS,
    response_class=Response,
    responses={
        200: {"content": _CONTENT, "description": "The image."},
        **error_responses(304, 401, 403, 404, 422),
    },
    summary="An image of an item",
)
async def get_image(  # noqa: PLR0917 - FastAPI passes them by name
    request: Request,
    service: ServiceDep,
    item_id: ItemId,
    position: Annotated[int, Path(ge=0, le=10_000)],
    size: Annotated[int | None, Query(description=f"Longer side in pixels: one of {SIZES}. Default: original.")] = None,
) -> Response:
    """Return an image as it was stored, or, with `size`, as a WebP thumbnail."""
    if size is not None and size not in SIZES:
        raise ApiError(422, f"There is no size {size}. Ask for {', '.join(map(str, SIZES))}, or omit it.")
    source, version = await service.read_executor.run(service.api.find_image, item_id, position)
    tag = f'"{version}"' if size is None else f'"{version}-{size}"'
    # Opened in a browser, a response must be an image and nothing else, whatever its bytes could also be read as.
    headers = {"ETag": tag, "Cache-Control": f"private, max-age={_MAX_AGE}", "Content-Disposition": "inline"}
    if _is_current(request, tag):
        return Response(status_code=304, headers=headers)
    try:
        if size is None:
            data, media_type = await service.read_executor.run(read_original, source)
        else:
            data, media_type = await _get_thumbnail(service, source, tag=tag, size=size), THUMBNAIL_TYPE
    except ImageError as error:
        reason = str(error).replace("there is no such file", "has no file any more")
        raise ApiError(404, f"The image {reason}.") from None
    return Response(data, media_type=media_type, headers=headers)


async def _get_thumbnail(service: Service, source: ImageSource, *, tag: str, size: int) -> bytes:
    thumbnail = service.thumbnails.get(tag)
    service.metrics.thumbnails.labels("made" if thumbnail is None else "kept").inc()
    if thumbnail is None:
        thumbnail = await service.read_executor.run(make_thumbnail, source, size)
        if len(thumbnail) <= service.thumbnails.maxsize:
            service.thumbnails[tag] = thumbnail
    return thumbnail


def _is_current(request: Request, tag: str) -> bool:
    """Whether the client has these bytes."""
    tags = request.headers.get("if-none-match", "")
    return tags.strip() == "*" or tag in {one.strip().removeprefix("W/") for one in tags.split(",")}
