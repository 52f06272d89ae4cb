"""Changes of parts of items: what a change does not name stays as it is, vectors included."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from retrieval.catalog.write.plan import Draft, Picture, plan
from retrieval.errors import ItemError
from retrieval.pairs import Skipped
from retrieval.records import Records, StoredItem
from retrieval.types import Item, item_from

_FIELDS: Final = frozenset({"id", "images", "captions", "attributes"})


def plan_patches(
    records: Records, changes: Iterable[Mapping[str, Any]], *, root: Path
) -> tuple[list[Draft], list[Skipped]]:
    """Return a draft of each item that is to change, and the changes of items that there are not.

    Raises:
        ItemError: a change is not of the form that `Catalog.patch` takes, or there are two of one item.
    """
    listed = list(changes)
    named = {_id(change): change for change in listed}
    if len(named) < len(listed):
        raise ItemError("two changes are of one item: put them into one, or patch twice")
    stored = records.items(list(named))
    items = [_patched(stored[name], change, root) for name, change in named.items() if name in stored]
    drafts = [_keeping(draft, named[draft.item.id]) for draft in plan(records, items, source=None)]
    return drafts, [Skipped(name, "there is no such item; put it whole") for name in named if name not in stored]


def merged(old: Any, change: Any) -> Any:
    """Return `old` as a JSON merge patch changes it: null removes a key, mappings are merged, all else is replaced.

    RFC 7396.
    """
    if not isinstance(change, Mapping):
        return change
    base = dict(old) if isinstance(old, Mapping) else {}
    for key, value in change.items():
        if value is None:
            base.pop(key, None)
        else:
            base[key] = merged(base.get(key), value)
    return base


def _id(change: Any) -> str:
    if not isinstance(change, Mapping) or not isinstance(change.get("id"), str):
        raise ItemError(f"a change is a mapping with the id of an item, not {change!r}")
    name = str(change["id"])
    if unknown := sorted(map(str, set(change) - _FIELDS)):
        raise ItemError(f"the change of {name!r} has unknown fields {unknown}; known are {sorted(_FIELDS)}")
    return name


def _patched(stored: StoredItem, change: Mapping[str, Any], root: Path) -> Item:
    """The item as it shall be; where the change has no pictures, a vector that is not looked at stands for them."""
    attributes = change.get("attributes") or {}
    if not isinstance(attributes, Mapping):
        raise ItemError(f"item {stored.id!r}: attributes are a mapping, not {type(attributes).__name__}")
    fields: dict[str, Any] = {
        "id": stored.id,
        "captions": change.get("captions", [caption.text for caption in stored.captions]),
        "attributes": merged(json.loads(stored.attributes), attributes),
    }
    if "images" in change:
        return item_from({**fields, "images": change["images"]}, root=root, dimension=None)
    return replace(item_from({**fields, "image_vectors": [[1.0]]}, root=root, dimension=None), image_vectors=None)


def _keeping(draft: Draft, change: Mapping[str, Any]) -> Draft:
    stored = draft.stored
    assert stored is not None  # noqa: S101 - the caller has looked
    if "images" not in change:
        draft.pictures = [Picture(None, kept=image, hash=image.hash, settled=True) for image in stored.images]
    if "captions" not in change:
        draft.kept_captions = stored.captions
    return draft
