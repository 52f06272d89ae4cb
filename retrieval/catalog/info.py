"""What `Catalog.info` returns."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from retrieval.catalog.write.maintenance import wanted_kind
from retrieval.filters.attributes import list_attribute_keys
from retrieval.records.database import Database
from retrieval.records.schema import FORMAT
from retrieval.records.state import SIDES, CatalogState
from retrieval.records.vector_store import index_path
from retrieval.types import SideName


def catalog_info(database: Database, *, device: str) -> dict[str, Any]:
    """Return counts, sizes, encoder, indexes and format as JSON values, the ones that people ask for first."""
    with database.reading() as records:
        state = records.state()
        encoder, sides = state.space.encoder, [side for side in SIDES if state.sides[side].rows]
        indexes = [_describe_index(database.folder, state, side, device=device) for side in sides]
        return {
            "path": str(database.folder),
            **records.counts(),
            "encoder": None if encoder is None else encoder.name,
            "dimension": state.space.dimension,
            "image_fingerprint": None if encoder is None else encoder.image_fingerprint,
            "text_fingerprint": None if encoder is None else encoder.text_fingerprint,
            "precision": _describe_precision(state),
            "index": "; ".join(indexes) or "no vectors yet",
            "attributes": list_attribute_keys(records.connection),
            "sources": [str(path) for path in records.sources()],
            "bytes": _folder_size(database.folder),
            "format": FORMAT,
        }


def _describe_precision(state: CatalogState) -> str | None:
    """Return what pictures are embedded in, with its agreement with float32 where it is another."""
    reduced = state.space.reduced
    if reduced is None:
        return None if state.space.encoder is None else "float32"
    return "int8" if reduced.agreement is None else reduced.agreement.summary()


def _describe_index(folder: Path, state: CatalogState, side: SideName, *, device: str) -> str:
    """Return the kind of one side's index, and why, or that it is not saved: search is exact until it is."""
    current = state.sides[side]
    kind, reason = wanted_kind(state, current, device=device)
    if current.kind != "exact" and not index_path(folder, side, current.generation).exists():
        note = "not saved"
    elif kind == current.kind:
        note = reason
    else:
        note = f"the next build makes it {kind}: {reason}"
    return f"{side}: {current.kind} ({note})"


def _folder_size(folder: Path) -> int:
    """Return the bytes of all its files, stored pictures included; one that is deleted meanwhile counts nothing."""
    size = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                size += Path(parent, name).stat().st_size
    return size
