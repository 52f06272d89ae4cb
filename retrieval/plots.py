"""Figures as SVG text, readable on light and dark backgrounds; a MissingPackageError without matplotlib."""

import io
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any, Final

from retrieval.extras import require_extra

_INK: Final = "#717273"  # placeholder of the reader's text color
_STYLE: Final = "<style>svg{color:#585a64}@media(prefers-color-scheme:dark){svg{color:#b6b8c2}}</style>"
_COLORS: Final = ("#4c78d6", "#d9822b", "#3fa27c", "#b45fc0")
_FEW_TICKS: Final = 8


def recall_plot(
    curves: Mapping[str, Mapping[int, float]], *, random_baseline: Mapping[int, float] | None = None
) -> str:
    """Return an SVG of recall@K over K, a curve for each named direction.

    Args:
        curves: For each name, the recall in [0, 1] at each K.
        random_baseline: Recall at each K of a random order, drawn dashed.
    """
    figure, axes = _figure(6.4, 3.8)
    for (name, curve), color, marker in zip(curves.items(), cycle(_COLORS), cycle("os^D")):
        ks = sorted(curve)
        marked = [ks.index(k) for k in _ticks(ks)]
        _draw(axes, curve, label=name, color=color, linewidth=2.2, marker=marker, markevery=marked)
    if random_baseline:
        _draw(axes, random_baseline, label="random", color=_INK, linewidth=1.2, linestyle="--")
    ticks = _ticks(sorted({k for curve in (*curves.values(), random_baseline or {}) for k in curve}))
    axes.set(xscale="log", ylim=(-0.02, 1.03), xlabel="K", ylabel="recall@K")
    axes.set_xticks(ticks, [str(k) for k in ticks])
    axes.minorticks_off()
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".50", ".75", "1"])
    figure.legend(loc="outside upper left", ncols=4, frameon=False, labelcolor=_INK)
    return _as_svg(figure)


def step_plot(
    curves: Mapping[str, Mapping[int, float]], *, label: str, least: float | None = None, most: float | None = None
) -> str:
    """Return an SVG of values over steps, a curve for each name.

    Args:
        curves: For each name, the value at each step.
        label: Label of the vertical axis.
        least: Lower end of the axis; None for automatic.
        most: Upper end of the axis; None for automatic.
    """
    figure, axes = _figure(4.6, 3.0)
    for (name, curve), color in zip(curves.items(), cycle(_COLORS)):
        _draw(axes, curve, label=name, color=color, linewidth=1.8)
    axes.set(xlabel="step", ylabel=label)
    axes.set_ylim(least, most)
    if len(curves) > 1:
        figure.legend(loc="outside upper left", ncols=2, frameon=False, labelcolor=_INK, fontsize="small")
    return _as_svg(figure)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    """Return a figure and its axes, with lines and labels in the reader's text color."""
    with require_extra("plots", "Plotting"):
        from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.grid(color=_INK, alpha=0.25, linewidth=0.8)
    axes.patch.set_alpha(0)
    axes.tick_params(colors=_INK, length=0)
    axes.xaxis.label.set_color(_INK)
    axes.yaxis.label.set_color(_INK)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(_INK)
    return figure, axes


def _draw(axes: Any, curve: Mapping[int, float], **style: Any) -> None:
    xs = sorted(curve)
    axes.plot(xs, [curve[x] for x in xs], **style)


def _ticks(ks: Sequence[int]) -> list[int]:
    """Return every K where they are few, else 1, 2, 5, 10, 20, 50 and so on."""
    return list(ks) if len(ks) <= _FEW_TICKS else [k for k in ks if str(k).rstrip("0") in {"1", "2", "5"}]


def _as_svg(figure: Any) -> str:
    """Return the SVG text, equal for equal figures; text stays text, in the reader's own typeface."""
    from matplotlib import rc_context

    file = io.StringIO()
    nameless = {"Creator": None, "Date": None, "Format": None, "Type": None}
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "retrieval", "font.family": "sans-serif"}):
        figure.savefig(file, format="svg", transparent=True, metadata=nameless)
    text = file.getvalue()
    start = text.index("<svg")
    head = text.index(">", start) + 1
    return text[start:head] + _STYLE + text[head:].replace(_INK, "currentColor")
