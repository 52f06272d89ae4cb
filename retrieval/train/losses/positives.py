"""Which texts of a batch are right for which images."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Positives:
    """The matrix of positives of a batch, in memory that grows with the batch and not with its square."""

    texts: Tensor  # (b,), id of the text drawn for each image, counted from 0; equal texts share an id
    images: Tensor  # (m,), images, ascending, each as often as there are text ids that are right for it
    positive_texts: Tensor  # (m,), those ids

    @classmethod
    def from_texts(cls, texts: Sequence[int], positives: Sequence[Sequence[int]]) -> "Positives":
        """Return the positives of a batch from each image's drawn text and its right texts, by numbers of any kind."""
        ids: dict[int, int] = {}
        drawn = [ids.setdefault(text, len(ids)) for text in texts]
        found = [
            sorted({own, *(ids[text] for text in right if text in ids)})
            for own, right in zip(drawn, positives, strict=True)
        ]
        counts = torch.tensor([len(right) for right in found])
        images = torch.repeat_interleave(torch.arange(len(found)), counts)
        return cls(torch.tensor(drawn), images, torch.tensor(list(chain.from_iterable(found))))

    def __len__(self) -> int:
        return len(self.texts)

    def rows(self, start: int, stop: int) -> Tensor:
        """Return rows (stop - start, b) of the boolean matrix: [i, j] says that text j is right for image i."""
        first, last = torch.searchsorted(self.images, torch.tensor([start, stop], device=self.images.device))
        table = torch.zeros(stop - start, int(self.texts.max()) + 1, dtype=torch.bool, device=self.texts.device)
        table[self.images[first:last] - start, self.positive_texts[first:last]] = True
        return table[:, self.texts]

    def to(self, device: str) -> "Positives":
        """Return the same on a device."""
        return Positives(self.texts.to(device), self.images.to(device), self.positive_texts.to(device))


def positive_rows(positives: Tensor | Positives | None, start: int, stop: int) -> Tensor | None:
    """Return rows (stop - start, b) of the matrix with its diagonal set; None where only the diagonal is."""
    if positives is None:
        return None
    rows = positives.rows(start, stop) if isinstance(positives, Positives) else positives[start:stop].clone()
    rows.diagonal(start).fill_(value=True)
    return rows


def without_diagonal(positives: Tensor, start: int) -> Tensor:
    """Return a copy of these rows of the matrix, from row `start` on, with the diagonal cleared."""
    extra = positives.clone()
    extra.diagonal(start).fill_(value=False)
    return extra
