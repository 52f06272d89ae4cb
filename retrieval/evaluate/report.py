"""What an evaluation found: figures with intervals and chance, as a table, as JSON and as a curve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval.evaluate.report_table import format_table
from retrieval.metrics import KS
from retrieval.metrics.intervals import Estimate, bootstrap_means, bootstrap_medians, estimate

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from retrieval.evaluate.served import Gap
    from retrieval.metrics import Floats, Ids, Ranks
    from retrieval.pairs import Skipped

CURVE_KS = (1, 2, 3, 5, 10, 20, 50, 100)
CLIP_BENCHMARK_NAMES = {
    "text_to_image": "image_retrieval",
    "image_to_text": "text_retrieval",
}  # CLIP_benchmark names what is found


@dataclass(frozen=True, slots=True)
class Direction:
    """One way of asking.

    Attributes:
        ranks: of each query.
        items: (q,) the number of the item that each query belongs to.
    """

    ranks: Ranks
    items: Ids


@dataclass(frozen=True, slots=True)
class Report:
    """What an encoder reached on a set of pairs.

    Figures go by name: `text_to_image_recall@1`, `..._recall@5`, `..._recall@10`, `..._mrr` (the mean of 1 / rank of
    the first right answer), `..._map@r` (see Ranks.average_precision), all fractions; `..._median_rank`, the median of
    Ranks.first; the same with `image_to_text_`; and `rsum`, the sum of the six recalls in percent.

    Attributes:
        encoder: its name.
        source: where the pairs came from.
        items: how many items there are.
        text_to_image: the captions as queries among the images.
        image_to_text: the images as queries among the texts.
        skipped: what could not be read, with reasons.
        resamples: how many samples of the items the intervals come from.
        intervals: by name; empty where there are no resamples.
        gaps: what the indexes of a catalog lose, by `text_to_image` and `image_to_text`; empty without a catalog.
    """

    encoder: str
    source: str
    items: int
    text_to_image: Direction
    image_to_text: Direction
    skipped: tuple[Skipped, ...]
    resamples: int
    intervals: Mapping[str, Estimate]
    gaps: Mapping[str, Gap]

    @property
    def images(self) -> int:
        """How many distinct images were ranked."""
        return self.text_to_image.ranks.targets

    @property
    def texts(self) -> int:
        """How many distinct texts were ranked."""
        return self.image_to_text.ranks.targets

    @property
    def figures(self) -> dict[str, float]:
        """What was measured, by name."""
        return figures(self.text_to_image.ranks, self.image_to_text.ranks)

    @property
    def chance(self) -> dict[str, float]:
        """What the same queries score on average when the order is random, by the same names."""
        return figures(self.text_to_image.ranks.random_baseline(), self.image_to_text.ranks.random_baseline())

    def recall_curve(self, ks: Iterable[int] = CURVE_KS) -> dict[str, dict[int, float]]:
        """Recall by K, for a plot: under `text_to_image`, `image_to_text`, and both with `_chance` behind."""
        ks = tuple(ks)
        curves: dict[str, dict[int, float]] = {}
        for way in CLIP_BENCHMARK_NAMES:
            ranks: Ranks = getattr(self, way).ranks
            curves[way] = _curve(ranks, ks)
            curves[f"{way}_chance"] = _curve(ranks.random_baseline(), ks)
        return curves

    def table(self) -> str:
        """A table for people, of several lines."""
        return format_table(self)

    def as_json(self) -> dict[str, Any]:
        """One object that JSON can say.

        `metrics` holds the measured fractions, the recalls also by CLIP_benchmark's names: `image_retrieval_recall@1`
        is `text_to_image_recall@1`, `text_retrieval_recall@1` is `image_to_text_recall@1`.
        """
        measured = self.figures
        fractions = {name: value for name, value in measured.items() if "@" in name or name.endswith("_mrr")}
        return {
            "encoder": self.encoder,
            "pairs": self.source,
            "items": self.items,
            "images": self.images,
            "texts": self.texts,
            "metrics": fractions | _their_names(fractions),
            "rsum": measured["rsum"],
            "median_rank": {way: measured[f"{way}_median_rank"] for way in CLIP_BENCHMARK_NAMES},
            "chance": self.chance,
            "intervals": {name: [one.low, one.high] for name, one in self.intervals.items() if np.isfinite(one.low)},
            "resamples": self.resamples,
            "queries": {way: len(getattr(self, way).items) for way in CLIP_BENCHMARK_NAMES},
            "served": {way: _gap_json(gap) for way, gap in self.gaps.items()},
            "skipped": [{"name": one.name, "reason": one.reason} for one in self.skipped],
        }


def figures(text_to_image: Ranks, image_to_text: Ranks) -> dict[str, float]:
    """The figures of a `Report` by name."""
    named: dict[str, float] = {}
    for way, ranks in zip(CLIP_BENCHMARK_NAMES, (text_to_image, image_to_text), strict=True):
        named |= {f"{way}_{name}": float(values.mean()) for name, values in _values(ranks).items()}
        named[f"{way}_median_rank"] = float(np.median(ranks.first_rank()))
    return named | {"rsum": 100 * sum(named[name] for name in _recall_names())}


def bootstrap(
    text_to_image: Direction, image_to_text: Direction, *, items: int, resamples: int, seed: int
) -> dict[str, Estimate]:
    """The figures with intervals, by name: both ways on the same samples of the items."""
    if not resamples:
        return {}
    samples: dict[str, Floats] = {}
    for way, direction in zip(CLIP_BENCHMARK_NAMES, (text_to_image, image_to_text), strict=True):
        values = _values(direction.ranks)
        draw = {"count": items, "resamples": resamples, "seed": seed}
        means = bootstrap_means(np.stack(list(values.values()), axis=1), direction.items, **draw)
        samples |= {f"{way}_{name}": column for name, column in zip(values, means.T, strict=True)}
        samples[f"{way}_median_rank"] = bootstrap_medians(direction.ranks.first_rank(), direction.items, **draw)
    samples["rsum"] = 100 * np.sum([samples[name] for name in _recall_names()], axis=0)
    measured = figures(text_to_image.ranks, image_to_text.ranks)
    return {name: estimate(measured[name], sample, items=text_to_image.items) for name, sample in samples.items()}


def _values(ranks: Ranks) -> dict[str, Floats]:
    """What is averaged over the queries, by name."""
    recalls = {f"recall@{k}": ranks.recall(k) for k in KS}
    return recalls | {"mrr": ranks.reciprocal_rank(), "map@r": ranks.average_precision}


def _recall_names() -> list[str]:
    return [f"{way}_recall@{k}" for way in CLIP_BENCHMARK_NAMES for k in KS]


def _their_names(fractions: Mapping[str, float]) -> dict[str, float]:
    return {
        f"{their}_recall@{k}": fractions[f"{way}_recall@{k}"] for way, their in CLIP_BENCHMARK_NAMES.items() for k in KS
    }


def _curve(ranks: Ranks, ks: Iterable[int]) -> dict[int, float]:
    return {k: float(ranks.recall(k).mean()) for k in ks}


def _gap_json(gap: Gap) -> dict[str, Any]:
    return {
        "kind": gap.kind,
        "queries": gap.queries,
        "left_out": gap.left_out,
        "through_index": {f"recall@{k}": value for k, value in gap.through_index.items()},
        "exact": {f"recall@{k}": value for k, value in gap.exact.items()},
    }
