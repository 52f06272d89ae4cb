"""The gradient of each loss with respect to the logits, from a chunk of them at a time.

`chunked` passes each of these the same chunks twice, in the same order: rows are whole in a chunk, columns are not, so
the statistics of a column are known only after the first pass. `pair_weights` (b,) sum to 1.
"""

import torch
from torch import Tensor
from torch.nn import functional

from retrieval.train.config import ExtraPositives
from retrieval.train.losses.positives import without_diagonal


class ContrastiveGradients:
    """`losses.contrastive`: both softmaxes, weighted, minus the target."""

    needs_statistics = True

    def __init__(self, pair_weights: Tensor, *, extra: ExtraPositives, smoothing: float) -> None:
        self._weights, self._extra, self._smoothing = pair_weights / 2, extra, smoothing
        self._row_logsumexp = torch.empty_like(pair_weights)
        self._column_logsumexp = torch.full_like(pair_weights, float("-inf"))
        self._column_positives = torch.zeros_like(pair_weights)  # number of positives in each column
        self._column_allowed = torch.zeros_like(pair_weights)  # and of logits that are not masked

    def accumulate(self, logits: Tensor, positives: Tensor | None, start: int) -> None:
        """Add the sums of each row and column."""
        allowed = self._mask(logits, positives, start)
        self._row_logsumexp[start : start + len(logits)] = logits.logsumexp(1)
        torch.logaddexp(self._column_logsumexp, logits.logsumexp(0), out=self._column_logsumexp)
        if positives is not None:
            self._column_positives += positives.sum(0)
        self._column_allowed += len(logits) if allowed is None else allowed.sum(0)

    def loss_and_gradient(self, logits: Tensor, positives: Tensor | None, start: int) -> tuple[Tensor, Tensor]:
        """See `chunked.LogitGradients`."""
        rows = slice(start, start + len(logits))
        target = self._target(logits, positives, start)
        weighted = logits.diagonal(start) if target is None else logits  # what the target weighs
        weight = (1 - self._smoothing) * 2 * self._weights[rows] if target is None else target
        loss = (self._weights * (self._row_logsumexp + self._column_logsumexp))[rows].sum() - (weight * weighted).sum()
        self._mask(logits, positives, start)
        gradient = (logits - self._row_logsumexp[rows, None]).exp_().mul_(self._weights[rows, None])
        gradient += logits.sub_(self._column_logsumexp).exp_().mul_(self._weights)
        (gradient.diagonal(start) if target is None else gradient).sub_(weight)
        return loss, gradient

    def _mask(self, logits: Tensor, positives: Tensor | None, start: int) -> Tensor | None:
        """Mask extra positives in the logits; return what is left, or None for everything."""
        if positives is None or self._extra != "mask":
            return None
        extra = without_diagonal(positives, start)
        logits.masked_fill_(extra, float("-inf"))
        return extra.logical_not_()

    def _target(self, logits: Tensor, positives: Tensor | None, start: int) -> Tensor | None:
        """Return the target (c, b) of both directions together; None where it lies on the diagonal alone."""
        shared = positives is not None and self._extra == "share"
        if not self._smoothing and not shared:
            return None
        own, own_counts = torch.zeros_like(logits, dtype=torch.bool), torch.ones_like(self._weights)
        own.diagonal(start).fill_(value=True)
        allowed = torch.ones_like(own)
        if positives is not None and shared:
            own, own_counts = positives, self._column_positives
        elif positives is not None and self._extra == "mask":
            allowed = ~without_diagonal(positives, start)
        target = torch.zeros_like(logits)
        parts = ((own, own_counts, 1 - self._smoothing), (allowed, self._column_allowed, self._smoothing))
        for where, column_counts, fraction in parts[
            : 1 + bool(self._smoothing)
        ]:  # evenly over each row and each column
            rows = self._weights[start : start + len(logits), None] / where.sum(1, keepdim=True)
            target += (rows + self._weights / column_counts.clamp_min(1)).mul_(fraction).mul_(where)
        return target


