"""Contrastive losses between pictures and texts: pure functions of the two towers' unit rows.

Every loss takes the rows of a batch, picture i beside the text that was drawn for it, and a matrix that says which
other texts of the batch are right for which pictures as well, so that what belongs together is never pushed apart.
"""

import torch
from torch import Tensor
from torch.nn import functional


def contrastive(images: Tensor, texts: Tensor, *, scale: Tensor, positives: Tensor | None = None) -> Tensor:
    """The mean, over both directions, of how badly each picture picks its text and each text its picture (InfoNCE).

    With s = scale · images · textsᵀ and N(i) the texts that are wrong for picture i,

        picture i → text:  -log( exp(s_ii) / (exp(s_ii) + Σ_{j in N(i)} exp(s_ij)) )

    and likewise from the texts. Other right texts are left out of the sum: neither pushed away nor pulled closer,
    because a text that another picture of the same item came with may fit this one only in part. Where there are none
    this is the loss of CLIP (Radford et al. 2021, arXiv 2103.00020, figure 3); leaving out is the "elimination" of
    Huynh et al. 2022, "Boosting Contrastive Self-Supervised Learning with False Negative Cancellation" (arXiv
    2011.11765).

    Args:
        images: unit rows (b, d).
        texts: unit rows (b, d); row i was drawn for picture i.
        scale: the inverse temperature, a scalar that has been exponentiated already.
        positives: boolean (b, b); [i, j] says that text j is right for picture i. The diagonal always counts as true.

    Returns:
        A scalar; 0 where nothing in the batch is wrong for anything.
    """
    scores = scale * images @ texts.T  # (b, b): a row for each picture
    if positives is not None:
        scores = scores.masked_fill(_others(positives), float("-inf"))
    own = torch.arange(len(scores), device=scores.device)
    return (functional.cross_entropy(scores, own) + functional.cross_entropy(scores.T, own)) / 2


def _others(positives: Tensor) -> Tensor:
    """The right texts besides each picture's own."""
    return positives & ~torch.eye(len(positives), dtype=torch.bool, device=positives.device)
