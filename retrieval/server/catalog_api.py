"""The service's calls to the catalog, with request bodies in and JSON values out; they block, so executors run them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal, TypeAlias

from PIL import Image

from retrieval.catalog import Catalog, Hit, SyncReport
from retrieval.catalog.search.request import SearchRequest
from retrieval.errors import CatalogLockedError
from retrieval.filters.facets import Facet
from retrieval.hashing import content_hash
from retrieval.images import open_image
from retrieval.images.sources import ImageSource
from retrieval.server.errors import ApiError, to_api_error
from retrieval.server.paths import image_path
from retrieval.server.schemas import ItemBody, ItemPatch
from retrieval.types import Hits

Json: TypeAlias = dict[str, Any]
Encode: TypeAlias = Callable[[Sequence[str]], object]
_THUMBNAIL = 240
_SERVER_ERROR = 500


@dataclass(frozen=True, slots=True)
class ItemChange:
    """A change of an item; `body` is an ItemBody to put, an ItemPatch, or None to delete."""

    kind: Literal["put", "patch", "delete"]
    id: str
    body: Any


@dataclass(frozen=True, slots=True)
class ChangeResult:
    """The status of a change, and its error; without one it is durable."""

    status: int
    error: ApiError | None = None


class CatalogAPI:
    """A catalog behind the service's routes."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._apply_kind = {"put": self._put, "patch": self._patch, "delete": self._delete}
        self.folder = str(catalog.info()["path"])

    def search_many(self, requests: Sequence[SearchRequest]) -> list[Json | BaseException]:
        """Return the hits or the error of each search; an unexpected error of one does not fail the others."""
        try:
            results = self._catalog.search_each(requests)
            return [_hits_json(hits) if isinstance(hits, Hits) else hits for hits in results]
        except Exception as error:  # noqa: BLE001 - searching one by one shows whose it is
            if len(requests) == 1:
                return [error]
        return [result for request in requests for result in self.search_many([request])]

    def get_item(self, item_id: str) -> Json:
        """Return an item; ApiError 404 if there is none."""
        items = self._catalog.get([item_id])
        if item_id not in items:
            raise _no_item(item_id)
        return _item_json(items[item_id])

    def list_items(self, after: str | None, *, limit: int) -> Json:
        """Return a page of items in the order of their ids; `next` is the next page's `after`, None on the last."""
        ids = self._catalog.ids(after=after, limit=limit + 1)
        items = self._catalog.get(ids[:limit])
        page = [_item_json(items[item_id]) for item_id in ids[:limit] if item_id in items]
        return {"items": page, "next": ids[limit - 1] if len(ids) > limit else None}

    def find_image(self, item_id: str, position: int) -> tuple[ImageSource, str]:
        """Return one of an item's images, and a name for its bytes that changes when they do.

        ApiError 404 if there is none, or only its vector is stored.
        """
        source = self._catalog.image_source(item_id, position)
        if source is None:
            raise ApiError(404, f"There is no image {position} of an item {item_id!r}.")
        return source, _version_of(source)

    def open_query_image(self, data: bytes, *, max_pixels: int) -> Image.Image:
        """Return an image to search with, no larger than the encoder needs.

        ImageError if it is no image, damaged or too large; CatalogError if there is no encoder to search with it.
        """
        return open_image(data, size=self._catalog.encoder.image_size, max_pixels=max_pixels)

    def count_items(self) -> int:
        """Return the number of items."""
        return len(self._catalog)

    def list_attributes(self) -> list[str]:
        """Return the names of all attributes of items, nested ones with dots."""
        return list(self._catalog.info()["attributes"])

    def apply(self, changes: Sequence[ItemChange]) -> list[ChangeResult]:
        """Apply changes in order, consecutive ones of a kind in one commit; return the result of each."""
        runs = [list(run) for _, run in groupby(changes, key=lambda change: change.kind)]
        return [result for run in runs for result in self._apply_run(run)]

    def _apply_run(self, changes: Sequence[ItemChange]) -> list[ChangeResult]:
        """Apply changes of one kind in one commit; if one of them is refused, each in its own."""
        try:
            return self._apply_kind[changes[0].kind](changes)
        except Exception as error:  # noqa: BLE001 - every change gets a result
            api_error = to_api_error(error, folder=self.folder)
            is_refusal = api_error.status < _SERVER_ERROR and not isinstance(error, CatalogLockedError)
            if len(changes) == 1 or not is_refusal:
                return [ChangeResult(api_error.status, api_error)] * len(changes)
        return [result for change in changes for result in self._apply_run([change])]

    def _put(self, changes: Sequence[ItemChange]) -> list[ChangeResult]:
        ids = [change.id for change in changes]
        existing = set(self._catalog.get(ids))
        # Of several, nothing says which one was skipped; alone, those that were added are unchanged the second time.
        _check_skipped(self._catalog.upsert([_item_fields(change.body) for change in changes]), "stored")
        return [
            ChangeResult(200 if item_id in existing or item_id in ids[:place] else 201)
            for place, item_id in enumerate(ids)
        ]

    def _patch(self, changes: Sequence[ItemChange]) -> list[ChangeResult]:
        existing = self._catalog.get([change.id for change in changes])
        for change in changes:
            if change.id not in existing:
                raise _no_item(change.id)
        _check_skipped(self._catalog.patch([_patch_fields(change.body) for change in changes]), "changed")
        return [ChangeResult(200)] * len(changes)

    def _delete(self, changes: Sequence[ItemChange]) -> list[ChangeResult]:
        ids = [change.id for change in changes]
        existing = set(self._catalog.get(ids))
        self._catalog.delete(sorted(existing))
        return [
            ChangeResult(200)
            if item_id in existing and item_id not in ids[:place]
            else ChangeResult(404, _no_item(item_id))
            for place, item_id in enumerate(ids)
        ]

    def warm_up(self) -> Encode | None:
        """Encode an image and search by a text; return the function that encodes texts, if the catalog has an encoder.

        RetrievalError if the encoder cannot be loaded, or one of its towers is not the catalog's.
        """
        if self._catalog.info()["encoder"] is None and self._catalog.dimension is not None:
            return None
        encoder = self._catalog.encoder
        encoder.encode_images([Image.new("RGB", (encoder.image_size, encoder.image_size))])
        self._catalog.search("warm", k=1)
        return encoder.encode_texts


