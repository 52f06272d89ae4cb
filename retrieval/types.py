"""What goes into a catalog and what comes out of it: Item in, Hit and SyncReport out."""

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from index.errors import VectorError
from index.vectors import Rows, unit_rows
from retrieval.errors import ItemError
from retrieval.filters.facets import Facet
from retrieval.images.sources import ImageSource
from retrieval.pairs import Skipped

SideName: TypeAlias = Literal["images", "captions"]
Target: TypeAlias = Literal["images", "captions", "items"]

_FIELDS = frozenset({"id", "images", "captions", "attributes", "image_vectors", "caption_vectors"})


@dataclass(frozen=True, slots=True)
class Item:
    """One thing in a catalog: an id, one or more images, any captions, attributes.

    Attributes:
        images: Where the pictures are. May be empty where `image_vectors` are given.
        captions: Texts without doubles or blanks.
        attributes: JSON values; NaN and infinity, which JSON cannot say, are None.
        image_vectors: Unit rows `(n, d)` that are there already: one for each picture, or the only trace of them.
        caption_vectors: Unit rows `(n, d)`, one for each caption.
    """

    id: str
    images: tuple[ImageSource, ...] = ()
    captions: tuple[str, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    image_vectors: Rows | None = None
    caption_vectors: Rows | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """An image or a caption of an item, as a search found it.

    Attributes:
        rank: 1 is the best.
        score: What it is ranked by: the cosine of the query and the image's or the caption's vector; by words BM25,
            in a hybrid search the sum of 1 / (60 + rank) over the parts; and all of these times the boosts.
        image: Absolute path of the image that was found, or of the item's first one where a caption was found; a name
            inside a container ("shard.tar/a.jpg") where the picture is in one, None where only its vector is known.
        position: Place of that image among the item's, from 0.
        caption: The caption that was found, or the item's first one where an image was found; None without captions.
        target: Which of them was ranked; "items" for an item as a whole.
        ranks: Where each part of a hybrid search had the item, from 1: "vectors", "words"; "name" is 1 for an item
            whose id or number was typed.
        variants: How many items that pass the filter are in the hit's group, where groups were asked for.
    """

    rank: int
    score: float
    id: str
    image: str | None
    caption: str | None
    attributes: Mapping[str, Any]
    target: Target = "images"
    position: int = 0
    ranks: Mapping[str, int] = field(default_factory=dict)
    variants: int | None = None


class Hits(list[Hit]):
    """The hits of a search, best first, and what else was asked for.

    Attributes:
        total: How many items, or texts where captions are ranked, can be paged through: those that pass the filter, and
            the floor where there is one, and are on the side that is ranked; in the mode "words" those that have one of
            the words.
        facets: Counts of attributes among these items, or those that have these texts.
        seconds: What the search took, by "encode", "search" and "records"; of a batch, all of it together.
    """

    def __init__(
        self,
        hits: Iterable[Hit] = (),
        *,
        total: int = 0,
        facets: Mapping[str, Facet] | None = None,
        seconds: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(hits)
        self.total = total
        self.facets = dict(facets or {})
        self.seconds = dict(seconds or {})


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What a build or an upsert did, counted in items.

    Attributes:
        skipped: Each picture or row that was left out, with its reason.
        kept_deleted: Items left out because their id was deleted before; `restore=True` takes them back.
        kept_hidden: Items that the source no longer names and that stay, for they may be in what could not be read of
            it; `prune=True` drops them.
    """

    added: int = 0
    changed: int = 0
    dropped: int = 0
    unchanged: int = 0
    skipped: tuple[Skipped, ...] = ()
    kept_deleted: int = 0
    kept_hidden: int = 0


def item_from(given: "Mapping[str, Any] | Item", *, root: Path, dimension: int | None) -> Item:
    """Return the Item that a mapping (or an Item) describes, checked.

    Args:
        given: `id`, `images` (paths or ImageSource; relative ones under `root`, else under the current folder),
            `captions`, `attributes`, and where vectors are there already `image_vectors`, `caption_vectors`.
        root: The catalog's recorded folder of pictures.
        dimension: What vectors must have; None takes any.

    Raises:
        ItemError: a field is missing, unknown or of a wrong type.
    """
    if isinstance(given, Item):
        fields: Mapping[str, Any] = {name: getattr(given, name) for name in _FIELDS}
    elif isinstance(given, Mapping):
        fields = given
    else:
        raise ItemError(f"an item is a mapping with an id and images, not {type(given).__name__}")
    name = _id(fields)
    if unknown := set(fields) - _FIELDS:
        raise ItemError(
            f"item {name!r} has unknown fields {sorted(map(str, unknown))}; known are {sorted(_FIELDS)}. "
            f"Facts about the item belong into 'attributes'."
        )
    images = tuple(_image(one, root, name) for one in _sequence(fields, "images", name))
    texts = _sequence(fields, "captions", name)
    captions, picked = _captions(texts, name)
    image_vectors = _vectors(fields, "image_vectors", name, dimension=dimension)
    known = dimension if image_vectors is None else image_vectors.shape[1]
    caption_vectors = _vectors(fields, "caption_vectors", name, dimension=known)
    if caption_vectors is not None and len(texts) != len(caption_vectors):
        raise ItemError(f"item {name!r} has {len(texts)} captions and {len(caption_vectors)} caption_vectors")
    item = Item(
        id=name,
        images=images,
        captions=captions,
        attributes=plain_attributes(fields.get("attributes") or {}, name),
        image_vectors=image_vectors,
        caption_vectors=None if caption_vectors is None else caption_vectors[picked],
    )
    _check_counts(item)
    return item


def plain_attributes(attributes: Any, name: str) -> dict[str, Any]:
    """Return the attributes as JSON says them: numpy scalars as numbers, tuples as lists, NaN and infinity as None."""
    if not isinstance(attributes, Mapping):
        raise ItemError(f"item {name!r}: attributes are a mapping, not {type(attributes).__name__}")
    return {str(key): _plain(value, f"item {name!r}, attribute {key!r}") for key, value in attributes.items()}


def attributes_json(attributes: Mapping[str, Any]) -> str:
    """Return the one spelling of these attributes that is stored and compared."""
    return json.dumps(attributes, ensure_ascii=False, sort_keys=True, allow_nan=False, separators=(",", ":"))


def clean_captions(captions: Iterable[str]) -> tuple[str, ...]:
    """Return the captions in order, without blanks at their ends, without empty ones and doubles."""
    return tuple(dict.fromkeys(stripped for caption in captions if (stripped := caption.strip())))


def _id(fields: Mapping[str, Any]) -> str:
    name = fields.get("id")
    if isinstance(name, int) and not isinstance(name, bool):
        name = str(name)
    if not isinstance(name, str) or not name.strip():
        raise ItemError(f"an item needs an id, a text that is not empty, not {name!r}")
    return name


def _sequence(fields: Mapping[str, Any], key: str, name: str) -> list[Any]:
    value = fields.get(key)
    if value is None:
        return []
    if isinstance(value, str | bytes | Path | ImageSource) or not isinstance(value, Iterable):
        raise ItemError(f"item {name!r}: {key} is a list, not {value!r}")
    return list(value)


def _image(given: Any, root: Path, name: str) -> ImageSource:
    if isinstance(given, ImageSource):
        return given
    if not isinstance(given, str | Path):
        raise ItemError(f"item {name!r}: an image is a path, not {type(given).__name__}")
    under_root = root / given
    path = under_root if under_root.exists() else Path.cwd() / given
    return ImageSource(path=Path(os.path.normpath(path)), name=str(given))


def _captions(texts: list[Any], name: str) -> tuple[tuple[str, ...], list[int]]:
    """Return the clean captions, and which of the given texts each one is."""
    if any(not isinstance(text, str) for text in texts):
        raise ItemError(f"item {name!r}: captions are texts, not {texts!r}")
    first = {text.strip(): number for number, text in reversed(list(enumerate(texts))) if text.strip()}
    captions = clean_captions(texts)
    return captions, [first[caption] for caption in captions]


def _vectors(fields: Mapping[str, Any], key: str, name: str, *, dimension: int | None) -> Rows | None:
    if fields.get(key) is None:
        return None
    try:
        return unit_rows(fields[key], dimension=dimension)
    except VectorError as error:
        raise ItemError(f"item {name!r}: {key}: {error}") from error


def _check_counts(item: Item) -> None:
    vectors = item.image_vectors
    if not item.images and (vectors is None or len(vectors) == 0):
        raise ItemError(f"item {item.id!r} has no image; an item needs one, or its vector in 'image_vectors'")
    if item.images and vectors is not None and len(item.images) != len(vectors):
        raise ItemError(f"item {item.id!r} has {len(item.images)} images and {len(vectors)} image_vectors")


def _plain(value: Any, where: str) -> Any:
    if isinstance(value, np.generic) and not isinstance(
        value, np.datetime64 | np.timedelta64
    ):  # nanoseconds are an int
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(one, where) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset | np.ndarray):
        return [_plain(one, where) for one in (_sorted(value, where) if isinstance(value, set | frozenset) else value)]
    raise ItemError(f"{where}: {value!r} is not text, number, boolean, list or mapping; a date is text: 2026-01-31")


def _sorted(values: set[Any] | frozenset[Any], where: str) -> list[Any]:
    try:
        return sorted(values)
    except TypeError:
        raise ItemError(f"{where}: {values!r} has no order, being of several types; give a list") from None


def is_storable(item: Item) -> bool:
    """Whether a database can spell the item: a file name of another encoding has lone surrogates, an odd id a NUL."""
    if "\0" in item.id:
        return False
    texts = (item.id, *item.captions, *(text for image in item.images for text in (str(image.path), image.name)))
    try:
        "".join(texts).encode()
        attributes_json(item.attributes).encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(text: str) -> str:
    """Return a text that any stream can print."""
    return text.encode("utf-8", "backslashreplace").decode()
