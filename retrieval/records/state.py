"""The state of a catalog at one moment, in one read: its encoder, dimension, sides and settings."""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from retrieval.encoder.onnx.tower_record import ReducedTower
from retrieval.types import SideName

SIDES: tuple[SideName, ...] = ("images", "captions")

Tower: TypeAlias = Literal["image", "text"]


@dataclass(frozen=True, slots=True)
class EncoderRecord:
    """The encoder of a catalog's vectors; `relative` is the path from the catalog to an encoder that is a folder."""

    name: str
    relative: str | None
    dimension: int
    image_fingerprint: str
    text_fingerprint: str


@dataclass(frozen=True, slots=True)
class VectorSpace:
    """The space of a catalog's vectors: `encoder` is None while all were imported, `dimension` before the first one."""

    encoder: EncoderRecord | None = None
    dimension: int | None = None
    reduced: ReducedTower | None = None  # the image tower of the encoder, where it is not in float32

    def fingerprint(self, tower: Tower) -> str:
        """Return the recorded fingerprint of one tower; empty without an encoder."""
        if self.encoder is None:
            return ""
        return self.encoder.image_fingerprint if tower == "image" else self.encoder.text_fingerprint


@dataclass(frozen=True, slots=True)
class SideState:
    """How much of a side's vector file is committed, and which index was chosen for it."""

    generation: int = 1  # number of the file; a compaction makes the next one
    rows: int = 0  # committed vectors, including those that no image or caption uses any more
    kind: str = "exact"  # kind of index
    saved: int = -1  # revision of the records that the saved index is as of; -1 without one

    def same_slots(self, other: "SideState | None") -> bool:
        """Whether an index made as of the one state fits the other, except for vectors that were added since."""
        return other is not None and (self.generation, self.kind) == (other.generation, other.kind)


@dataclass(frozen=True, slots=True)
class CatalogState:
    """The catalog at one moment; its `revision` grows with every change of an item.

    `index` is the requested kind or "auto"; `root`, the place of relative paths, is None before the first write;
    `caption_weight` is None where none was learned.
    """

    revision: int
    space: VectorSpace
    sides: Mapping[SideName, SideState]
    index: str
    root: int | None
    caption_weight: float | None


def read_state(connection: sqlite3.Connection) -> CatalogState:
    """Return the state as of the caller's transaction."""
    meta = {key: json.loads(value) for key, value in connection.execute("SELECT key, value FROM meta")}
    (revision,) = connection.execute("SELECT coalesce(max(revision), 0) FROM attribute_changes").fetchone()
    encoder = None if meta.get("encoder") is None else EncoderRecord(**meta["encoder"])
    reduced = None if meta.get("reduced") is None else ReducedTower.from_record(meta["reduced"])
    return CatalogState(
        revision=revision,
        space=VectorSpace(encoder, meta.get("dimension") if encoder is None else encoder.dimension, reduced),
        sides={side: SideState(**meta.get(side, {})) for side in SIDES},
        index=meta.get("index", "auto"),
        root=meta.get("root"),
        caption_weight=meta.get("caption_weight"),
    )
