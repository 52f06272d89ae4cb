"""Whether training helped: recall of the saved model beside that of the start, query by query, with intervals."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Final
from zipfile import BadZipFile

import numpy as np

from retrieval.files import write_atomically
from retrieval.metrics import KS, Floats, Ids, Ranks
from retrieval.metrics.intervals import Estimate, bootstrap_means, estimate, paired_difference
from retrieval.train.run_folder import RECALL_NAMES

if TYPE_CHECKING:
    from retrieval.evaluate.collection import Collection

DIRECTIONS: Final[Mapping[str, str]] = {"text_to_image": "text→image", "image_to_text": "image→text"}
_RESAMPLES: Final = 1000


@dataclass(frozen=True, slots=True)
class QueryRecalls:
    """Recall of each validation query."""

    # from texts to images, and from images to texts: recall of each query (q, 3), one column for each of
    # `metrics.KS`; and (q,) the number of the item that the query belongs to
    by_direction: tuple[tuple[Floats, Ids], ...]

    @property
    def mean(self) -> float:
        """Mean recall over all K and both directions."""
        return float(np.mean([recalls.mean(axis=0) for recalls, _ in self.by_direction]))

    def means(self) -> dict[str, float]:
        """Recall by the names of `RECALL_NAMES`, and the mean of all."""
        values = (float(value) for recalls, _ in self.by_direction for value in recalls.mean(axis=0))
        means = dict(zip(RECALL_NAMES, values, strict=True))
        return means | {"mean_recall": sum(means.values()) / len(means)}


@dataclass(frozen=True, slots=True)
class AnswerRanks:
    """The ranks of the right answers to every validation query, both ways."""

    text_to_image: Ranks
    image_to_text: Ranks

    def save(self, path: Path) -> None:
        """Write the ranks to a file; a kill leaves the old file or the new."""
        file = BytesIO()
        np.savez(file, **{f"{way}.{name}": part for way, ranks in asdict(self).items() for name, part in ranks.items()})
        write_atomically(path, lambda aside: aside.write_bytes(file.getvalue()))

    @classmethod
    def load(cls, path: Path) -> "AnswerRanks | None":
        """The ranks that were saved; None where the file is missing or damaged."""
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                names = [one.name for one in fields(Ranks)]
                parts = {way: {name: arrays[f"{way}.{name}"] for name in names} for way in DIRECTIONS}
                return cls(**{way: Ranks(**part | {"targets": int(part["targets"])}) for way, part in parts.items()})
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            return None


@dataclass(frozen=True, slots=True)
class Comparison:
    """One figure before and after training, as fractions with intervals, and the paired difference with its own."""

    before: Estimate
    after: Estimate
    difference: Estimate

    def __str__(self) -> str:
        difference = self.difference
        figures = f"{100 * self.before.value:.1f} → {100 * self.after.value:.1f}, {100 * difference.value:+.1f}"
        if math.isnan(difference.low):
            return f"{figures} (no interval)"
        return f"{figures} (95 % interval {100 * difference.low:+.1f} to {100 * difference.high:+.1f})"


def compare_recalls(before: AnswerRanks, after: AnswerRanks, collection: "Collection") -> dict[str, Comparison]:
    """Compare each recall, by the names of `RECALL_NAMES`."""
    comparisons = {}
    for way, queries in zip(DIRECTIONS, (collection.item_texts, collection.item_images), strict=True):
        items = queries.query_of_pair()
        for k in KS:
            old, new = getattr(before, way).recall(k), getattr(after, way).recall(k)
            difference = paired_difference(old, new, items=items)
            comparisons[f"{way}_recall@{k}"] = Comparison(_estimate(old, items), _estimate(new, items), difference)
    return comparisons


def _estimate(values: Floats, items: Ids) -> Estimate:
    sample = bootstrap_means(values, items, count=int(items.max()) + 1, resamples=_RESAMPLES, seed=0)
    return estimate(float(values.mean()), sample, items=items)


def conclude(comparisons: Mapping[str, Comparison], *, best_step: int, why_unknown: str = "") -> str:
    """Say on one line whether training helped: by text→image R@1, with image→text R@1 where that surely fell.

    Where nothing was measured, `comparisons` are empty and `why_unknown` says why. `best_step` is 0 for the start.
    """
    if not comparisons:
        return f"It is unknown whether training helped: {why_unknown}."
    first = comparisons["text_to_image_recall@1"]
    figures = f"text→image R@1 {first}"
    low, high = first.difference.low, first.difference.high
    other = comparisons["image_to_text_recall@1"]
    loss = f", {'and' if high < 0 else 'but'} image→text R@1 {other}" if other.difference.high < 0 else ""
    if best_step == 0:
        return f"Training did not help: no model was better than the start, which is kept: {figures}."
    if low > 0:
        return f"Training helped: {figures}{loss}."
    if high < 0:
        return f"Training did harm: {figures}{loss}."
    reason = "all validation pairs are of one item" if math.isnan(low) else "the interval contains zero"
    return f"It is unknown whether training helped: {figures}: {reason}{loss}."
