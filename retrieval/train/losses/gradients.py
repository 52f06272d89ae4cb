"""How steep each loss is along each score, worked out from a chunk of the scores at a time.

`chunked` hands each of these the same chunks twice, in the same order: rows are whole in a chunk, columns are not, so
what a column comes to is only known after the first look at all of them.
"""

import torch
from torch import Tensor
from torch.nn import functional

from retrieval.train.config import Others
from retrieval.train.losses.positives import without_own


class ContrastiveSlopes:
    """`losses.contrastive`: the shares of both softmaxes, less the target."""

    needs_look = True

    def __init__(self, shares: Tensor, *, others: Others, smoothing: float) -> None:
        self._shares, self._others, self._smoothing = shares / 2, others, smoothing
        self._rows = torch.empty_like(shares)  # log of the sum of exp, of each row and of each column
        self._columns = torch.full_like(shares, float("-inf"))
        self._right = torch.zeros_like(shares)  # how many are right, and how many take part, in each column
        self._allowed = torch.zeros_like(shares)

    def look(self, scores: Tensor, right: Tensor | None, start: int) -> None:
        """Add what each row and column sums to."""
        allowed = self._leave_out(scores, right, start)
        self._rows[start : start + len(scores)] = scores.logsumexp(1)
        torch.logaddexp(self._columns, scores.logsumexp(0), out=self._columns)
        if right is not None:
            self._right += right.sum(0)
        self._allowed += len(scores) if allowed is None else allowed.sum(0)

    def of(self, scores: Tensor, right: Tensor | None, start: int) -> tuple[Tensor, Tensor]:
        """See `chunked.Slopes`."""
        rows = slice(start, start + len(scores))
        target = self._target(scores, right, start)
        own = scores.diagonal(start) if target is None else scores  # what the target weighs
        one = (1 - self._smoothing) * 2 * self._shares[rows] if target is None else target
        cost = (self._shares * (self._rows + self._columns))[rows].sum() - (one * own).sum()
        self._leave_out(scores, right, start)
        steep = (scores - self._rows[rows, None]).exp_().mul_(self._shares[rows, None])
        steep += scores.sub_(self._columns).exp_().mul_(self._shares)
        (steep.diagonal(start) if target is None else steep).sub_(one)
        return cost, steep

    def _leave_out(self, scores: Tensor, right: Tensor | None, start: int) -> Tensor | None:
        """Take what is masked out of the scores; return what is left, or None for all."""
        if right is None or self._others != "mask":
            return None
        others = without_own(right, start)
        scores.masked_fill_(others, float("-inf"))
        return others.logical_not_()

    def _target(self, scores: Tensor, right: Tensor | None, start: int) -> Tensor | None:
        """How much of the target lies on each score (c, b), both directions together; None where on the own alone."""
        shared = right is not None and self._others == "share"
        if not self._smoothing and not shared:
            return None
        rows = slice(start, start + len(scores))
        target = torch.zeros_like(scores)
        if right is not None and shared:
            self._spread(target, right, self._right, rows=rows, share=1 - self._smoothing)
        else:
            target.diagonal(start).copy_((1 - self._smoothing) * 2 * self._shares[rows])
        if self._smoothing:
            masked = right is not None and self._others == "mask"
            allowed = ~without_own(right, start) if right is not None and masked else torch.ones_like(scores) > 0
            self._spread(target, allowed, self._allowed, rows=rows, share=self._smoothing)
        return target

    def _spread(self, target: Tensor, where: Tensor, columns: Tensor, *, rows: slice, share: float) -> None:
        """Add a share of the target, evenly over the places of each row and of each column."""
        even = self._shares[rows, None] / where.sum(1, keepdim=True) + self._shares / columns.clamp_min(1)
        target += even.mul_(share).mul_(where)


class SigmoidSlopes:
    """`losses.sigmoid`: each score alone."""

    needs_look = False

    def __init__(self, shares: Tensor, *, others: Others) -> None:
        self._shares, self._others = shares / 2, others

    def look(self, scores: Tensor, right: Tensor | None, start: int) -> None:
        """Never called."""

    def of(self, scores: Tensor, right: Tensor | None, start: int) -> tuple[Tensor, Tensor]:
        """log(1 + exp(-z s)) is softplus(s), less s where z is 1."""
        even = self._shares[start : start + len(scores), None] + self._shares
        if right is not None and self._others == "mask":
            even.masked_fill_(without_own(right, start), 0.0)
        cost = (functional.softplus(scores) * even).sum()
        if right is not None and self._others == "share":
            together = even * right
            cost -= (together * scores).sum()
            return cost, scores.sigmoid_().mul_(even).sub_(together)
        together = even.diagonal(start)
        cost -= (together * scores.diagonal(start)).sum()
        steep = scores.sigmoid_().mul_(even)
        steep.diagonal(start).sub_(together)
        return cost, steep


class TripletSlopes:
    """`losses.triplet`: one up at the hardest of each row and column that is within the margin, one down at its own."""

    needs_look = True

    def __init__(self, shares: Tensor, *, others: Others, margin: float) -> None:
        self._shares, self._others, self._margin = shares, others, margin
        self._rows, self._columns = (torch.full_like(shares, float("-inf")) for _ in range(2))  # the hardest scores
        self._row_at, self._column_at = (torch.zeros_like(shares, dtype=torch.long) for _ in range(2))  # and where
        self._row_targets, self._column_targets, self._right = (torch.zeros_like(shares) for _ in range(3))

    def look(self, scores: Tensor, right: Tensor | None, start: int) -> None:
        """See where the hardest are, and what the targets come to."""
        rows = slice(start, start + len(scores))
        if right is not None and self._others == "share":
            kept = scores * right
            self._row_targets[rows] = kept.sum(1) / right.sum(1)
            self._column_targets += kept.sum(0)
            self._right += right.sum(0)
        else:
            self._row_targets[rows] = self._column_targets[rows] = scores.diagonal(start)
            self._right[rows] = 1.0
        if right is not None:
            scores.masked_fill_(right, float("-inf"))
        else:
            scores.diagonal(start).fill_(float("-inf"))
        self._rows[rows], self._row_at[rows] = scores.max(1)
        hardest, at = scores.max(0)
        harder = hardest > self._columns
        self._columns[harder], self._column_at[harder] = hardest[harder], at[harder] + start

    def of(self, scores: Tensor, right: Tensor | None, start: int) -> tuple[Tensor, Tensor]:
        """See `chunked.Slopes`."""
        rows = slice(start, start + len(scores))
        row_hinges = self._margin + self._rows - self._row_targets
        column_hinges = self._margin + self._columns - self._column_targets / self._right
        cost = (self._shares * (row_hinges.relu() + column_hinges.relu()))[rows].sum()
        row_active, column_active = (self._shares * (hinges > 0) for hinges in (row_hinges, column_hinges))
        steep = scores.zero_()
        if right is not None and self._others == "share":
            even = row_active[rows, None] / right.sum(1, keepdim=True) + column_active / self._right
            steep -= even.mul_(right)
        else:
            steep.diagonal(start).sub_((row_active + column_active)[rows])
        steep[torch.arange(len(steep), device=steep.device), self._row_at[rows]] += row_active[rows]
        here = ((self._column_at >= start) & (self._column_at < rows.stop)).nonzero().squeeze(1)
        steep[self._column_at[here] - start, here] += column_active[here]
        return cost, steep
