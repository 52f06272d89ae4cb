"""Bodies of requests: JSON that nothing later can stumble over, and forms with a picture."""

import json
import math
from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartParser
from starlette.requests import Request

from retrieval.server.errors import ApiError, escape_surrogates, to_field_error

Model = TypeVar("Model", bound=BaseModel)

MAX_DEPTH = 32
_LARGEST = 2**63  # SQLite's integers, and what most JSON readers keep
_FORM_PARTS = 4


def media_type_of(request: Request) -> str:
    """Return the media type of a request's body, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def require_media_type(request: Request, *kinds: str) -> None:
    """Refuse a body of another media type.

    Raises:
        Problem: 415; which also keeps forms of foreign pages out, which cannot set these types.
    """
    if media_type_of(request) not in kinds:
        raise ApiError(415, f"Send this as {' or '.join(kinds)}, and say so in Content-Type.")


def parse_json(data: bytes) -> Any:
    """Return a JSON value of bounded depth, with finite numbers of 64 bits and valid texts.

    Raises:
        Problem: 400, it is not that.
    """
    try:
        value = json.loads(data.decode(), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        what = f"{error.msg}, line {error.lineno}" if isinstance(error, json.JSONDecodeError) else "it cannot be read"
        raise ApiError(400, f"The body is not JSON: {what}.") from None
    _check_values(value)
    return value


def validate_model(kind: type[Model], value: Any) -> Model:
    """Return a value as a model.

    Raises:
        Problem: 422, a field is missing, unknown, or of another form.
    """
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise to_field_error(error) from None


async def read_form(request: Request) -> dict[str, bytes]:
    """Return the parts of a multipart/form-data body by name: at most one file, and few fields.

    Raises:
        Problem: 400, it is not that.
    """
    data = await request.body()

    async def stream() -> AsyncGenerator[bytes, None]:
        yield data

    try:
        parser = MultiPartParser(
            request.headers, stream(), max_files=1, max_fields=_FORM_PARTS, max_part_size=len(data) + 1
        )
        form = await parser.parse()
        parts = {name: await _content(value) for name, value in form.multi_items()}
        await form.close()
    except Exception as error:  # noqa: BLE001 (the parser raises nearly every built-in error on damaged forms)
        raise ApiError(
            400, f"The form cannot be read: {escape_surrogates(str(error))[:100] or 'it is damaged'}."
        ) from None
    return parts


async def _content(part: UploadFile | str) -> bytes:
    return await part.read() if isinstance(part, UploadFile) else part.encode()


def _no_number(name: str) -> NoReturn:
    raise ValueError(name)


def _check_values(value: Any) -> None:
    """Look at every value once, without recursion."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise ApiError(400, f"The body is nested more than {MAX_DEPTH} deep.")
        for one in level:
            _check_value(one)
        level = [inner for one in level for inner in _inside(one)]


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return (*value.keys(), *value.values())
    return value if isinstance(value, list) else ()


def _check_value(value: Any) -> None:
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ApiError(400, "The body holds a number that is too large.")
    elif isinstance(value, int) and not -_LARGEST <= value < _LARGEST:
        raise ApiError(400, "The body holds an integer of more than 64 bits.")


def _check_text(text: str) -> None:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ApiError(400, "The body holds a text that is not valid Unicode (half of a surrogate pair).") from None
    if "\0" in text:
        raise ApiError(400, "The body holds a text with a NUL character.")
