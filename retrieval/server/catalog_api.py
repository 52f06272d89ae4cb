"""The one place where the service calls the catalog; everything here blocks, and runs on a lane's thread."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from PIL import Image

from retrieval.catalog import Catalog, Hit, SyncReport
from retrieval.catalog.search.request import Request, make_request
from retrieval.filters.facets import Facet
from retrieval.hashing import content_hash
from retrieval.images import open_image
from retrieval.images.sources import ImageSource
from retrieval.query import KINDS, Picture
from retrieval.server.errors import ApiError
from retrieval.server.paths import image_path
from retrieval.server.schemas import ImageBody, ItemBody, ItemPatch, SearchBody
from retrieval.types import Hits

Answer: TypeAlias = dict[str, Any]
Encode: TypeAlias = Callable[[Sequence[str]], object]
_THUMBNAIL = 240
_SEEN = ("image", "like", "vector")  # parts that a text only modifies: "this in blue" is not for what is called blue


@dataclass(frozen=True, slots=True)
class VersionedImage:
    """A picture of an item: where its bytes are, and a name for them, which changes when they do."""

    source: ImageSource
    version: str


def request_of(body: SearchBody, picture: Picture | None) -> Request:
    """Return the search that a body asks for; fields that it does not give have the catalog's own defaults.

    Raises:
        QueryError: an argument makes no sense.
    """
    given = {name: getattr(body, name) for name in body.model_fields_set}
    given["boosts"] = [boost.model_dump() for boost in body.boosts]
    given["image"] = picture
    given = {name: value for name, value in given.items() if value is not None}
    if body.text is not None and body.target != "captions" and given.keys().isdisjoint(_SEEN):
        given.setdefault("mode", "hybrid")
    if not given.keys() & set(KINDS):
        given.setdefault("where", {})  # which asks for everything
    return make_request(**given)


class CatalogAPI:
    """A catalog, asked as the service asks it."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self.folder = str(catalog.info()["path"])

    # --- reading

    def search_many(self, requests: Sequence[Request]) -> list[Answer | BaseException]:
        """Return what each search found, as JSON values, or its error; one that fails takes no other with it."""
        try:
            found = self._catalog.search_each(requests)
            return [_answer(hits) if isinstance(hits, Hits) else hits for hits in found]
        except Exception as error:  # noqa: BLE001 - which of them it came from is seen one by one
            if len(requests) == 1:
                return [error]
        return [answer for request in requests for answer in self.search_many([request])]

    def item(self, name: str) -> Answer:
        """Return an item as JSON values.

        Raises:
            Problem: 404, there is none.
        """
        found = self._catalog.get([name])
        if name not in found:
            raise item_not_found(name)
        return _item_answer(found[name])

    def items(self, after: str | None, *, limit: int) -> Answer:
        """Return a page of items in the order of their ids, as JSON values, and the id after which the next one begins.

        `next` is None on the last page.
        """
        names = self._catalog.ids(after=after, limit=limit + 1)
        found = self._catalog.get(names[:limit])
        items = [_item_answer(found[name]) for name in names[:limit] if name in found]
        return {"items": items, "next": names[limit - 1] if len(names) > limit else None}

    def picture(self, name: str, position: int) -> VersionedImage:
        """Return a picture of an item.

        Raises:
            Problem: 404, there is none, or only its vector is known.
        """
        source = self._catalog.image_source(name, position)
        if source is None:
            raise ApiError(404, f"There is no picture {position} of an item {name!r}.")
        return VersionedImage(source, _version(source))

    def opened(self, data: bytes, *, max_pixels: int) -> Image.Image:
        """Return a picture to search with, as small as the encoder can do with.

        Raises:
            ImageError: it is no picture, damaged, or too large.
            CatalogError: there is no encoder to search with it.
        """
        return open_image(data, size=self._catalog.encoder.image_size, max_pixels=max_pixels)

    def known(self, ids: Sequence[str]) -> set[str]:
        """Return those of the ids that there are."""
        return set(self._catalog.get(ids))

    def count(self) -> int:
        """Return how many items there are."""
        return len(self._catalog)

    def attributes(self) -> list[str]:
        """Return the names of all attributes that items have; of nested ones with dots."""
        return list(self._catalog.info()["attributes"])

    # --- changes

    def put(self, items: Sequence[ItemBody]) -> SyncReport:
        """Add or replace items, in one commit."""
        return self._catalog.upsert([_mapping(item) for item in items])

    def patch(self, changes: Sequence[ItemPatch]) -> SyncReport:
        """Change parts of items, in one commit."""
        return self._catalog.patch([_patch_fields(change) for change in changes])

    def delete(self, ids: Sequence[str]) -> int:
        """Delete items, and return how many there were."""
        return self._catalog.delete(ids)

    # --- start

    def warm(self) -> Encode | None:
        """Encode a picture, and search by a text as most will; return what encodes texts.

        None where a catalog has only vectors, and no encoder is known.

        Raises:
            RetrievalError: the encoder does not load, or one of its towers is not the one that the catalog has.
        """
        if self._catalog.info()["encoder"] is None and self._catalog.dimension is not None:
            return None
        encoder = self._catalog.encoder
        encoder.encode_images([Image.new("RGB", (encoder.image_size, encoder.image_size))])
        self._catalog.search("warm", mode="hybrid", k=1)
        return encoder.encode_texts


