"""Request bodies: JSON that later code can rely on, forms with an image, and images."""

import math
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.requests import Request

from retrieval.errors import ImageError
from retrieval.images import check_image
from retrieval.server.errors import ApiError, to_field_error
from retrieval.server.schemas import DataBody, ImageBody

Model = TypeVar("Model", bound=BaseModel)

MAX_DEPTH = 32
_MAX_INTEGER = 2**63  # of SQLite and of most JSON readers
_MAX_FIELDS = 4


def get_media_type(request: Request) -> str:
    """Return the media type of a request's body, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def require_media_type(request: Request, *media_types: str) -> None:
    """Refuse other media types with ApiError 415; HTML forms of foreign pages cannot set these."""
    if get_media_type(request) not in media_types:
        raise ApiError(415, f"Send the body as {' or '.join(media_types)}, and name the type in Content-Type.")


def parse_json(data: bytes) -> Any:
    """Return JSON of bounded depth, with finite numbers, 64-bit integers and no NUL characters; else ApiError 400."""
    try:
        value = from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise ApiError(400, f"The body is not JSON: {error}.") from None
    _check_value(value, depth=1)
    return value


def parse_model(model: type[Model], data: bytes) -> Model:
    """Return JSON as a model; ApiError 400 if it is no JSON, 422 if a field is missing, unknown or invalid."""
    return validate_model(model, parse_json(data))


def validate_model(model: type[Model], value: Any) -> Model:
    """Return a JSON value as a model; ApiError 422 if a field is missing, unknown or invalid."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise to_field_error(error) from None


async def read_form(request: Request) -> dict[str, bytes]:
    """Return the parts of a multipart/form-data body by name, at most one file and few fields; else ApiError 400."""
    size = len(await request.body())  # the parser then reads it from memory
    try:
        async with request.form(max_files=1, max_fields=_MAX_FIELDS, max_part_size=size + 1) as form:
            parts = form.multi_items()
            return {name: part.encode() if isinstance(part, str) else await part.read() for name, part in parts}
    except Exception as error:  # noqa: BLE001 - the parser raises nearly every built-in error on malformed forms
        message = str(getattr(error, "detail", error)).encode("utf-8", "backslashreplace").decode()
        raise ApiError(400, f"The form cannot be read: {message[:100] or 'it is malformed'}.") from None


def check_images(images: Sequence[ImageBody | DataBody], max_pixels: int) -> None:
    """Raise an ImageError for bytes that are no image, or one of too many pixels, before any image is decoded."""
    for position, image in enumerate(images):
        if image.data is not None:
            try:
                check_image(image.data, max_pixels=max_pixels)
            except ImageError as error:
                raise ImageError(f"image {position} {error}") from error


def _check_value(value: Any, *, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ApiError(400, f"The body is nested deeper than {MAX_DEPTH} levels.")
    match value:
        case dict():
            for part in (*value.keys(), *value.values()):
                _check_value(part, depth=depth + 1)
        case list():
            for part in value:
                _check_value(part, depth=depth + 1)
        case str() if "\0" in value:
            raise ApiError(400, "The body has a text with a NUL character.")
        case float() if not math.isfinite(value):
            raise ApiError(400, "The body has a number that is too large.")
        case int() if not -_MAX_INTEGER <= value < _MAX_INTEGER:
            raise ApiError(400, "The body has an integer of more than 64 bits.")
