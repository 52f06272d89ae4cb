"""Both towers of a model in training; the features of a frozen tower are computed once for the whole run."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from retrieval.concurrency import prefetch_map
from retrieval.encoder.features import count_used_tokens
from retrieval.encoder.text_towers import encode_truncated, find_causal_tower, find_end_token
from retrieval.images import ImageSource
from retrieval.train.data.image_cache import reopen_image
from retrieval.train.model.item_dropout import select_items
from retrieval.train.model.param_groups import Side, find_head, get_tower, is_frozen, set_train_mode

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from index.vectors import Rows
    from retrieval.encoder.open_clip_encoder import OpenClipEncoder
    from retrieval.train.data.loader import Batch

_MIN_HALF: Final = 32  # texts that are encoded together at least; twice that is split into short and long ones
_PRECOMPUTE_BATCH: Final = 64

Encode = Callable[[Any], Tensor]
Progress = Callable[[int], None]


class Towers:
    """A model's two towers, from a batch to unit rows (b, d).

    The features of a frozen tower, or of one of which only the head is trained, can be computed once: of whole images,
    as in inference.
    """

    def __init__(self, model: Any, *, device: str, mean: Sequence[float], std: Sequence[float]) -> None:
        self.model, self.device = model, device
        self._mean, self._std = (255 * torch.tensor(values, device=device).reshape(-1, 1, 1) for values in (mean, std))
        # (n, f) by number in the dataset, and the head that maps features to rows, if they are not rows yet.
        self._precomputed: dict[Side, tuple[Tensor, Encode | None]] = {}

    def encode(self, side: Side, batch: "Batch", part: slice = slice(None)) -> Tensor:
        """Return unit rows of a part of the batch's images or texts."""
        if side in self._precomputed:
            return self._encode_precomputed(side, (batch.images if side == "image" else batch.texts)[part])
        return _normalize(self._encode_inputs(side, (batch.pixels if side == "image" else batch.tokens)[part]))

    def _encode_precomputed(self, side: Side, numbers: NDArray[np.int64]) -> Tensor:
        features, head = self._precomputed[side]
        chosen = features[torch.from_numpy(numbers).to(features.device)]
        return _normalize(chosen if head is None else head(chosen))

    def _encode_inputs(self, side: Side, inputs: NDArray[Any]) -> Tensor:
        if side == "text":
            return encode_tokens(self.model, inputs, device=self.device)
        return cast("Tensor", self.model.encode_image(self.normalize_pixels(inputs)))

    def normalize_pixels(self, pixels: NDArray[np.uint8]) -> Tensor:
        """Return the model's input (b, 3, height, width), with the channels last in memory as the bytes are."""
        values = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2).float()
        return (values - self._mean) / self._std

    def can_precompute(self, side: Side) -> bool:
        """Return whether features of this side's images or texts can be computed once for a whole run."""
        has_head = find_head(get_tower(self.model, side)) is not None
        return is_frozen(self.model, side, ignore_head=has_head)

    def precompute_images(
        self,
        sources: Sequence[ImageSource],
        encoder: "OpenClipEncoder",
        *,
        threads: int | None,
        progress: Progress | None = None,
    ) -> None:
        """Compute the frozen tower's features of these images; call `progress` with the number done after each batch.

        Raises:
            TrainingError: one of them can no longer be read.
        """

        def prepare(source: ImageSource) -> NDArray[np.uint8]:
            return encoder.prepare(reopen_image(source, size=encoder.image_size))

        with closing(prefetch_map(prepare, sources, threads=threads)) as images:
            self.precompute("image", images, progress=progress)

    @torch.no_grad()
    def precompute(self, side: Side, inputs: Iterable[NDArray[Any]], *, progress: Progress | None = None) -> None:
        """Compute the frozen tower's features of images (height, width, 3) or tokens (context length,), one by one."""
        without_head: AbstractContextManager[Encode | None] = nullcontext()
        if not is_frozen(self.model, side):
            without_head = _detach_head(get_tower(self.model, side))
        remaining, done = iter(inputs), 0
        features: list[Tensor] = []
        self.model.eval()
        with without_head as head:
            while batch := list(islice(remaining, _PRECOMPUTE_BATCH)):
                features.append(self._encode_inputs(side, np.stack(batch)))
                done += len(batch)
                if progress is not None:
                    progress(done)
        set_train_mode(self.model)
        self._precomputed[side] = torch.cat(features), head

    @torch.no_grad()
    def precomputed_rows(self, side: Side) -> "Rows | None":
        """Return unit rows of all images or texts of a frozen tower, with the head as it is; None for other towers."""
        if side not in self._precomputed:
            return None
        numbers = np.arange(len(self._precomputed[side][0]))
        rows: Rows = self._encode_precomputed(side, numbers).float().cpu().numpy()
        return rows


def encode_tokens(model: Any, tokens: NDArray[np.int64], *, device: str) -> Tensor:
    """Return rows (b, d) of texts; where padding can be cut off, the short half is encoded apart from the long one."""
    tower = find_causal_tower(model)
    if tower is None:
        return cast("Tensor", model.encode_text(torch.from_numpy(tokens).to(device)))
    lengths = count_used_tokens(tokens, find_end_token(tower))
    order = np.argsort(lengths, kind="stable")
    rows = []
    for part in np.array_split(order, 2 if len(order) >= 2 * _MIN_HALF else 1):
        with select_items(part):
            rows.append(encode_truncated(tower, torch.from_numpy(tokens[part, : lengths[part].max()]).to(device)))
    return torch.cat(rows).index_select(0, torch.from_numpy(np.argsort(order)).to(device))


@contextmanager
def _detach_head(tower: Any) -> Iterator[Encode]:
    """Remove a tower's head within a `with` block, whose value is the function that applies it."""
    name = cast("str", find_head(tower))
    head = getattr(tower, name)
    setattr(tower, name, None if name == "text_projection" or isinstance(head, nn.Parameter) else nn.Identity())
    try:
        yield head if isinstance(head, nn.Module) else lambda features: features @ head
    finally:
        setattr(tower, name, head)


def _normalize(rows: Tensor) -> Tensor:
    return functional.normalize(rows.to(torch.promote_types(rows.dtype, torch.float32)), dim=-1)
