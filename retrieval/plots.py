"""Figures as SVG text, readable on light and on dark ground."""

import io
from collections.abc import Mapping, Sequence
from typing import Any, Final

_INK: Final = "#717273"  # stands for the reader's text colour until the SVG is written
_STYLE: Final = "<style>svg{color:#585a64}@media(prefers-color-scheme:dark){svg{color:#b6b8c2}}</style>"
_COLORS: Final = ("#4c78d6", "#d9822b", "#3fa27c", "#b45fc0")
_FEW: Final = 8
_MARKERS: Final = ("o", "s", "^", "D")


def recall_plot(curves: Mapping[str, Mapping[int, float]], *, chance: Mapping[int, float] | None = None) -> str:
    """SVG of recall@K over K, a curve for each named direction.

    Args:
        curves: for each name, the recall in [0, 1] at each K.
        chance: recall at each K of a random order, drawn dashed.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    for number, (name, curve) in enumerate(curves.items()):
        _draw(axes, curve, label=name, color=_COLORS[number % len(_COLORS)], marker=_MARKERS[number % len(_MARKERS)])
    if chance:
        _draw(axes, chance, label="chance", color=_INK, linestyle="--", linewidth=1.2)
    _dress(axes, ks=sorted({k for curve in (*curves.values(), chance or {}) for k in curve}))
    figure.legend(loc="outside upper left", ncols=4, frameon=False, labelcolor=_INK)
    return _as_svg(figure)


def step_plot(
    curves: Mapping[str, Mapping[int, float]], *, label: str, least: float | None = None, most: float | None = None
) -> str:
    """SVG of what happened step by step, a curve for each name.

    Args:
        curves: for each name, the value at each step.
        label: of the vertical axis.
        least: where that begins; None for what the values need.
        most: where it ends.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 3.0), layout="constrained")
    axes = figure.subplots()
    for number, (name, curve) in enumerate(curves.items()):
        steps = sorted(curve)
        color = _COLORS[number % len(_COLORS)]
        axes.plot(steps, [curve[step] for step in steps], label=name, color=color, linewidth=1.8)
    axes.set(xlabel="step", ylabel=label)
    if least is not None or most is not None:
        axes.set_ylim(least, most)
    _ink(axes)
    if len(curves) > 1:
        figure.legend(loc="outside upper left", ncols=2, frameon=False, labelcolor=_INK, fontsize="small")
    return _as_svg(figure)


def _draw(axes: Any, curve: Mapping[int, float], *, label: str, color: str, **style: Any) -> None:
    ks = sorted(curve)
    marked = [ks.index(k) for k in _ticks(ks)]
    axes.plot(ks, [curve[k] for k in ks], label=label, color=color, markevery=marked, **{"linewidth": 2.2, **style})


def _ticks(ks: Sequence[int]) -> list[int]:
    """Every K where they are few, else 1, 2, 5, 10, 20, 50 and so on."""
    return list(ks) if len(ks) <= _FEW else [k for k in ks if str(k).rstrip("0") in {"1", "2", "5"}]


def _dress(axes: Any, *, ks: Sequence[int]) -> None:
    axes.set(xscale="log", ylim=(-0.02, 1.03), xlabel="K", ylabel="recall@K")
    axes.set_xticks(_ticks(ks), [str(k) for k in _ticks(ks)])
    axes.minorticks_off()
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".50", ".75", "1"])
    _ink(axes)


def _ink(axes: Any) -> None:
    """Lines and letters in the reader's own colours."""
    axes.grid(color=_INK, alpha=0.25, linewidth=0.8)
    axes.patch.set_alpha(0)
    axes.tick_params(colors=_INK, length=0)
    axes.xaxis.label.set_color(_INK)
    axes.yaxis.label.set_color(_INK)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(_INK)


def _as_svg(figure: Any) -> str:
    """The same figure gives the same text; letters stay letters, in the reader's own typeface."""
    from matplotlib import rc_context

    file = io.StringIO()
    nameless = {"Creator": None, "Date": None, "Format": None, "Type": None}
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "retrieval", "font.family": "sans-serif"}):
        figure.savefig(file, format="svg", transparent=True, metadata=nameless)
    text = file.getvalue()
    start = text.index("<svg")
    head = text.index(">", start) + 1
    return text[start:head] + _STYLE + text[head:].replace(_INK, "currentColor")
