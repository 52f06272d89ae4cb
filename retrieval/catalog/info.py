"""What a catalog says about itself."""

import os
from pathlib import Path
from typing import Any

from retrieval.catalog.write.maintenance import wanted_kind
from retrieval.filters.attributes import list_attribute_keys
from retrieval.records import Records
from retrieval.records.database import Database
from retrieval.records.schema import FORMAT
from retrieval.records.state import SIDES
from retrieval.records.vector_store import index_path
from retrieval.types import SideName


def catalog_info(database: Database, *, device: str) -> dict[str, Any]:
    """Return the facts as JSON values, the ones that people ask for first."""
    with database.reading() as records:
        counts, state = records.counts(), records.state()
        recorded = state.space.encoder
        return {
            "path": str(database.folder),
            **counts,
            "encoder": None if recorded is None else recorded.name,
            "dimension": state.space.dimension,
            "image_fingerprint": None if recorded is None else recorded.image_fingerprint,
            "text_fingerprint": None if recorded is None else recorded.text_fingerprint,
            "index": "; ".join(_index(records, side, device) for side in SIDES if records.slots.side(side).rows)
            or "no vectors yet",
            "attributes": list_attribute_keys(records.connection),
            "sources": [str(path) for path in records.sources()],
            "bytes": _bytes(database.folder),
            "format": FORMAT,
        }


def _index(records: Records, side: SideName, device: str) -> str:
    """One side's index: its kind, and why, or that search is exact until the index is there."""
    state = records.slots.side(side)
    kind, reason = wanted_kind(records, state, device=device)
    text = f"{side}: {state.kind}"
    if state.kind != "exact" and not index_path(records.folder, side, state.generation).exists():
        text += " (not saved)"
    elif kind == state.kind:
        text += f" ({reason})"
    else:
        text += f" (the next build makes it {kind}: {reason})"
    return text


def _bytes(folder: Path) -> int:
    """Of all its files, the kept pictures too; one that goes while they are counted counts nothing."""
    return sum(_size(Path(parent, name)) for parent, _, names in os.walk(folder) for name in names)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
