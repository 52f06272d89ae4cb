"""Losses between images and texts: pure functions of the unit rows of the two towers.

Every loss takes the rows of a batch, image i beside the text that was drawn for it, and `positives`, which says what
else in the batch is right, so that what belongs together need not be pushed apart: `extra` says what to do with it.
All three are computed in chunks, in memory that grows with the batch and not with its square. To add an objective,
describe its gradient in `gradients`, give it a function here, and name it in `compute_loss` and `config.LOSSES`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from retrieval.train.config import EXTRA_POSITIVES, ExtraPositives
from retrieval.train.losses.chunked import compute_in_chunks
from retrieval.train.losses.gradients import ContrastiveGradients, SigmoidGradients, TripletGradients
from retrieval.train.losses.positives import Positives

if TYPE_CHECKING:
    from retrieval.train.config import TrainConfig

__all__ = ["EXTRA_POSITIVES", "ExtraPositives", "Positives", "compute_loss", "contrastive", "sigmoid", "triplet"]


def compute_loss(
    model: Any, config: "TrainConfig", rows: Sequence[Tensor], *, positives: Positives, weights: Tensor | None = None
) -> Tensor:
    """Return the loss that a config names over a batch's rows of images and of texts, both (b, d)."""
    images, texts = rows
    targets: dict[str, Any] = {
        "positives": positives.to(str(images.device)),
        "extra": config.positives,
        "weights": None if weights is None else weights.to(images),
    }
    if config.loss == "triplet":
        return triplet(images, texts, margin=config.margin, **targets)
    scale = model.logit_scale.exp()
    if config.loss == "sigmoid":
        return sigmoid(images, texts, scale=scale, bias=model.logit_bias, **targets)
    return contrastive(images, texts, scale=scale, smoothing=config.label_smoothing, **targets)


def contrastive(
    images: Tensor,
    texts: Tensor,
    *,
    scale: Tensor,
    positives: Tensor | Positives | None = None,
    extra: ExtraPositives = "mask",
    smoothing: float = 0.0,
    weights: Tensor | None = None,
    chunk: int | None = None,
) -> Tensor:
    """Return the InfoNCE loss: the mean cross-entropy of each image picking its text and each text its image.

    With s = scale · images · textsᵀ, W(i) the texts that image i has to pick its own from, itself included, and R(i)
    those that are right for it,

        image i → text:  log Σ_{j in W(i)} exp(s_ij) − t_i,   t_i = s_ii,  or with "share" the mean of s_ij over R(i)

    and likewise from the texts. With "mask" W(i) lacks the extra positives: this is the "elimination" of Huynh et al.
    2022, "Boosting Contrastive Self-Supervised Learning with False Negative Cancellation" (arXiv 2011.11765). "share"
    is the multi-positive form of Khosla et al. 2020, "Supervised Contrastive Learning" (arXiv 2004.11362, L_out).
    Where there are none, or with "own", this is the loss of CLIP (Radford et al. 2021, arXiv 2103.00020, figure 3).

    Args:
        images: Unit rows (b, d).
        texts: Unit rows (b, d); row i was drawn for image i.
        scale: The inverse temperature, a scalar, exponentiated already.
        positives: Boolean (b, b), or its short form; [i, j] says that text j is right for image i. The diagonal always
            counts as true.
        extra: What to do with positives off the diagonal.
        smoothing: This fraction of each target is spread evenly over W(i), as in torch's `cross_entropy`.
        weights: (b,), weight of each pair in the mean, 0 or more; equal where None.
        chunk: Images whose logits are held at once; as many as make 16 MB of them where None.

    Returns:
        A scalar; 0 where nothing in the batch is wrong for anything.
    """
    loss = ContrastiveGradients(_normalize_weights(weights, images), extra=extra, smoothing=smoothing)
    return compute_in_chunks(
        images, texts, loss, positives=None if extra == "own" else positives, scale=scale, chunk=chunk
    )


def sigmoid(
    images: Tensor,
    texts: Tensor,
    *,
    scale: Tensor,
    bias: Tensor,
    positives: Tensor | Positives | None = None,
    extra: ExtraPositives = "mask",
    weights: Tensor | None = None,
    chunk: int | None = None,
) -> Tensor:
    """Return SigLIP's loss: each image and each text of the batch are told apart or together, pair by pair.

    With s = scale · images · textsᵀ + bias and z_ij = 1 for what belongs together and -1 for what does not,

        1/b Σ_ij log(1 + exp(-z_ij s_ij))

    of Zhai et al. 2023, "Sigmoid Loss for Language Image Pre-Training" (arXiv 2303.15343, equation 1). Of the extra
    positives "mask" leaves the terms out, "share" sets z to 1, and "own" to -1. A term's weight is the mean of its
    image's and its text's. The other arguments are those of `contrastive`; `bias` is a scalar, which the paper starts
    from -10, since nearly everything is wrong for everything.
    """
    loss = SigmoidGradients(_normalize_weights(weights, images), extra=extra)
    return compute_in_chunks(
        images, texts, loss, positives=None if extra == "own" else positives, scale=scale, bias=bias, chunk=chunk
    )


def triplet(
    images: Tensor,
    texts: Tensor,
    *,
    margin: float,
    positives: Tensor | Positives | None = None,
    extra: ExtraPositives = "mask",
    weights: Tensor | None = None,
    chunk: int | None = None,
) -> Tensor:
    """Return VSE++'s loss: how far the hardest negative comes within a margin of the own score, both ways.

    With s = images · textsᵀ and N(i) the texts that are wrong for image i,

        image i → text:  max(0, margin + max_{j in N(i)} s_ij − t_i),   t_i as in `contrastive`

    plus the same from the texts: the "max of hinges" of Faghri et al. 2018, "VSE++" (arXiv 1707.05612, equation 6),
    as a mean over the batch, so that the learning rate need not follow its size. The
    arguments are those of `contrastive`; `margin` is a cosine, 0.2 in the paper, and of the extra positives "mask" and
    "share" never take one for wrong, "own" does.
    """
    loss = TripletGradients(_normalize_weights(weights, images), extra=extra, margin=margin)
    return compute_in_chunks(images, texts, loss, positives=None if extra == "own" else positives, chunk=chunk)


def _normalize_weights(weights: Tensor | None, images: Tensor) -> Tensor:
    """Return weights (b,) that sum to 1, so that a weighted sum is the mean; zeros where all weights are 0."""
    if weights is None:
        return images.new_full((len(images),), 1 / len(images))
    weights = weights.to(images)
    return weights / weights.sum().clamp_min(torch.finfo(images.dtype).tiny)
