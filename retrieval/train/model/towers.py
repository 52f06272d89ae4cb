"""Both sides of a model as training runs them: what is frozen is computed once for the whole run, and kept."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from retrieval.concurrency import prefetch_map
from retrieval.encoder.text_towers import causal_tower, encode_cut, used_lengths
from retrieval.errors import RetrievalError
from retrieval.images import ImageSource, open_image
from retrieval.train.data.image_cache import lost_image_error
from retrieval.train.model.item_dropout import select_items
from retrieval.train.model.param_groups import Side, find_head, get_tower, is_frozen, set_train_mode

if TYPE_CHECKING:
    from index.vectors import Rows
    from retrieval.encoder.open_clip_encoder import OpenClipEncoder
    from retrieval.train.data.loader import Batch

_EVEN_TEXTS: Final = 32  # texts that are encoded together at least, so that short ones need not wait for long ones
_KEPT_BATCH: Final = 64  # pictures or texts that are computed together for keeping

Encode = Callable[[Any], Tensor]
Done = Callable[[int], None]


def _nobody(_done: int) -> None:
    """Nobody waits to hear how far it is."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What a frozen tower, or all of it but its head, makes of every picture or text of a run.

    Attributes:
        features: (n, f) by picture or text number of the dataset.
        head: takes features to rows of the shared space; None where the features are such rows.
    """

    features: Tensor
    head: Encode | None

    def rows(self, numbers: NDArray[np.int64]) -> Tensor:
        """Unit rows (b, d)."""
        features = self.features[torch.from_numpy(numbers).to(self.features.device)]
        return _unit(features if self.head is None else self.head(features))


class Towers:
    """A model's two sides, from an batch to unit rows (b, d).

    Where a tower is frozen its pictures are seen as the finished model sees them, without transform, once.
    """

    def __init__(self, model: Any, *, device: str, mean: Sequence[float], deviation: Sequence[float]) -> None:
        self.model, self.device = model, device
        self._mean, self._deviation = (
            255 * torch.tensor(values, device=device).reshape(-1, 1, 1) for values in (mean, deviation)
        )
        self._kept: dict[Side, Kept] = {}

    def can_precompute(self, side: Side) -> bool:
        """Whether what this side makes of pictures or texts can be computed once for a whole run."""
        splits = find_head(get_tower(self.model, side)) is not None
        return is_frozen(self.model, side) or (splits and is_frozen(self.model, side, but_head=True))

    def image_rows(self, batch: "Batch", part: slice = slice(None)) -> Tensor:
        """Unit rows of an batch's pictures."""
        kept = self._kept.get("image")
        if kept is not None:
            return kept.rows(batch.images[part])
        return _unit(self.model.encode_image(self.pixels(batch.pixels[part])))

    def text_rows(self, batch: "Batch", part: slice = slice(None)) -> Tensor:
        """Unit rows of an batch's texts."""
        kept = self._kept.get("text")
        if kept is not None:
            return kept.rows(batch.texts[part])
        return _unit(encode_texts(self.model, batch.tokens[part], device=self.device))

    def precomputed_rows(self, side: Side) -> "Rows | None":
        """Unit rows of all pictures or texts of a frozen tower, as the head is now; None where they are not kept."""
        kept = self._kept.get(side)
        if kept is None:
            return None
        with torch.no_grad():
            rows: Rows = kept.rows(np.arange(len(kept.features))).float().cpu().numpy()
        return rows

    def precompute_images(
        self, sources: Sequence[ImageSource], encoder: "OpenClipEncoder", *, threads: int | None, kept: Done = _nobody
    ) -> None:
        """Compute what the frozen tower makes of these pictures; `kept` is told after each few how many are done.

        Raises:
            TrainingError: one of them can no longer be read.
        """

        def prepared(source: ImageSource) -> NDArray[np.uint8]:
            try:
                return encoder.prepare(open_image(source.read(), size=encoder.image_size))
            except RetrievalError as error:
                raise lost_image_error(source, error) from error

        with closing(prefetch_map(prepared, sources, threads=threads)) as pictures:
            self._keep(
                "image", pictures, lambda batch: self.model.encode_image(self.pixels(np.stack(batch))), kept=kept
            )

    def precompute_texts(self, tokens: Iterator[NDArray[np.int64]], *, kept: Done = _nobody) -> None:
        """Compute what the frozen tower makes of these texts; `kept` is told after each few how many are done."""
        self._keep(
            "text", tokens, lambda batch: encode_texts(self.model, np.stack(batch), device=self.device), kept=kept
        )

    def _keep(self, side: Side, inputs: Iterator[Any], encode: Encode, *, kept: Done = _nobody) -> None:
        whole = is_frozen(self.model, side)
        self.model.eval()
        with torch.no_grad():
            if whole:
                head, features = None, list(_encoded(inputs, encode, kept))
            else:
                with _headless(get_tower(self.model, side)) as head:
                    features = list(_encoded(inputs, encode, kept))
        set_train_mode(self.model)
        self._kept[side] = Kept(torch.cat(features), head)

    def pixels(self, pixels: NDArray[np.uint8]) -> Tensor:
        """The model's input (b, 3, height, width), with the channels last in memory as the bytes are."""
        values = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2).float()
        return (values - self._mean) / self._deviation


def encode_texts(model: Any, tokens: NDArray[np.int64], *, device: str) -> Tensor:
    """Rows of texts (b, d), of any length. Where padding can be cut off the short half does not wait for the long."""
    tower = causal_tower(model)
    if tower is None:
        return cast("Tensor", model.encode_text(torch.from_numpy(tokens).to(device)))
    lengths = used_lengths(tower, tokens)
    order = np.argsort(lengths, kind="stable")
    parts = np.array_split(order, 2 if len(order) >= 2 * _EVEN_TEXTS else 1)
    rows = []
    for part in parts:
        with select_items(part):
            rows.append(encode_cut(tower, torch.from_numpy(tokens[part, : lengths[part].max()]).to(device)))
    return torch.cat(rows).index_select(0, torch.from_numpy(np.argsort(order)).to(device))


@contextmanager
def _headless(tower: Any) -> Iterator[Encode]:
    """Take a tower's head off for a while; given is what the head does."""
    name = cast("str", find_head(tower))
    head = getattr(tower, name)
    setattr(tower, name, None if name == "text_projection" or isinstance(head, nn.Parameter) else nn.Identity())
    try:
        yield head if isinstance(head, nn.Module) else lambda features: features @ head
    finally:
        setattr(tower, name, head)


def _unit(rows: Tensor) -> Tensor:
    return functional.normalize(rows.to(torch.promote_types(rows.dtype, torch.float32)), dim=-1)


def _encoded(inputs: Iterator[Any], encode: Encode, kept: Done) -> Iterator[Tensor]:
    done = 0
    for batch in _batches(inputs):
        yield encode(batch)
        done += len(batch)
        kept(done)


def _batches(inputs: Iterator[Any]) -> Iterator[list[Any]]:
    batch: list[Any] = []
    for one in inputs:
        batch.append(one)
        if len(batch) == _KEPT_BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
