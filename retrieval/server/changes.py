"""Changes of items, applied in order and in few commits, each with its own outcome."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal, TypeAlias

from retrieval.errors import CatalogLockedError, ImageError
from retrieval.images import check_picture
from retrieval.server.catalog_api import CatalogAPI, item_not_found
from retrieval.server.errors import ApiError, to_api_error
from retrieval.server.schemas import DataBody, ImageBody, ItemBody, ItemPatch

_OURS = 500  # from this status on it is not the client's


@dataclass(frozen=True, slots=True)
class ItemChange:
    """What is to be done with an item; `body` is an ItemBody to put, a NamedPatch, or None to delete."""

    kind: Literal["put", "patch", "delete"]
    id: str
    body: Any


@dataclass(frozen=True, slots=True)
class ChangeResult:
    """What became of a change: it is on the disk, or why not."""

    status: int
    error: ApiError | None = None


_Apply: TypeAlias = Callable[[CatalogAPI, Sequence[ItemChange]], list[ChangeResult]]


def check_images(pictures: Sequence[ImageBody | DataBody], max_pixels: int) -> None:
    """Refuse bytes that are no picture, or one of too many pixels, before any is decoded.

    Raises:
        ImageError: the message says which.
    """
    for number, picture in enumerate(pictures):
        if picture.data is not None:
            try:
                check_picture(picture.data, max_pixels=max_pixels)
            except ImageError as error:
                raise ImageError(f"image {number} {error}") from error


def apply(engine: CatalogAPI, changes: Sequence[ItemChange]) -> list[ChangeResult]:
    """Make changes in their order, those of one kind that follow each other in one commit; return their outcomes."""
    outcomes: list[ChangeResult] = []
    for kind, run in groupby(changes, key=lambda change: change.kind):
        outcomes += _apply_run(engine, list(run), _APPLY[kind])
    return outcomes


def _apply_run(engine: CatalogAPI, changes: Sequence[ItemChange], together: _Apply) -> list[ChangeResult]:
    """Try all at once; where that is refused for what one of them says, each alone."""
    try:
        return together(engine, changes)
    except Exception as error:  # noqa: BLE001 - each change is answered, whatever happens
        problem = to_api_error(error, folder=engine.folder)
        if len(changes) == 1 or not _is_ones_fault(error, problem):
            return [ChangeResult(problem.status, problem)] * len(changes)
    return [outcome for change in changes for outcome in _apply_run(engine, [change], together)]


def _is_ones_fault(error: Exception, problem: ApiError) -> bool:
    return problem.status < _OURS and not isinstance(error, CatalogLockedError)


def _put(engine: CatalogAPI, changes: Sequence[ItemChange]) -> list[ChangeResult]:
    there = engine.known([change.id for change in changes])
    items: list[ItemBody] = [change.body for change in changes]
    skipped = engine.put(items).skipped
    if skipped:  # of several, nothing says which; those that went in are unchanged the second time
        raise ApiError(422, f"The item was not taken: {_refusal(skipped[0].reason)}.")
    names = [change.id for change in changes]
    return [ChangeResult(200 if name in there or name in names[:place] else 201) for place, name in enumerate(names)]


def _patch(engine: CatalogAPI, changes: Sequence[ItemChange]) -> list[ChangeResult]:
    there = engine.known([change.id for change in changes])
    for change in changes:
        if change.id not in there:
            raise item_not_found(change.id)
    patches: list[ItemPatch] = [change.body for change in changes]
    skipped = engine.patch(patches).skipped
    if skipped:
        raise ApiError(422, f"The item was not changed: {_refusal(skipped[0].reason)}.")
    return [ChangeResult(200)] * len(changes)


def _refusal(reason: str) -> str:
    return reason if reason.startswith("a picture") else f"a picture {reason}"


def _delete(engine: CatalogAPI, changes: Sequence[ItemChange]) -> list[ChangeResult]:
    names = [change.id for change in changes]
    there = engine.known(names)
    engine.delete(sorted(there))
    firsts = [name in there and name not in names[:place] for place, name in enumerate(names)]
    return [
        ChangeResult(200) if first else ChangeResult(404, item_not_found(name))
        for name, first in zip(names, firsts, strict=True)
    ]


_APPLY: dict[str, _Apply] = {"put": _put, "patch": _patch, "delete": _delete}
