"""A report as a table for people, under 80 columns."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from retrieval.evaluate.report import Report
    from retrieval.evaluate.served import Gap

WAYS = {"text_to_image": "text → image", "image_to_text": "image → text"}
ROWS = {
    "recall@1": "R@1",
    "recall@5": "R@5",
    "recall@10": "R@10",
    "mrr": "MRR",
    "map@r": "mAP@R",
    "median_rank": "median rank",
}
LABEL, VALUE, RANGE, BETWEEN = 12, 9, 14, "  "

LEGEND = """\
R@K    share of queries with at least one right answer among the first K
MRR    mean of 1 / rank of the first right answer
mAP@R  mean average precision over the first R, R = number of right answers
RSUM   sum of the six R@K, in percent
Ties count as in random order: one vector for everything scores exactly chance."""


def format_table(report: Report) -> str:
    """Both ways beside each other, one metric a line, with intervals where there are some, and what it all means."""
    blocks = [_heading(report), _figures(report), _catalog(report), _legend(report)]
    return "\n\n".join(block for block in blocks if block)


def _heading(report: Report) -> str:
    counts = [_count(report.items, "item"), _count(report.images, "image"), _count(report.texts, "distinct text")]
    skipped = [f"{len(report.skipped):,} skipped"] if report.skipped else []
    return f"{report.encoder}\n{report.source}\n{', '.join(counts + skipped)}"


def _figures(report: Report) -> str:
    chance, measured = report.chance, report.figures
    columns = _columns(report)
    titles = [f"{title:^{len(columns)}}" for title in WAYS.values()]
    lines = [_line("", titles), _line("", [columns] * len(WAYS))]
    for name, label in ROWS.items():
        cells = []
        for way in WAYS:
            full = f"{way}_{name}"
            cells.append(
                f"{_value(name, measured[full]):>{VALUE}}{_range(report, full)}{_value(name, chance[full]):>{VALUE}}"
            )
        lines.append(_line(label, cells))
    rsum = f"{measured['rsum']:>{VALUE - 2}.1f}  {_range(report, 'rsum')}{chance['rsum']:>{VALUE - 2}.1f}"
    return "\n".join([*lines, _line("RSUM", [rsum]), _line("queries", _queries(report, len(columns)))])


def _columns(report: Report) -> str:
    interval = f"{'95 % interval':>{RANGE}}" if report.intervals else ""
    return f"{'measured':>{VALUE}}{interval}{'chance':>{VALUE}}"


def _queries(report: Report, width: int) -> list[str]:
    asked = (report.text_to_image, report.image_to_text)
    targets = (_count(report.images, "image"), _count(report.texts, "text"))
    return [
        f"{len(one.items):>{VALUE - 2},}  among {target}".ljust(width)
        for one, target in zip(asked, targets, strict=True)
    ]


def _line(label: str, cells: list[str]) -> str:
    return (f"{label:<{LABEL}}" + BETWEEN.join(cells)).rstrip()


def _value(name: str, value: float) -> str:
    return f"{_number(value)}  " if name == "median_rank" else f"{100 * value:.1f} %"


def _range(report: Report, name: str) -> str:
    if not report.intervals:
        return ""
    one = report.intervals[name]
    if math.isnan(one.low):  # of one item alone
        return " " * RANGE
    factor = 1 if name.endswith("_rank") or name == "rsum" else 100
    return f"{f'{_number(factor * one.low)} – {_number(factor * one.high)}':>{RANGE}}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}"  # noqa: PLR2004 - what the column holds


def _catalog(report: Report) -> str:
    if not report.gaps:
        return ""
    title = "Through the catalog's index, in percent (by exact search over the same vectors)"
    return "\n".join([title, *(_gap_line(WAYS[way], gap) for way, gap in report.gaps.items())])


def _gap_line(way: str, gap: Gap) -> str:
    left_out = f"\n{'':14}{gap.left_out:,} queries left out: the catalog holds none of their right answers"
    recalls = [f"R@{k} {100 * value:.1f} ({100 * gap.exact[k]:.1f})" for k, value in gap.through_index.items()]
    return f"{way}  {gap.kind:<5}  {'  '.join(recalls)}".rstrip() + (left_out if gap.left_out else "")


def _legend(report: Report) -> str:
    if not report.intervals:
        return LEGEND
    return (
        f"{LEGEND}\nIntervals: {report.resamples:,} samples of the {report.items:,} items, each with all its queries."
    )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
