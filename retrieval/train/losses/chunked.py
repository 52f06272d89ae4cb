"""The losses in memory that grows with the batch times the chunk: equal to the plain forms in value and gradient.

The scores are computed for some pictures at a time against all texts, first to see what each row and column comes to,
where the loss needs that, and then once more for the slopes of the loss along the scores, from which follow the
gradients; no more than a chunk of them is ever there. Gao et al. 2021 (arXiv 2101.06983) keep the towers small this way
and the loss whole; here it is the loss.
"""

from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from retrieval.train.config import Others
from retrieval.train.losses.gradients import ContrastiveSlopes, SigmoidSlopes, TripletSlopes
from retrieval.train.losses.positives import Positives, right_rows

_SCORES = 1 << 22  # of a chunk, where nobody says: 16 MB in float32, and about three times that in use


class Slopes(Protocol):
    """A loss as the chunks of its scores (c, b) come by, `start` being the first one's picture."""

    needs_look: bool

    def look(self, scores: Tensor, right: Tensor | None, start: int) -> None:
        """See a chunk before any slope is asked for."""

    def of(self, scores: Tensor, right: Tensor | None, start: int) -> tuple[Tensor, Tensor]:
        """The chunk's part of the loss, and the slopes (c, b) of the loss along its scores, which it may overwrite."""


def contrastive(
    images: Tensor,
    texts: Tensor,
    *,
    scale: Tensor,
    positives: Tensor | Positives | None = None,
    others: Others = "mask",
    smoothing: float = 0.0,
    weights: Tensor | None = None,
    chunk: int | None = None,
) -> Tensor:
    """`losses.contrastive`, for `chunk` pictures at a time; as many as make 16 MB of scores where None."""
    shares = _shares(weights, images)
    slopes = ContrastiveSlopes(shares, others=others, smoothing=smoothing)
    return _loss(
        images, texts, scale=scale, bias=None, positives=_besides(positives, others), slopes=slopes, chunk=chunk
    )


def sigmoid(
    images: Tensor,
    texts: Tensor,
    *,
    scale: Tensor,
    bias: Tensor,
    positives: Tensor | Positives | None = None,
    others: Others = "mask",
    weights: Tensor | None = None,
    chunk: int | None = None,
) -> Tensor:
    """`losses.sigmoid`, for `chunk` pictures at a time; as many as make 16 MB of scores where None."""
    slopes = SigmoidSlopes(_shares(weights, images), others=others)
    return _loss(
        images, texts, scale=scale, bias=bias, positives=_besides(positives, others), slopes=slopes, chunk=chunk
    )


def triplet(
    images: Tensor,
    texts: Tensor,
    *,
    margin: float,
    positives: Tensor | Positives | None = None,
    others: Others = "mask",
    weights: Tensor | None = None,
    chunk: int | None = None,
) -> Tensor:
    """`losses.triplet`, for `chunk` pictures at a time; as many as make 16 MB of scores where None."""
    slopes = TripletSlopes(_shares(weights, images), others=others, margin=margin)
    return _loss(
        images, texts, scale=None, bias=None, positives=_besides(positives, others), slopes=slopes, chunk=chunk
    )


def _besides(positives: Tensor | Positives | None, others: Others) -> Tensor | Positives | None:
    return None if others == "own" else positives


def _shares(weights: Tensor | None, images: Tensor) -> Tensor:
    """What each pair (b,) counts in a sum that is the mean."""
    if weights is None:
        return images.new_full((len(images),), 1 / len(images))
    weights = weights.to(images)
    return weights / weights.sum().clamp_min(torch.finfo(images.dtype).tiny)


def _loss(
    images: Tensor,
    texts: Tensor,
    *,
    scale: Tensor | None,
    bias: Tensor | None,
    positives: Tensor | Positives | None,
    slopes: Slopes,
    chunk: int | None,
) -> Tensor:
    scale = images.new_ones(()) if scale is None else scale.reshape(())
    bias = images.new_zeros(()) if bias is None else bias.reshape(())
    chunk = chunk or max(1, _SCORES // len(images))
    return cast("Tensor", _Chunked.apply(images, texts, scale, bias, _Work(slopes, positives, chunk)))


class _Work(NamedTuple):
    """What is computed besides the tensors that gradients flow to."""

    slopes: Slopes
    positives: Tensor | Positives | None
    chunk: int


class _Chunked(torch.autograd.Function):
    """The gradients are computed together with the value: they need the same scores."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        images, texts, scale, bias, work = inputs
        value, gradients = _evaluated(images, texts, scale, bias=bias, work=work, graded=any(ctx.needs_input_grad))
        ctx.save_for_backward(*gradients)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Any) -> Any:
        return (*(upstream[0] * gradient for gradient in ctx.saved_tensors), None)


def _evaluated(
    images: Tensor, texts: Tensor, scale: Tensor, *, bias: Tensor, work: _Work, graded: bool
) -> tuple[Tensor, list[Tensor]]:
    """The loss, and its gradients along images, texts, scale and bias, or none."""
    slopes, chunk = work.slopes, work.chunk
    starts = range(0, len(images), chunk)

    def scored(start: int) -> tuple[Tensor, Tensor | None]:
        part = images[start : start + chunk]
        scores = (part @ texts.T).mul_(scale).add_(bias)
        return scores, right_rows(work.positives, start, start + len(part))

    if slopes.needs_look:
        for start in starts:
            slopes.look(*scored(start), start)
    value, along_bias = images.new_zeros(()), images.new_zeros(())
    along_images, along_texts = torch.empty_like(images), torch.zeros_like(texts)
    for start in starts:
        cost, steep = slopes.of(*scored(start), start)
        value += cost
        if graded:
            along_bias += steep.sum()
            torch.mm(steep, texts, out=along_images[start : start + chunk])
            along_texts.addmm_(steep.T, images[start : start + chunk])
    if not graded:
        return value, []
    along_scale = (along_images * images).sum()
    return value, [
        along_images.mul_(scale),
        along_texts.mul_(scale),
        along_scale.to(scale.dtype),
        along_bias.to(bias.dtype),
    ]
