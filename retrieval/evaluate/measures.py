"""The metrics of both directions by name, and their bootstrap intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from retrieval.metrics import KS
from retrieval.metrics.intervals import Estimate, bootstrap_means, bootstrap_medians, estimate

if TYPE_CHECKING:
    from retrieval.metrics import Floats, Ids, Ranks

DIRECTIONS: Final = {"text_to_image": "text → image", "image_to_text": "image → text"}
RECALLS: Final = [f"{way}_recall@{k}" for way in DIRECTIONS for k in KS]


@dataclass(frozen=True, slots=True)
class Direction:
    """The queries of one direction."""

    ranks: Ranks  # the ranks of each query's relevant targets
    items: Ids  # (q,) the item that each query belongs to


def measure(text_to_image: Ranks, image_to_text: Ranks) -> dict[str, float]:
    """Return the metrics of a `Report` by name."""
    metrics: dict[str, float] = {}
    for way, ranks in zip(DIRECTIONS, (text_to_image, image_to_text), strict=True):
        metrics |= {f"{way}_{name}": float(values.mean()) for name, values in _query_values(ranks).items()}
        metrics[f"{way}_median_rank"] = float(np.median(ranks.first_rank()))
    return metrics | {"rsum": 100 * sum(metrics[name] for name in RECALLS)}


def bootstrap(
    text_to_image: Direction, image_to_text: Direction, *, items: int, resamples: int, seed: int
) -> dict[str, Estimate]:
    """Return the metrics with intervals, by name; both directions use the same samples of the items."""
    if not resamples:
        return {}
    draw: dict[str, Any] = {"count": items, "resamples": resamples, "seed": seed}
    samples: dict[str, Floats] = {}
    for way, direction in zip(DIRECTIONS, (text_to_image, image_to_text), strict=True):
        values = _query_values(direction.ranks)
        means = bootstrap_means(np.stack(list(values.values()), axis=1), direction.items, **draw)
        samples |= {f"{way}_{name}": column for name, column in zip(values, means.T, strict=True)}
        samples[f"{way}_median_rank"] = bootstrap_medians(direction.ranks.first_rank(), direction.items, **draw)
    samples["rsum"] = 100 * np.sum([samples[name] for name in RECALLS], axis=0)
    metrics = measure(text_to_image.ranks, image_to_text.ranks)
    return {name: estimate(metrics[name], sample, items=text_to_image.items) for name, sample in samples.items()}


def _query_values(ranks: Ranks) -> dict[str, Floats]:
    """Return the values of each query that are averaged, by name."""
    recalls = {f"recall@{k}": ranks.recall(k) for k in KS}
    return recalls | {"mrr": ranks.reciprocal_rank(), "map@r": ranks.average_precision}
