"""IndexSpec: the kind and sizes of an index, as data; one chosen by count, dimension and memory; its size foretold."""

import math
import os
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, Literal, TypeAlias, get_args

from index.errors import SpecError

Kind: TypeAlias = Literal["exact", "hnsw", "ivf", "ivfpq"]
KINDS: tuple[Kind, ...] = get_args(Kind)

EXACT_NUMBERS = 128_000_000  # 250,000 rows of 512: read in 9 ms a query on two cores, and never wrong
EXACT_NUMBERS_GPU = 8_000_000_000  # 32 GB, read in some ten milliseconds
ROWS_A_LIST = 39  # what FAISS asks for to train one centroid
GPU_LIST_LIMIT = 2048  # FAISS on a GPU looks into no more lists a query
GPU_CODES = (96, 64, 56, 48, 40, 32, 28, 24, 20, 16, 12, 8, 4, 3, 2, 1)  # codes a row that a GPU can hold,
GPU_PARTS = (4, 6, 8, 10, 12, 16, 20, 24, 28, 32)  # and the numbers that one of them may stand for; below 4 is wasteful
FLOAT = ID = LINK = 4  # bytes; FAISS numbers lists and links with 32 bits
SLOT = 8


@dataclass(frozen=True, slots=True)
class IndexSpec:
    """How rows are indexed. A size of 0 is chosen from the number of rows whenever the structure is built.

    Attributes:
        kind: `exact` reads every row; `hnsw` walks a graph; `ivf` looks into the nearest lists; `ivfpq` does so over
            compressed rows, and scores its candidates by the stored ones.
        links: of a row in the graph (hnsw).
        build_effort: candidates looked at to place a row (hnsw, FAISS's efConstruction).
        lists: how many lists (ivf, ivfpq).
        codes: parts of a row that become one code each (ivfpq); divides the dimension.
        code_bits: of one code.
        effort: how hard a search tries unless it says otherwise, in [0, 1]: see `probes`, `beam` and `depth`.
        reason: why it was chosen, in words; empty where it was asked for.
    """

    kind: Kind = "exact"
    links: int = 32
    build_effort: int = 128
    lists: int = 0
    codes: int = 0
    code_bits: int = 8
    effort: float = 0.75
    reason: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise SpecError(f"no index kind {self.kind!r}: take one of {', '.join(KINDS)}")
        checked_effort(self.effort)
        _within("links", self.links, least=2, most=512)
        _within("build_effort", self.build_effort, least=1, most=65536)
        _within("lists", self.lists, least=0, most=1 << 24)
        _within("codes", self.codes, least=0, most=1 << 16)
        _within("code_bits", self.code_bits, least=4, most=8)

    def sized(self, count: int, dimension: int) -> "IndexSpec":
        """Return it with the sizes that were left open chosen for so many rows.

        Raises:
            SpecError: the codes do not divide the dimension.
        """
        if self.kind == "ivfpq" and self.codes and dimension % self.codes:
            raise SpecError(f"{self.codes} codes do not divide the dimension {dimension}: leave them 0")
        lists = self.lists or (_lists(count) if self.kind in {"ivf", "ivfpq"} else 0)
        codes = self.codes or (_codes(dimension) if self.kind == "ivfpq" else 0)
        return replace(self, lists=lists, codes=codes)

    def least_rows(self) -> int:
        """Return the rows that a structure of these sizes needs to be trained; fewer are searched exactly."""
        codes = 1 << self.code_bits if self.kind == "ivfpq" else 1
        return max(1, self.lists, codes)

    def probes(self, effort: float) -> int:
        """Return the lists that a search looks into (ivf, ivfpq): lists^effort, so 1 at effort 0 and all at 1."""
        return max(1, round(math.pow(self.lists, checked_effort(effort))))

    def beam(self, effort: float, k: int) -> int:
        """Return the candidates that a walk of the graph keeps (hnsw, efSearch): 16 x 256^effort, at least k."""
        return max(k, round(16 * math.pow(256, checked_effort(effort))))

    def depth(self, effort: float, k: int) -> int:
        """Return how many candidates are scored by their stored rows: k and a few; for ivfpq from 4k up to 64k."""
        return math.ceil(4 * k * math.pow(16, checked_effort(effort))) if self.kind == "ivfpq" else k + 8

    def describe(self) -> str:
        """Return the kind and the sizes that matter for it, and why it was chosen, in words."""
        sizes = {
            "exact": "",
            "hnsw": f", {self.links} links a row",
            "ivf": f", {self.lists or 'open'} lists",
            "ivfpq": f", {self.lists or 'open'} lists, {self.codes or 'open'} codes of {self.code_bits} bits a row",
        }[self.kind]
        return f"{self.kind}{sizes}" + (f": {self.reason}" if self.reason else "")


