"""What a catalog records of an image tower in reduced precision."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from retrieval.types import Agreement

REDUCED_FILE: Final = "image_tower_int8.onnx"


@dataclass(frozen=True, slots=True)
class ReducedTower:
    """An image tower in 8-bit integers: the file that holds it, weights included, and what it was made from."""

    sha256: str  # of the file
    fingerprint: str  # of the reduced tower: its rows are not quite those of the model
    base_fingerprint: str  # of the image tower in float32
    preprocess: Mapping[str, Any]  # open_clip's `preprocess_cfg`
    method: str  # "dynamic" or "static", see `int8.py`
    agreement: Agreement | None  # with float32, as measured before it was accepted

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the tower of its `asdict`, or of that after a way through JSON."""
        agreement = record["agreement"]
        return cls(**{**record, "agreement": None if agreement is None else Agreement.from_record(agreement)})


def reduced_fingerprint(base_fingerprint: str, sha256: str) -> str:
    """Return the fingerprint of a reduced tower: its rows depend on the images that it was calibrated by."""
    return hashlib.sha256(f"int8 {base_fingerprint} {sha256}".encode()).hexdigest()[:32]