def item_not_found(name: str) -> ApiError:
    """Return what a client is told that asks for an item that is not there."""
    return ApiError(404, f"There is no item {name!r}.")


def image_links(name: str, position: int | None) -> dict[str, str | None]:
    """Return where a picture and its thumbnail are; nowhere where only its vector is known."""
    if position is None:
        return {"image": None, "thumbnail": None}
    address = image_path(name, position)
    return {"image": address, "thumbnail": f"{address}?size={_THUMBNAIL}"}


def _item_answer(item: Answer) -> Answer:
    places = enumerate(item["images"])
    images = [image_links(item["id"], None if path is None else place) for place, path in places]
    return {**item, "images": images}


def _answer(hits: Hits) -> Answer:
    return {
        "hits": [_hit_answer(hit) for hit in hits],
        "total": hits.total,
        "facets": {key: _facet_answer(facet) for key, facet in hits.facets.items()},
        "seconds": hits.seconds,
    }


def _hit_answer(hit: Hit) -> Answer:
    answer = {
        "rank": hit.rank,
        "score": hit.score,
        "id": hit.id,
        **image_links(hit.id, None if hit.image is None else hit.position),
        "caption": hit.caption,
        "attributes": hit.attributes,
        "ranks": hit.ranks or None,
        "variants": hit.variants,
    }
    optional = {"ranks", "variants"}
    return {name: value for name, value in answer.items() if value is not None or name not in optional}


def _facet_answer(facet: Facet) -> Answer:
    return {
        "values": [{"value": value, "count": count} for value, count in facet.values],
        "other": facet.other,
        "ranges": [{"from": one.low, "to": one.high, "count": one.count} for one in facet.ranges],
        "missing": facet.missing,
        "min": facet.least,
        "max": facet.greatest,
    }


def _mapping(item: ItemBody) -> dict[str, Any]:
    mapping: dict[str, Any] = {"id": item.id, "captions": item.captions, "attributes": item.attributes}
    if item.caption_vectors is not None:
        mapping["caption_vectors"] = item.caption_vectors
    return mapping | _pictures(item.images)


def _patch_fields(change: ItemPatch) -> Answer:
    given = {name: getattr(change, name) for name in change.model_fields_set}
    if "images" in given:
        given["images"] = [picture.data for picture in change.images]
    return given


def _version(source: ImageSource) -> str:
    """Return a name for the bytes of a picture without reading them; where there is no file, reading says so."""
    try:
        status = source.path.stat()
        facts = (str(source.path), source.member, status.st_size, status.st_mtime_ns)
    except OSError:
        facts = (str(source.path), source.member, 0, 0)
    return content_hash(repr(facts).encode())


def _pictures(pictures: Sequence[ImageBody]) -> dict[str, Any]:
    """Return the fields that an upsert takes; either all pictures have data, or none, and so with vectors."""
    found: dict[str, Any] = {}
    if pictures[0].data is not None:
        found["images"] = [picture.data for picture in pictures]
    if pictures[0].vector is not None:
        found["image_vectors"] = [picture.vector for picture in pictures]
    return found
