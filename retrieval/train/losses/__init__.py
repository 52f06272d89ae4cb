"""Losses between pictures and texts: pure functions of the two towers' unit rows.

Every loss takes the rows of a batch, picture i beside the text that was drawn for it, and says what it does with other
texts of the batch that are right for a picture as well (`positives`, `Others`), so that what belongs together is never
pushed apart. Pairs may have weights. Here are the plain forms, which hold all scores of a batch at once; `chunked` has
the same three, equal in value and gradient, in memory that grows with the batch and not with its square.
"""

import torch
from torch import Tensor
from torch.nn import functional

from retrieval.train.config import OTHERS, Others
from retrieval.train.losses.positives import Positives, right_rows, without_own

__all__ = ["OTHERS", "Others", "Positives", "contrastive", "sigmoid", "triplet"]


def contrastive(
    images: Tensor,
    texts: Tensor,
    *,
    scale: Tensor,
    positives: Tensor | Positives | None = None,
    others: Others = "mask",
    smoothing: float = 0.0,
    weights: Tensor | None = None,
) -> Tensor:
    """The mean, over both directions, of how badly each picture picks its text and each text its picture (InfoNCE).

    With s = scale · images · textsᵀ, W(i) the texts that picture i is told to tell its own from, itself included, and
    R(i) those that are right for it,

        picture i → text:  log Σ_{j in W(i)} exp(s_ij) − t_i,   t_i = s_ii,  or with "share" the mean of s_ij over R(i)

    and likewise from the texts. With "mask" W(i) lacks the other right ones: this is the "elimination" of Huynh et al.
    2022, "Boosting Contrastive Self-Supervised Learning with False Negative Cancellation" (arXiv 2011.11765). "share"
    is the multi-positive form of Khosla et al. 2020, "Supervised Contrastive Learning" (arXiv 2004.11362, L_out).
    Where there are none, or with "own", this is the loss of CLIP (Radford et al. 2021, arXiv 2103.00020, figure 3).

    Args:
        images: unit rows (b, d).
        texts: unit rows (b, d); row i was drawn for picture i.
        scale: the inverse temperature, a scalar that has been exponentiated already.
        positives: boolean (b, b), or its short form; [i, j] says that text j is right for picture i. The diagonal
            always counts as true.
        others: what to do with what is right besides the diagonal.
        smoothing: this share of each target is spread evenly over W(i), as torch's `cross_entropy` does.
        weights: (b,) what each pair counts in the mean, 0 or more; all alike where None.

    Returns:
        A scalar; 0 where nothing in the batch is wrong for anything.
    """
    scores = scale * images @ texts.T  # (b, b): a row for each picture
    right = None if others == "own" else right_rows(positives, 0, len(scores))
    ways = ((scores, right), (scores.T, None if right is None else right.T))
    there, back = (_picking(way, known, others, smoothing=smoothing) for way, known in ways)
    return _mean(there + back, weights) / 2


def sigmoid(
    images: Tensor,
    texts: Tensor,
    *,
    scale: Tensor,
    bias: Tensor,
    positives: Tensor | Positives | None = None,
    others: Others = "mask",
    weights: Tensor | None = None,
) -> Tensor:
    """How badly each picture and each text of the batch are told apart or together, one by one (SigLIP).

    With s = scale · images · textsᵀ + bias and z_ij = 1 for what belongs together and -1 for what does not,

        1/b Σ_ij log(1 + exp(-z_ij s_ij))

    of Zhai et al. 2023, "Sigmoid Loss for Language Image Pre-Training" (arXiv 2303.15343, equation 1). Of what is
    right besides the diagonal, "mask" leaves the terms out, "share" sets z to 1, and "own" to -1. A term's weight is
    the mean of its picture's and its text's.

    Args:
        images: unit rows (b, d).
        texts: unit rows (b, d); row i was drawn for picture i.
        scale: the inverse temperature, a scalar that has been exponentiated already.
        bias: a scalar; the paper starts from -10, since nearly everything is wrong for everything.
        positives: as in `contrastive`.
        others: as above.
        weights: as in `contrastive`.
    """
    scores = scale * images @ texts.T + bias
    right = None if others == "own" else right_rows(positives, 0, len(scores))
    own = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    together = right if right is not None and others == "share" else own
    terms = functional.softplus(torch.where(together, -scores, scores))
    if right is not None and others == "mask":
        terms = terms.masked_fill(right & ~own, 0.0)
    return _mean((terms.sum(1) + terms.sum(0)) / 2, weights)


def triplet(
    images: Tensor,
    texts: Tensor,
    *,
    margin: float,
    positives: Tensor | Positives | None = None,
    others: Others = "mask",
    weights: Tensor | None = None,
) -> Tensor:
    """How far the hardest wrong text of the batch comes within a margin of a picture's own, and the other way round.

    With s = images · textsᵀ and N(i) the texts that are wrong for picture i,

        picture i → text:  max(0, margin + max_{j in N(i)} s_ij − t_i),   t_i as in `contrastive`

    plus the same from the texts: the "max of hinges" of Faghri et al. 2018, "VSE++" (arXiv 1707.05612, equation 6),
    as a mean over the batch, so that the learning rate need not follow its size.

    Args:
        images: unit rows (b, d).
        texts: unit rows (b, d); row i was drawn for picture i.
        margin: a cosine; the paper takes 0.2.
        positives: as in `contrastive`.
        others: "mask" and "share" never take what is right for wrong, "own" does.
        weights: as in `contrastive`.
    """
    scores = images @ texts.T
    right = None if others == "own" else right_rows(positives, 0, len(scores))
    ways = ((scores, right), (scores.T, None if right is None else right.T))
    there, back = (_hinges(way, known, others, margin=margin) for way, known in ways)
    return _mean(there + back, weights)


def _picking(scores: Tensor, right: Tensor | None, others: Others, *, smoothing: float) -> Tensor:
    """What it costs each row (b,) to pick what is right for it out of the columns."""
    target, among = _target(scores, right, others), scores
    if right is not None and others == "mask":
        among = scores.masked_fill(without_own(right), float("-inf"))
    cost = among.logsumexp(1) - (1 - smoothing) * target
    if smoothing:
        allowed = torch.isfinite(among)
        cost = cost - smoothing * scores.where(allowed, 0.0).sum(1) / allowed.sum(1)
    return cost


def _hinges(scores: Tensor, right: Tensor | None, others: Others, *, margin: float) -> Tensor:
    """How far each row's (b,) hardest wrong column comes within the margin; 0 where none is wrong."""
    known = torch.eye(len(scores), dtype=torch.bool, device=scores.device) if right is None else right
    hardest = scores.masked_fill(known, float("-inf")).max(1).values
    return functional.relu(margin + hardest - _target(scores, right, others))


def _target(scores: Tensor, right: Tensor | None, others: Others) -> Tensor:
    """What each row's (b,) own score is, or with "share" the mean of all that are right."""
    if right is None or others != "share":
        return scores.diagonal()
    return (scores * right).sum(1) / right.sum(1)


def _mean(terms: Tensor, weights: Tensor | None) -> Tensor:
    """The weighted mean; 0 where all weights are."""
    if weights is None:
        return terms.mean()
    return (weights * terms).sum() / weights.sum().clamp_min(torch.finfo(terms.dtype).tiny)
