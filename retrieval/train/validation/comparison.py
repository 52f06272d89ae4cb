"""Whether training helped: recall of the kept model beside that of the start, query by query, with intervals."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from zipfile import BadZipFile

import numpy as np

from retrieval.files import write_atomically
from retrieval.metrics import KS, Floats, Ids, Ranks
from retrieval.metrics.intervals import Estimate, bootstrap_means, estimate, paired_difference

if TYPE_CHECKING:
    from retrieval.evaluate.collection import Collection

WAYS: Final[Mapping[str, str]] = {"text_to_image": "text→image", "image_to_text": "image→text"}
_RESAMPLES: Final = 1000
_PARTS: Final = ("better", "tied", "right", "answers", "average_precision")


@dataclass(frozen=True, slots=True)
class Places:
    """Where the right answers of every query of an exam came, both ways."""

    text_to_image: Ranks
    image_to_text: Ranks

    def write(self, path: Path) -> None:
        """Write all of it to a file, whole or not at all."""
        arrays = {f"{way}.{part}": getattr(getattr(self, way), part) for way in WAYS for part in _PARTS}
        arrays |= {f"{way}.targets": np.array(getattr(self, way).targets) for way in WAYS}

        def write(aside: Path) -> None:
            with aside.open("wb") as file:
                np.savez(file, **arrays)

        write_atomically(path, write)

    @classmethod
    def read(cls, path: Path) -> "Places | None":
        """What was written; None where there is nothing that can be read."""
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                ways = {way: _ranks({part: arrays[f"{way}.{part}"] for part in (*_PARTS, "targets")}) for way in WAYS}
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            return None
        return cls(**ways)


def _ranks(arrays: Mapping[str, Any]) -> Ranks:
    return Ranks(**(dict(arrays) | {"targets": int(arrays["targets"])}))


@dataclass(frozen=True, slots=True)
class Change:
    """One figure before and after training, as fractions, each with its interval; and the difference with its own."""

    before: Estimate
    after: Estimate
    difference: Estimate

    def __str__(self) -> str:
        difference = self.difference
        told = f"{100 * self.before.value:.1f} → {100 * self.after.value:.1f}, {100 * difference.value:+.1f}"
        if math.isnan(difference.low):
            return f"{told} (no interval)"
        return f"{told} (95 % interval {100 * difference.low:+.1f} to {100 * difference.high:+.1f})"


def changes(before: Places, after: Places, collection: "Collection") -> dict[str, Change]:
    """What became of each recall, by the names of `metrics.recall_both_ways`."""
    items = {
        "text_to_image": collection.item_texts.query_of_pair(),
        "image_to_text": collection.item_images.query_of_pair(),
    }
    return {
        f"{way}_recall@{k}": _change(getattr(before, way).recall(k), getattr(after, way).recall(k), items[way])
        for way in WAYS
        for k in KS
    }


def _change(before: Floats, after: Floats, items: Ids) -> Change:
    return Change(_estimated(before, items), _estimated(after, items), paired_difference(before, after, items=items))


def _estimated(values: Floats, items: Ids) -> Estimate:
    sample = bootstrap_means(values, items, count=int(items.max()) + 1, resamples=_RESAMPLES, seed=0)
    return estimate(float(values.mean()), sample, items=items)


def verdict(changed: Mapping[str, Change], *, best_step: int, why_not: str = "") -> str:
    """In words, on one line, whether training helped: by text→image R@1, with image→text R@1 where that surely fell.

    Args:
        changed: what `changes` returns; empty where nothing was measured.
        best_step: at which the kept model was; 0 for the start.
        why_not: why nothing was measured.
    """
    if not changed:
        return f"It cannot be told whether training helped: {why_not}"
    first = changed["text_to_image_recall@1"]
    told = f"text→image R@1 {first}"
    low, high = first.difference.low, first.difference.high
    back = changed["image_to_text_recall@1"]
    lost = f", {'and' if high < 0 else 'but'} image→text R@1 {back}" if back.difference.high < 0 else ""
    if best_step == 0:
        return f"Training did not help: no model on the way was better than the start, which is kept: {told}"
    if low > 0:
        return f"Training helped: {told}{lost}"
    if high < 0:
        return f"Training did harm: {told}{lost}"
    why = "one item alone validates" if math.isnan(low) else "the interval holds zero"
    return f"It cannot be told whether training helped: {told}: {why}{lost}"
