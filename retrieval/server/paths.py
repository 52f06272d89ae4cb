"""URL paths of items: an id is one percent-encoded segment, whatever characters it has."""

from typing import Annotated, TypeAlias
from urllib.parse import quote, unquote_to_bytes

from fastapi import Depends

from retrieval.server.errors import ApiError

ITEMS = "/items/"


def item_path(item_id: str) -> str:
    """Return the path of an item; a "/" in its id is encoded too."""
    return ITEMS + quote(item_id, safe="")


def image_path(item_id: str, position: int) -> str:
    """Return the path of one of an item's images."""
    return f"{item_path(item_id)}/images/{position}"


def parse_id(segment: str) -> str:
    """Return the id that a path segment spells; ApiError 404 if it is no UTF-8 or no possible id."""
    try:
        item_id = unquote_to_bytes(segment).decode()
    except UnicodeError:
        raise ApiError(404, "There is no such item: the id in the path is not percent-encoded UTF-8.") from None
    if "\0" in item_id or not item_id.strip():
        raise ApiError(404, "There is no such item: an id has no NUL character and is not blank.")
    return item_id


async def _parse_path_id(id: str) -> str:  # noqa: A002 - the path parameter's name
    return parse_id(id)


ItemId: TypeAlias = Annotated[str, Depends(_parse_path_id)]
