"""The table as a picture: how much better than the textbook, and how near to the limit."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.benchmarks.report import Line, number

PRODUCT, TEXTBOOK, WORSE, INK, PALE = "#2563eb", "#cbd5e1", "#f59e0b", "#1e293b", "#64748b"
BAR = 0.62  # of the room that a row has


def draw(lines: Sequence[Line], note: str, file: Path):
    """Write a PNG; `note` says when and where it was measured."""
    factors = {line.row.title: _times_better(line) for line in lines if line.figures.get("textbook")}
    near = [line for line in lines if line.figures.get("limit") and not line.row.less_is_better]
    figure = Figure(figsize=(11, 2.2 + 0.42 * (len(factors) + 1.6 * len(near))), dpi=160, layout="constrained")
    upper, lower = figure.subplots(2, 1, height_ratios=(len(factors), 1.6 * len(near)))
    _draw_factors(upper, factors)
    _draw_shares(lower, near)
    for axes in (upper, lower):
        axes.invert_yaxis()
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0, colors=INK)
        axes.set_xticks([])
        axes.minorticks_off()
        axes.margins(y=0.02)
    figure.supxlabel(note, fontsize=8, color=PALE)
    figure.savefig(file)


def _draw_factors(axes: Axes, factors: dict[str, float]):
    _head(axes, "Times better than a textbook FastAPI app")
    colors = [PRODUCT if factor >= 1 else WORSE for factor in factors.values()]
    bars = axes.barh(list(factors), [factor - 1 for factor in factors.values()], BAR, left=1, color=colors)
    axes.set_xscale("log")
    axes.set_xlim(min(1, *factors.values()) * 0.8, max(factors.values()) * 1.5)
    axes.axvline(1, color=PALE, linewidth=1)
    for bar, factor in zip(bars, factors.values(), strict=True):
        _label(axes, bar.get_y() + BAR / 2, max(1, factor) * 1.04, f"{number(factor)}x")


def _draw_shares(axes: Axes, near: Sequence[Line]):
    _head(axes, "Share of the limit: a server that only hashes and writes the body, or answers fixed bytes")
    places = range(len(near))
    for kind, color, shift in (("product", PRODUCT, -0.2), ("textbook", TEXTBOOK, 0.2)):
        shares = [line.figures[kind] / line.figures["limit"] for line in near]
        axes.barh([place + shift for place in places], shares, 0.36, color=color, label=kind)
        for place, share in zip(places, shares, strict=True):
            _label(axes, place + shift, share + 0.005, f"{share:.0%}")
    axes.set_yticks(places, [line.row.title for line in near])
    axes.set_xlim(0, 1.08)
    axes.axvline(1, color=PALE, linewidth=1, linestyle=":")
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(0.98, 0), labelcolor=INK)


def _head(axes: Axes, text: str):
    axes.set_title(text, loc="left", fontweight="bold", color=INK, pad=12)


def _label(axes: Axes, y: float, x: float, text: str):
    axes.text(x, y, text, va="center", fontsize=9, color=INK)


def _times_better(line: Line) -> float:
    product, textbook = line.figures["product"], line.figures["textbook"]
    return textbook / product if line.row.less_is_better else product / textbook
