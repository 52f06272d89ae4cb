"""Computes a loss over all logits of a batch without ever holding more than a chunk of them.

1. Compute the logits of some images with all texts, chunk by chunk, for the statistics of rows and columns that the
   loss needs (`accumulate`).
2. Compute each chunk once more, for its part of the loss and of the gradient with respect to the logits
   (`loss_and_gradient`), and carry that gradient on to the rows, the scale and the bias.

Gao et al. 2021 (arXiv 2101.06983) keep the towers' memory small this way and the loss whole; here it is the loss.
"""

from typing import Any, Protocol, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from retrieval.train.losses.positives import Positives, positive_rows

_LOGITS_PER_CHUNK = 1 << 22  # by default: 16 MB in float32, and about three times that in use


class LogitGradients(Protocol):
    """A loss, given chunks of its logits (c, b); `start` is the first image of a chunk."""

    needs_statistics: bool

    def accumulate(self, logits: Tensor, positives: Tensor | None, start: int) -> None:
        """Add a chunk to the statistics, before any gradient is asked for."""

    def loss_and_gradient(self, logits: Tensor, positives: Tensor | None, start: int) -> tuple[Tensor, Tensor]:
        """Return the chunk's part of the loss, and its gradient (c, b) with respect to the logits, overwritten."""


def compute_in_chunks(
    images: Tensor,
    texts: Tensor,
    loss: LogitGradients,
    *,
    positives: Tensor | Positives | None,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
    chunk: int | None = None,
) -> Tensor:
    """Return a loss over scale · images · textsᵀ + bias, differentiable once; scale is 1 and bias 0 where None."""
    scale = images.new_ones(()) if scale is None else scale.reshape(())
    bias = images.new_zeros(()) if bias is None else bias.reshape(())
    chunk = chunk or max(1, _LOGITS_PER_CHUNK // len(images))
    return cast("Tensor", _ChunkedLoss.apply(images, texts, scale, bias, loss, positives, chunk))


class _ChunkedLoss(torch.autograd.Function):
    """The gradients are computed together with the value: they need the same logits."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        images, texts, scale, bias, loss, positives, chunk = inputs
        starts = range(0, len(images), chunk)

        def chunk_at(start: int) -> tuple[Tensor, Tensor | None, int]:
            logits = (images[start : start + chunk] @ texts.T).mul_(scale).add_(bias)
            return logits, positive_rows(positives, start, start + len(logits)), start

        if loss.needs_statistics:
            for start in starts:
                loss.accumulate(*chunk_at(start))
        value: Tensor = images.new_zeros(())
        grad_bias = images.new_zeros(())
        grad_images, grad_texts = torch.empty_like(images), torch.zeros_like(texts)
        for start in starts:
            part, grad_logits = loss.loss_and_gradient(*chunk_at(start))
            value += part
            if any(ctx.needs_input_grad):
                grad_bias += grad_logits.sum()
                torch.mm(grad_logits, texts, out=grad_images[start : start + chunk])
                grad_texts.addmm_(grad_logits.T, images[start : start + chunk])
        grad_scale = (grad_images * images).sum()
        ctx.save_for_backward(
            grad_images.mul_(scale), grad_texts.mul_(scale), grad_scale.to(scale.dtype), grad_bias.to(bias.dtype)
        )
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Any) -> Any:
        return (*(upstream[0] * gradient for gradient in ctx.saved_tensors), None, None, None)
