"""The report of an evaluation: metrics with intervals and the random baseline, as a table, as JSON and as a curve."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from retrieval.evaluate.measures import DIRECTIONS, Direction, measure
from retrieval.metrics import KS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from retrieval.evaluate.index_recall import IndexRecall
    from retrieval.metrics.intervals import Estimate
    from retrieval.pairs import Skipped

CURVE_KS: Final = (1, 2, 3, 5, 10, 20, 50, 100)
_CLIP_BENCHMARK_NAMES: Final = {"text_to_image": "image_retrieval", "image_to_text": "text_retrieval"}

_TABLE_ROWS: Final = {
    "recall@1": "R@1",
    "recall@5": "R@5",
    "recall@10": "R@10",
    "mrr": "MRR",
    "map@r": "mAP@R",
    "median_rank": "median rank",
}
_LABEL, _VALUE, _RANGE, _GAP = 12, 9, 14, "  "  # widths of the table's columns

_LEGEND: Final = """\
R@K    fraction of queries with a relevant answer among the first K
MRR    mean of 1 / rank of the first relevant answer
mAP@R  mean average precision over the first R, R = number of relevant answers
RSUM   sum of the six R@K, in percent
random the same queries with the answers in random order; ties count as in it"""


@dataclass(frozen=True, slots=True)
class Report:
    """The metrics of an encoder on a set of pairs.

    Metrics go by name: `text_to_image_recall@1`, `..._recall@5`, `..._recall@10`, `..._mrr` (the mean of 1 / rank of
    the first relevant answer), `..._map@r` (see Ranks.average_precision), all fractions; `..._median_rank`, the median
    of Ranks.first_rank; the same with `image_to_text_`; and `rsum`, the sum of the six recalls in percent.

    Attributes:
        encoder: The encoder's name.
        source: Where the pairs came from.
        items: The number of items.
        text_to_image: The captions as queries among the images.
        image_to_text: The images as queries among the texts.
        skipped: What could not be read, with reasons.
        resamples: The number of bootstrap samples of the items.
        intervals: By name; empty without resamples.
        index_recalls: The loss of a catalog's indexes, by `text_to_image` and `image_to_text`; empty without a catalog.
    """

    encoder: str
    source: str
    items: int
    text_to_image: Direction
    image_to_text: Direction
    skipped: tuple[Skipped, ...]
    resamples: int
    intervals: Mapping[str, Estimate]
    index_recalls: Mapping[str, IndexRecall]

    @property
    def images(self) -> int:
        """Number of distinct images that were ranked."""
        return self.text_to_image.ranks.targets

    @property
    def texts(self) -> int:
        """Number of distinct texts that were ranked."""
        return self.image_to_text.ranks.targets

    @property
    def metrics(self) -> dict[str, float]:
        """The measured values by name."""
        return measure(self.text_to_image.ranks, self.image_to_text.ranks)

    @property
    def random_baseline(self) -> dict[str, float]:
        """The expected values of the same queries in random order, by the same names."""
        return measure(self.text_to_image.ranks.random_baseline(), self.image_to_text.ranks.random_baseline())

    def recall_curve(self, ks: Iterable[int] = CURVE_KS) -> dict[str, dict[int, float]]:
        """Return recall by K: `text_to_image`, `image_to_text`, and the baselines under both names with `_random`."""
        ks = tuple(ks)
        curves: dict[str, dict[int, float]] = {}
        for way in DIRECTIONS:
            ranks = getattr(self, way).ranks
            for name, ranking in ((way, ranks), (f"{way}_random", ranks.random_baseline())):
                curves[name] = {k: float(ranking.recall(k).mean()) for k in ks}
        return curves

    def as_json(self) -> dict[str, Any]:
        """Return one object of JSON values.

        `metrics` holds the measured fractions, the recalls also by CLIP_benchmark's names: `image_retrieval_recall@1`
        is `text_to_image_recall@1`, `text_retrieval_recall@1` is `image_to_text_recall@1`. `chance` is the random
        baseline.
        """
        metrics = self.metrics
        fractions = {name: value for name, value in metrics.items() if "@" in name or name.endswith("_mrr")}
        names = {f"{way}_recall@{k}": f"{other}_recall@{k}" for way, other in _CLIP_BENCHMARK_NAMES.items() for k in KS}
        return {
            "encoder": self.encoder,
            "pairs": self.source,
            "items": self.items,
            "images": self.images,
            "texts": self.texts,
            "metrics": fractions | {other: fractions[name] for name, other in names.items()},
            "rsum": metrics["rsum"],
            "median_rank": {way: metrics[f"{way}_median_rank"] for way in DIRECTIONS},
            "chance": self.random_baseline,
            "intervals": {name: [one.low, one.high] for name, one in self.intervals.items() if math.isfinite(one.low)},
            "resamples": self.resamples,
            "queries": {way: len(getattr(self, way).items) for way in DIRECTIONS},
            "served": {way: asdict(recall) for way, recall in self.index_recalls.items()},
            "skipped": [{"name": one.name, "reason": one.reason} for one in self.skipped],
        }

    def table(self) -> str:
        """Return a table of both directions, one metric a line under 80 columns, with intervals and a legend."""
        counts = [_count(self.items, "item"), _count(self.images, "image"), _count(self.texts, "distinct text")]
        counts += [f"{len(self.skipped):,} skipped"] if self.skipped else []
        blocks = [f"{self.encoder}\n{self.source}\n{', '.join(counts)}", self._metric_lines()]
        if self.index_recalls:
            lines = [recall.table_line(DIRECTIONS[way]) for way, recall in self.index_recalls.items()]
            title = "Through the catalog's index, in percent (by exact search over the same vectors)"
            blocks.append("\n".join([title, *lines]))
        samples = f"{self.resamples:,} samples of the {self.items:,} items, each with all its queries"
        blocks.append(f"{_LEGEND}\nIntervals: {samples}." if self.intervals else _LEGEND)
        return "\n\n".join(blocks)

    def _metric_lines(self) -> str:
        metrics, baseline = self.metrics, self.random_baseline
        interval = f"{'95 % interval':>{_RANGE}}" if self.intervals else ""
        header = f"{'measured':>{_VALUE}}{interval}{'random':>{_VALUE}}"
        lines = [_line("", [f"{title:^{len(header)}}" for title in DIRECTIONS.values()]), _line("", [header] * 2)]
        for suffix, label in _TABLE_ROWS.items():
            names = [f"{way}_{suffix}" for way in DIRECTIONS]
            cells = [
                f"{_cell(name, metrics[name])}{self._interval(name)}{_cell(name, baseline[name])}" for name in names
            ]
            lines.append(_line(label, cells))
        rsum, random_rsum = (f"{values['rsum']:>{_VALUE - 2}.1f}" for values in (metrics, baseline))
        lines.append(_line("RSUM", [f"{rsum}  {self._interval('rsum')}{random_rsum}"]))
        targets = (_count(self.images, "image"), _count(self.texts, "text"))
        queries = [
            f"{len(direction.items):>{_VALUE - 2},}  among {target}".ljust(len(header))
            for direction, target in zip((self.text_to_image, self.image_to_text), targets, strict=True)
        ]
        return "\n".join([*lines, _line("queries", queries)])

    def _interval(self, name: str) -> str:
        if not self.intervals:
            return ""
        one = self.intervals[name]
        if math.isnan(one.low):  # a single item has none
            return " " * _RANGE
        factor = 1 if name.endswith("_rank") or name == "rsum" else 100
        return f"{f'{_number(factor * one.low)} – {_number(factor * one.high)}':>{_RANGE}}"


def _line(label: str, cells: list[str]) -> str:
    return (f"{label:<{_LABEL}}" + _GAP.join(cells)).rstrip()


def _cell(name: str, value: float) -> str:
    return f"{f'{_number(value)}  ' if name.endswith('median_rank') else f'{100 * value:.1f} %':>{_VALUE}}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}"  # noqa: PLR2004 - the column's width


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
