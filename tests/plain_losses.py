"""The losses by their formulas, on the whole matrix of logits at once: the oracle of the chunked ones."""

import torch
from torch.nn import functional

from retrieval.train.losses.positives import positive_rows, without_diagonal


def contrastive(images, texts, *, scale, positives=None, extra="mask", smoothing=0.0, weights=None):
    """Return `losses.contrastive`."""
    return _both_ways(scale * images @ texts.T, positives, extra, weights, loss=_cross_entropy, option=smoothing) / 2


def sigmoid(images, texts, *, scale, bias, positives=None, extra="mask", weights=None):
    """Return `losses.sigmoid`."""
    logits = scale * images @ texts.T + bias
    known = None if extra == "own" else positive_rows(positives, 0, len(logits))
    own = torch.eye(len(logits), dtype=torch.bool)
    terms = functional.softplus(torch.where(known if known is not None and extra == "share" else own, -logits, logits))
    if known is not None and extra == "mask":
        terms = terms.masked_fill(known & ~own, 0.0)
    return _mean((terms.sum(1) + terms.sum(0)) / 2, weights)


def triplet(images, texts, *, margin, positives=None, extra="mask", weights=None):
    """Return `losses.triplet`."""
    return _both_ways(images @ texts.T, positives, extra, weights, loss=_hinges, option=margin)


def _both_ways(logits, positives, extra, weights, *, loss, option):
    known = None if extra == "own" else positive_rows(positives, 0, len(logits))
    ways = ((logits, known), (logits.T, None if known is None else known.T))
    return _mean(sum(loss(way, right, extra, option) for way, right in ways), weights)


def _cross_entropy(logits, positives, extra, smoothing):
    among = logits
    if positives is not None and extra == "mask":
        among = logits.masked_fill(without_diagonal(positives, 0), float("-inf"))
    loss = among.logsumexp(1) - (1 - smoothing) * _target(logits, positives, extra)
    if smoothing:
        allowed = torch.isfinite(among)
        loss = loss - smoothing * logits.where(allowed, 0.0).sum(1) / allowed.sum(1)
    return loss


def _hinges(logits, positives, extra, margin):
    known = torch.eye(len(logits), dtype=torch.bool) if positives is None else positives
    hardest = logits.masked_fill(known, float("-inf")).max(1).values
    return functional.relu(margin + hardest - _target(logits, positives, extra))


def _target(logits, positives, extra):
    if positives is None or extra != "share":
        return logits.diagonal()
    return (logits * positives).sum(1) / positives.sum(1)


def _mean(terms, weights):
    if weights is None:
        return terms.mean()
    return (weights * terms).sum() / weights.sum().clamp_min(torch.finfo(terms.dtype).tiny)