class SigmoidGradients:
    """`losses.sigmoid`: each logit by itself."""

    needs_statistics = False

    def __init__(self, pair_weights: Tensor, *, extra: ExtraPositives) -> None:
        self._weights, self._extra = pair_weights / 2, extra

    def accumulate(self, logits: Tensor, positives: Tensor | None, start: int) -> None:
        """Never called."""

    def loss_and_gradient(self, logits: Tensor, positives: Tensor | None, start: int) -> tuple[Tensor, Tensor]:
        """log(1 + exp(-z s)) is softplus(s), less s where z is 1."""
        weights = self._weights[start : start + len(logits), None] + self._weights
        if positives is not None and self._extra == "mask":
            weights.masked_fill_(without_diagonal(positives, start), 0.0)
        loss = (functional.softplus(logits) * weights).sum()
        if positives is not None and self._extra == "share":
            matching = weights * positives
            loss -= (matching * logits).sum()
            return loss, logits.sigmoid_().mul_(weights).sub_(matching)
        matching = weights.diagonal(start)
        loss -= (matching * logits.diagonal(start)).sum()
        gradient = logits.sigmoid_().mul_(weights)
        gradient.diagonal(start).sub_(matching)
        return loss, gradient


class TripletGradients:
    """`losses.triplet`: up at the hardest negative of each row and column within the margin, down at its own."""

    needs_statistics = True

    def __init__(self, pair_weights: Tensor, *, extra: ExtraPositives, margin: float) -> None:
        self._weights, self._extra, self._margin = pair_weights, extra, margin
        self._row_hardest, self._column_hardest = (torch.full_like(pair_weights, float("-inf")) for _ in range(2))
        self._row_argmax, self._column_argmax = (torch.zeros_like(pair_weights, dtype=torch.long) for _ in range(2))
        self._row_targets, self._column_targets, self._column_positives = (
            torch.zeros_like(pair_weights) for _ in range(3)
        )

    def accumulate(self, logits: Tensor, positives: Tensor | None, start: int) -> None:
        """Find the hardest negatives and sum up the targets."""
        rows = slice(start, start + len(logits))
        if positives is not None and self._extra == "share":
            kept = logits * positives
            self._row_targets[rows] = kept.sum(1) / positives.sum(1)
            self._column_targets += kept.sum(0)
            self._column_positives += positives.sum(0)
        else:
            self._row_targets[rows] = self._column_targets[rows] = logits.diagonal(start)
            self._column_positives[rows] = 1.0
        if positives is not None:
            logits.masked_fill_(positives, float("-inf"))
        else:
            logits.diagonal(start).fill_(float("-inf"))
        self._row_hardest[rows], self._row_argmax[rows] = logits.max(1)
        hardest, argmax = logits.max(0)
        harder = hardest > self._column_hardest
        self._column_hardest[harder], self._column_argmax[harder] = hardest[harder], argmax[harder] + start

    def loss_and_gradient(self, logits: Tensor, positives: Tensor | None, start: int) -> tuple[Tensor, Tensor]:
        """See `chunked.LogitGradients`."""
        rows = slice(start, start + len(logits))
        row_hinges = self._margin + self._row_hardest - self._row_targets
        column_hinges = self._margin + self._column_hardest - self._column_targets / self._column_positives
        loss = (self._weights * (row_hinges.relu() + column_hinges.relu()))[rows].sum()
        row_active, column_active = (self._weights * (hinges > 0) for hinges in (row_hinges, column_hinges))
        gradient = logits.zero_()
        if positives is not None and self._extra == "share":
            even = row_active[rows, None] / positives.sum(1, keepdim=True) + column_active / self._column_positives
            gradient -= even.mul_(positives)
        else:
            gradient.diagonal(start).sub_((row_active + column_active)[rows])
        gradient[torch.arange(len(gradient), device=gradient.device), self._row_argmax[rows]] += row_active[rows]
        here = ((self._column_argmax >= start) & (self._column_argmax < rows.stop)).nonzero().squeeze(1)
        gradient[self._column_argmax[here] - start, here] += column_active[here]
        return loss, gradient