def choose_spec(
    count: int, dimension: int, *, memory: int | None = None, device: Literal["cpu", "cuda"] = "cpu"
) -> IndexSpec:
    """Return the spec for `count` rows within `memory` bytes (None: no limit), with its reason.

    Exact while reading every row is quick; then the structure of best recall that fits; exact again where none does,
    because on a CPU it needs nothing beside the rows.

    Raises:
        SpecError: a negative count or memory or a dimension below 1; or nothing fits on the GPU.
    """
    if count < 0 or dimension < 1 or (memory is not None and memory < 0):
        raise SpecError(f"no index of {count} rows of dimension {dimension} in {memory} bytes: these must be positive")

    def size(spec: IndexSpec) -> int:
        return predicted_bytes(spec, count, dimension, device=device)

    exact = IndexSpec("exact", reason=f"{count:,} rows of {dimension} are read whole in milliseconds, without error")
    quick = EXACT_NUMBERS if device == "cpu" else EXACT_NUMBERS_GPU
    if count * dimension <= quick and (memory is None or size(exact) <= memory):
        return exact
    order: tuple[Kind, ...] = ("hnsw", "ivf", "ivfpq") if device == "cpu" else ("ivf", "ivfpq")
    for kind in order:
        needed = size(IndexSpec(kind))
        if memory is None or needed <= memory:
            within = "" if memory is None else f" of {_size(memory)}"
            slow = f"{count:,} rows of {dimension} are too many to read whole for each query"
            return IndexSpec(kind, reason=f"{slow}; it takes {_size(needed)}{within}")
    if device == "cuda":
        raise SpecError(
            f"no index of {count:,} rows of {dimension} fits in {_size(memory)} of the GPU: use device='cpu'"
        )
    return replace(exact, reason=f"no structure over {count:,} rows of {dimension} fits in {_size(memory)}")


def spec_for_here(count: int, dimension: int, *, device: Literal["cpu", "cuda"] = "cpu") -> IndexSpec:
    """Return the spec that `choose_spec` chooses within half of this machine's memory; a GPU says itself what it holds.

    Raises:
        SpecError: as there.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2 if device == "cpu" else None
    return choose_spec(count, dimension, memory=memory, device=device)


def predicted_bytes(spec: IndexSpec, count: int, dimension: int, *, device: Literal["cpu", "cuda"] = "cpu") -> int:
    """Return the bytes that the structure takes beside the rows, in memory and in its file alike, within a tenth.

    From FAISS's own layouts: a graph holds the row, 2 x links at the bottom and links on each higher floor, which one
    row in `links` reaches; a list holds an id and the row or its code. `exact` holds the rows on a GPU, and nothing
    on a CPU.
    """
    sized = spec.sized(count, dimension)
    row = dimension * FLOAT
    if sized.kind == "exact":
        return count * (row + SLOT) if device == "cuda" else 0
    if sized.kind == "hnsw":
        upper = sized.links / (sized.links - 1)
        return round(count * (row + (2 * sized.links + upper) * LINK + 2 * SLOT + LINK + SLOT))
    stored = row if sized.kind == "ivf" else math.ceil(sized.codes * sized.code_bits / 8)
    tables = (1 << sized.code_bits) * row if sized.kind == "ivfpq" else 0
    return count * (stored + 2 * SLOT) + sized.lists * (row + 2 * SLOT) + tables


def checked_effort(effort: Any) -> float:
    """Return the effort.

    Raises:
        SpecError: it is no number in [0, 1].
    """
    if not isinstance(effort, Real) or not 0 <= float(effort) <= 1:
        raise SpecError(f"effort is {effort!r}: it goes from 0 (quick) to 1 (thorough)")
    return float(effort)


def _within(name: str, value: int, *, least: int, most: int) -> None:
    if not least <= value <= most:
        raise SpecError(f"{name} is {value}: it goes from {least} to {most}")


def _lists(count: int) -> int:
    """About 4 sqrt(n), the middle of the range that FAISS's guidelines give, if there are rows enough to train them."""
    return max(1, min(round(4 * math.sqrt(count)), count // ROWS_A_LIST))


def _codes(dimension: int) -> int:
    """The most codes of at least four numbers each that a GPU takes too; else one code a number."""
    for codes in GPU_CODES:
        if dimension % codes == 0 and dimension // codes in GPU_PARTS:
            return codes
    return dimension


def _size(count: int | None) -> str:
    return f"{(count or 0) / 2**20:,.0f} MiB"
