"""Which texts of a batch are right for which pictures, and what a loss does with those besides each picture's own."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Positives:
    """The right texts of a batch, in memory that grows with the batch and not with its square.

    Attributes:
        texts: (b,) the kind of the text drawn for each picture, counted from 0; equal texts are of one kind.
        pictures: (m,) pictures, ascending, each as often as there are kinds that are right for it.
        kinds: (m,) which.
    """

    texts: Tensor
    pictures: Tensor
    kinds: Tensor

    @classmethod
    def from_texts(cls, texts: Sequence[int], right: Sequence[Sequence[int]]) -> "Positives":
        """The positives of a batch whose texts and right texts are numbered in any way, in the batch or not."""
        kinds: dict[int, int] = {}
        drawn = [kinds.setdefault(text, len(kinds)) for text in texts]
        found = [
            sorted({own, *(kinds[text] for text in numbers if text in kinds)})
            for own, numbers in zip(drawn, right, strict=True)
        ]
        counts = torch.tensor([len(numbers) for numbers in found])
        pictures = torch.repeat_interleave(torch.arange(len(found)), counts)
        return cls(torch.tensor(drawn), pictures, torch.tensor(list(chain.from_iterable(found))))

    def __len__(self) -> int:
        return len(self.texts)

    def rows(self, start: int, stop: int) -> Tensor:
        """The matrix's rows of the pictures from `start` to `stop`: boolean (stop - start, b)."""
        first, last = torch.searchsorted(self.pictures, torch.tensor([start, stop], device=self.pictures.device))
        table = torch.zeros(stop - start, int(self.texts.max()) + 1, dtype=torch.bool, device=self.texts.device)
        table[self.pictures[first:last] - start, self.kinds[first:last]] = True
        return table[:, self.texts]

    def matrix(self) -> Tensor:
        """The whole matrix, boolean (b, b): [i, j] says that text j is right for picture i."""
        return self.rows(0, len(self))

    def to(self, device: str) -> "Positives":
        """The same on a device."""
        return Positives(self.texts.to(device), self.pictures.to(device), self.kinds.to(device))


def right_rows(positives: Tensor | Positives | None, start: int, stop: int) -> Tensor | None:
    """Rows (stop - start, b) of a matrix in either form, its diagonal true; None where only the diagonal is."""
    if positives is None:
        return None
    rows = positives.rows(start, stop) if isinstance(positives, Positives) else positives[start:stop].clone()
    rows[torch.arange(stop - start), torch.arange(start, stop)] = True
    return rows


def without_own(right: Tensor, start: int = 0) -> Tensor:
    """A copy of these rows of the matrix, from row `start` on, without the diagonal."""
    others = right.clone()
    others[torch.arange(len(right)), torch.arange(start, start + len(right))] = False
    return others