def _no_item(item_id: str) -> ApiError:
    return ApiError(404, f"There is no item {item_id!r}.")


def _image_links(item_id: str, position: int | None) -> dict[str, str | None]:
    """Return the paths of an image and its thumbnail; None if only the vector is stored."""
    path = None if position is None else image_path(item_id, position)
    return {"image": path, "thumbnail": path and f"{path}?size={_THUMBNAIL}"}


def _item_json(item: Json) -> Json:
    positions = (None if path is None else position for position, path in enumerate(item["images"]))
    return {**item, "images": [_image_links(item["id"], position) for position in positions]}


def _hits_json(hits: Hits) -> Json:
    return {
        "hits": [_hit_json(hit) for hit in hits],
        "total": hits.total,
        "facets": {key: _facet_json(facet) for key, facet in hits.facets.items()},
        "seconds": hits.seconds,
    }


def _hit_json(hit: Hit) -> Json:
    optional = {"ranks": hit.ranks or None, "variants": hit.variants}
    return {
        "rank": hit.rank,
        "score": hit.score,
        "id": hit.id,
        **_image_links(hit.id, None if hit.image is None else hit.position),
        "caption": hit.caption,
        "attributes": hit.attributes,
        **{name: value for name, value in optional.items() if value is not None},
    }


def _facet_json(facet: Facet) -> Json:
    return {
        "values": [{"value": value, "count": count} for value, count in facet.values],
        "other": facet.other,
        "ranges": [{"from": one.low, "to": one.high, "count": one.count} for one in facet.ranges],
        "missing": facet.missing,
        "min": facet.least,
        "max": facet.greatest,
    }


def _item_fields(item: ItemBody) -> Json:
    """Return an item as an upsert takes it; either all images have data, or none, and likewise vectors."""
    fields: Json = {"id": item.id, "captions": item.captions, "attributes": item.attributes}
    if item.caption_vectors is not None:
        fields["caption_vectors"] = item.caption_vectors
    if item.images[0].data is not None:
        fields["images"] = [image.data for image in item.images]
    if item.images[0].vector is not None:
        fields["image_vectors"] = [image.vector for image in item.images]
    return fields


def _patch_fields(patch: ItemPatch) -> Json:
    fields = {name: getattr(patch, name) for name in patch.model_fields_set}
    if "images" in fields:
        fields["images"] = [image.data for image in patch.images]
    return fields


def _check_skipped(report: SyncReport, action: str) -> None:
    if report.skipped:
        reason = report.skipped[0].reason
        subject = "" if reason.startswith("a picture") else "a picture "
        raise ApiError(422, f"The item was not {action}: {subject}{reason}.")


def _version_of(source: ImageSource) -> str:
    """Return a name for an image's bytes without reading them; if the file is missing, reading will say so."""
    try:
        status = source.path.stat()
        size, modified = status.st_size, status.st_mtime_ns
    except OSError:
        size, modified = 0, 0
    return content_hash(repr((str(source.path), source.member, size, modified)).encode())
