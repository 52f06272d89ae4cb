"""Items as callers write them, checked and normalized to what is stored."""

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from index.errors import VectorError
from index.vectors import Rows, unit_rows
from retrieval.errors import ItemError
from retrieval.images.sources import ImageSource
from retrieval.types import Item

_FIELDS = frozenset(field.name for field in fields(Item))


def parse_item(item: Mapping[str, Any] | Item, *, root: Path, dimension: int | None) -> Item:
    """Return the checked Item that a mapping, or an Item, describes.

    Args:
        item: `id`, `images` (paths or ImageSource; relative ones under `root`, else under the current folder),
            `captions`, `attributes`, and imported `image_vectors` and `caption_vectors`.
        root: The catalog's recorded folder of pictures.
        dimension: Dimension of the vectors; None allows any.

    Raises:
        ItemError: a field is missing, unknown or of a wrong type.
    """
    if isinstance(item, Item):
        item = {name: getattr(item, name) for name in _FIELDS}
    if not isinstance(item, Mapping):
        raise ItemError(f"An item must be a mapping with an id and images, not {type(item).__name__}.")
    name = _parse_id(item.get("id"))
    if unknown := set(item) - _FIELDS:
        raise ItemError(
            f"Item {name!r} has unknown fields {sorted(map(str, unknown))}; known are {sorted(_FIELDS)}. "
            f"Put facts about the item into 'attributes'."
        )
    images = tuple(_parse_image(image, root, name) for image in _parse_list(item, "images", name))
    texts = _parse_list(item, "captions", name)
    if not all(isinstance(text, str) for text in texts):
        raise ItemError(f"Item {name!r}: captions must be texts, not {texts!r}.")
    captions = clean_captions(texts)
    image_vectors = _parse_vectors(item, "image_vectors", name, dimension=dimension)
    dimension = dimension if image_vectors is None else image_vectors.shape[1]
    caption_vectors = _parse_vectors(item, "caption_vectors", name, dimension=dimension)
    if caption_vectors is not None:
        if len(texts) != len(caption_vectors):
            raise ItemError(f"Item {name!r} has {len(texts)} captions and {len(caption_vectors)} caption_vectors.")
        stripped = [text.strip() for text in texts]
        caption_vectors = caption_vectors[[stripped.index(caption) for caption in captions]]
    if not images and (image_vectors is None or len(image_vectors) == 0):
        raise ItemError(f"Item {name!r} has no image; it needs one, or its vector in 'image_vectors'.")
    if images and image_vectors is not None and len(images) != len(image_vectors):
        raise ItemError(f"Item {name!r} has {len(images)} images and {len(image_vectors)} image_vectors.")
    attributes = normalize_attributes(item.get("attributes") or {}, name)
    return Item(name, images, captions, attributes, image_vectors, caption_vectors)


def normalize_attributes(attributes: Any, name: str) -> dict[str, Any]:
    """Return an item's attributes as JSON values: numpy scalars as numbers, tuples as lists, NaN and infinity as None.

    Raises:
        ItemError: a value has no such form.
    """
    if not isinstance(attributes, Mapping):
        raise ItemError(f"Item {name!r}: attributes must be a mapping, not {type(attributes).__name__}.")
    return {str(key): _normalize(value, f"Item {name!r}, attribute {key!r}") for key, value in attributes.items()}


def encode_attributes(attributes: Mapping[str, Any]) -> str:
    """Return the canonical JSON of attributes, in which they are stored and compared."""
    return json.dumps(attributes, ensure_ascii=False, sort_keys=True, allow_nan=False, separators=(",", ":"))


def clean_captions(captions: Iterable[str]) -> tuple[str, ...]:
    """Return the distinct captions in order, stripped, without empty ones."""
    return tuple(dict.fromkeys(stripped for caption in captions if (stripped := caption.strip())))


def is_storable(item: Item) -> bool:
    """Whether SQLite can store the item: a file name of another encoding has lone surrogates, an odd id a NUL."""
    if "\0" in item.id:
        return False
    texts = (item.id, *item.captions, *(text for image in item.images for text in (str(image.path), image.name)))
    try:
        "".join((*texts, encode_attributes(item.attributes))).encode()
    except UnicodeEncodeError:
        return False
    return True


def escape_surrogates(text: str) -> str:
    """Return a text that any stream can print."""
    return text.encode("utf-8", "backslashreplace").decode()


def _parse_id(name: Any) -> str:
    if isinstance(name, int) and not isinstance(name, bool):
        name = str(name)
    if not isinstance(name, str) or not name.strip():
        raise ItemError(f"An item needs an id, a text that is not empty, not {name!r}.")
    return name


def _parse_list(item: Mapping[str, Any], key: str, name: str) -> list[Any]:
    value = item.get(key)
    if value is None:
        return []
    if isinstance(value, str | bytes | Path | ImageSource) or not isinstance(value, Iterable):
        raise ItemError(f"Item {name!r}: {key} must be a list, not {value!r}.")
    return list(value)


def _parse_image(image: Any, root: Path, name: str) -> ImageSource:
    if isinstance(image, ImageSource):
        return image
    if not isinstance(image, str | Path):
        raise ItemError(f"Item {name!r}: an image must be a path, not {type(image).__name__}.")
    under_root = root / image
    path = under_root if under_root.exists() else Path.cwd() / image
    return ImageSource(path=Path(os.path.normpath(path)), name=str(image))


def _parse_vectors(item: Mapping[str, Any], key: str, name: str, *, dimension: int | None) -> Rows | None:
    if item.get(key) is None:
        return None
    try:
        return unit_rows(item[key], dimension=dimension)
    except VectorError as error:
        raise ItemError(f"Item {name!r}: {key}: {error}") from error


def _normalize(value: Any, where: str) -> Any:
    if isinstance(value, np.generic) and not isinstance(value, np.datetime64 | np.timedelta64):  # they become integers
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, Mapping):
        return {str(key): _normalize(one, where) for key, one in value.items()}
    if isinstance(value, set | frozenset):
        try:
            value = sorted(value)
        except TypeError:
            raise ItemError(f"{where}: {value!r} has no order, being of several types; give a list.") from None
    if isinstance(value, list | tuple | np.ndarray):
        return [_normalize(one, where) for one in value]
    raise ItemError(f"{where}: {value!r} is not text, number, boolean, list or mapping; a date is text: 2026-01-31.")
