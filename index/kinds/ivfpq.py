"""ivfpq: lists of rows that are compressed by product quantisation (Jégou et al. 2011, TPAMI 33(1))."""

import math
from dataclasses import dataclass, replace
from typing import Any, Self

from index.device import Device
from index.errors import SpecError
from index.kinds.ivf import Ivf

TRAINING_ROWS_PER_CODE = 64
GPU_CODES = (96, 64, 56, 48, 40, 32, 28, 24, 20, 16, 12, 8, 4, 3, 2, 1)  # codes a row that a GPU can hold,
GPU_SUBVECTORS = (4, 6, 8, 10, 12, 16, 20, 24, 28, 32)  # and numbers a code may stand for; below 4 is wasteful
GPU_CODE_BITS = 8


@dataclass(frozen=True, slots=True)
class IvfPq(Ivf):
    """An inverted file of product-quantised rows."""

    codes: int
    code_bits: int

    factory = "IVF{lists},PQ{codes}x{code_bits}"
    float16_on_gpu = True  # lookup tables of 56 codes and more fit no other way

    def choose_sizes(self, count: int, dimension: int, *, device: Device = "cpu") -> Self:
        """Choose the codes too: the most of at least four numbers each that a GPU takes, else one code a number."""
        if self.codes and dimension % self.codes:
            raise SpecError(f"{self.codes} codes do not divide the dimension {dimension}. Leave codes 0.")
        fitting = (codes for codes in GPU_CODES if dimension % codes == 0 and dimension // codes in GPU_SUBVECTORS)
        codes = self.codes or next(fitting, dimension)
        return replace(Ivf.choose_sizes(self, count, dimension, device=device), codes=codes)

    def configure(self, index: Any) -> None:
        """Skip polysemous training: 60 s of training instead of 13, for a way of searching not used here."""
        Ivf.configure(self, index)
        index.pq.cp.min_points_per_centroid = 1
        index.do_polysemous_training = False

    def training_rows(self) -> int:
        """Return what centroids and codes need."""
        return max(Ivf.training_rows(self), TRAINING_ROWS_PER_CODE << self.code_bits)

    def estimate_bytes(self, count: int, dimension: int, *, device: Device) -> int:
        """Count ids, codes, centroids and codebooks."""
        kind = self.choose_sizes(count, dimension, device=device)
        code_bytes = math.ceil(kind.codes * kind.code_bits / 8)
        return count * (code_bytes + 16) + kind.lists * (dimension * 4 + 16) + (1 << kind.code_bits) * dimension * 4

    def gpu_problem(self) -> str:
        """Limit the size of a code too."""
        if self.code_bits == GPU_CODE_BITS:
            return Ivf.gpu_problem(self)
        return f"Codes of {self.code_bits} bits do not fit a GPU, which takes 8 bits only. Leave code_bits 8."

    def min_rows(self) -> int:
        """Return one for each list, and for each value of a code."""
        return max(Ivf.min_rows(self), 1 << self.code_bits)

    def depth(self, effort: float, k: int) -> int:
        """Score more than the results, since codes rank roughly: from 4k at effort 0 to 64k at 1."""
        return math.ceil(4 * k * math.pow(16, effort))

    def scores_every_row(self, effort: float) -> bool:  # noqa: ARG002
        """Return False: products with codes are rough."""
        return False
