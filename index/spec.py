"""IndexSpec: the kind and sizes of an index, as data; how one is chosen, and how many bytes it takes."""

import os
from dataclasses import dataclass, fields
from importlib import import_module
from numbers import Real
from typing import Any

from index.candidates import IndexKind
from index.device import Device
from index.errors import SpecError
from index.kinds import KINDS

_BOUNDS = {
    "links": (2, 512),
    "build_effort": (1, 65536),
    "lists": (0, 1 << 24),
    "codes": (0, 1 << 16),
    "code_bits": (4, 8),
}


@dataclass(frozen=True, slots=True)
class IndexSpec:
    """How rows are indexed. A size of 0 is chosen from the number of rows whenever the index is built.

    `exact` reads every row; `hnsw` walks a graph; `ivf` reads the nearest lists; `ivfpq` does so over compressed rows,
    and scores its candidates by the stored ones.
    """

    kind: str = "exact"  # one of `KINDS`
    links: int = 32  # of a row in the graph (hnsw, FAISS's M)
    build_effort: int = 128  # candidates looked at to place a row (hnsw, FAISS's efConstruction)
    lists: int = 0  # number of lists (ivf, ivfpq, FAISS's nlist)
    codes: int = 0  # subvectors of a row that become one code each (ivfpq); divides the dimension
    code_bits: int = 8  # of one code
    effort: float = 0.75  # how thorough a search is by default, in [0, 1]: more candidates, more lists
    reason: str = ""  # why it was chosen, in words; empty where the caller chose

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise SpecError(f"There is no index kind {self.kind!r}. Use one of {', '.join(KINDS)}.")
        check_effort(self.effort)
        for name, (low, high) in _BOUNDS.items():
            if not low <= getattr(self, name) <= high:
                raise SpecError(f"{name} is {getattr(self, name)}. It must be from {low} to {high}.")

    def create_kind(self) -> IndexKind:
        """Return the kind with those sizes of this spec that it uses."""
        module, _, class_name = KINDS[self.kind].rpartition(".")
        kind: type[IndexKind] = getattr(import_module(module), class_name)
        return kind(**{field.name: getattr(self, field.name) for field in fields(kind)})


def choose_spec(count: int, dimension: int, *, memory: int | None = None, device: Device = "cpu") -> IndexSpec:
    """Return the spec for `count` rows within `memory` bytes (None: no limit), with its reason.

    Exact while reading every row is quick; then the kind of best recall that fits; exact again where none does,
    because on a CPU it needs nothing beside the rows. A SpecError where nothing fits on a GPU, or for a negative size.
    """
    if count < 0 or dimension < 1 or (memory is not None and memory < 0):
        raise SpecError(
            f"There is no index of {count} rows of dimension {dimension} in {memory} bytes. They must be positive."
        )
    rows = _rows(count, dimension)
    for name in KINDS:
        needed = estimate_bytes(IndexSpec(name), count, dimension, device=device)
        reason = IndexSpec(name).create_kind().auto_reason(count, dimension, device=device)
        if reason and (memory is None or needed <= memory):
            within = "" if memory is None else f" of {_mebibytes(memory)}"
            size = f"; the index takes {_mebibytes(needed)}{within}" if needed else ""
            return IndexSpec(name, reason=f"reading all {rows} {reason}{size}")
    if device == "cuda":
        raise SpecError(f"No index of {rows} fits in {_mebibytes(memory)} of the GPU. Use device='cpu'.")
    return IndexSpec("exact", reason=f"no other index of {rows} fits in {_mebibytes(memory)}")


def choose_spec_for_machine(count: int, dimension: int, *, device: Device = "cpu") -> IndexSpec:
    """Return what `choose_spec` chooses within half of this machine's memory; exact where its engine is not installed.

    A GPU reports itself what it can hold.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2 if device == "cpu" else None
    spec = choose_spec(count, dimension, memory=memory, device=device)
    problem = find_engine_problem(spec.kind)
    if not problem:
        return spec
    return IndexSpec("exact", reason=f"{spec.kind} would be quicker for {_rows(count, dimension)}, but {problem}")


def find_engine_problem(kind: str) -> str:
    """Return that the engine of a kind is not installed, and the command, or an empty string."""
    return IndexSpec(kind).create_kind().engine_problem()


def estimate_bytes(spec: IndexSpec, count: int, dimension: int, *, device: Device = "cpu") -> int:
    """Return the bytes that an index takes beside the rows, in memory, within a tenth from 1,000 rows."""
    return spec.create_kind().estimate_bytes(count, dimension, device=device)


def check_effort(effort: Any) -> float:
    """Return the effort; a SpecError if it is no number in [0, 1]."""
    if not isinstance(effort, Real) or not 0 <= float(effort) <= 1:
        raise SpecError(f"effort is {effort!r}. It must be from 0 (quick) to 1 (thorough).")
    return float(effort)


def _rows(count: int, dimension: int) -> str:
    return f"{count:,} rows of dimension {dimension}"


def _mebibytes(count: int | None) -> str:
    return f"{(count or 0) / 2**20:,.0f} MiB"
