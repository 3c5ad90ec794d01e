"""The table as a picture: how much better than the textbook, and how near to the limit."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from tests.benchmarks.report import Line, number

PRODUCT, TEXTBOOK, WORSE, INK, PALE = "#2563eb", "#cbd5e1", "#f59e0b", "#1e293b", "#64748b"


def draw(lines: Sequence[Line], note: str, file: Path):
    """Write a PNG; `note` says when and where it was measured."""
    compared = [line for line in lines if line.figures.get("textbook")]
    near = [line for line in lines if line.figures.get("limit") and not line.row.less_is_better]
    heights = [len(compared), 1.6 * len(near)]
    figure = Figure(
        figsize=(11, 1.5 + 0.33 * sum(heights)), dpi=160, layout=ConstrainedLayoutEngine(h_pad=0.12, w_pad=0.12)
    )
    upper, lower = figure.subplots(2, 1, height_ratios=heights)
    _draw_factors(upper, compared)
    _draw_shares(lower, near)
    for axes, title in ((upper, "Times better than a textbook FastAPI app"), (lower, "Share of the machine's limit")):
        axes.set_title(title, loc="left", fontweight="bold", color=INK, pad=8)
        axes.invert_yaxis()
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0, colors=INK)
        axes.set_xticks([])
        axes.minorticks_off()
        axes.margins(y=0.02)
    figure.supxlabel(note, fontsize=8, color=PALE)
    figure.savefig(file)


def _draw_factors(axes: Axes, lines: Sequence[Line]):
    factors = [_times_better(line) for line in lines]
    colors = [PRODUCT if factor >= 1 else WORSE for factor in factors]
    axes.barh([line.row.title for line in lines], [factor - 1 for factor in factors], 0.62, left=1, color=colors)
    axes.set_xscale("log")
    axes.set_xlim(min(1, *factors) * 0.8, max(factors) * 6)
    axes.axvline(1, color=PALE, linewidth=1)
    for place, (line, factor) in enumerate(zip(lines, factors, strict=True)):
        product, textbook = (number(line.figures[kind]) for kind in ("product", "textbook"))
        times = axes.text(max(1, factor) * 1.03, place, f"{number(factor)}x", va="center", color=INK, fontweight="bold")
        facts = f"   {product} against {textbook} {line.row.figure}"
        axes.annotate(facts, (1, 0.5), xycoords=times, va="center", color=PALE, fontsize=9)


def _draw_shares(axes: Axes, lines: Sequence[Line]):
    places = range(len(lines))
    for kind, color, shift in (("product", PRODUCT, -0.2), ("textbook", TEXTBOOK, 0.2)):
        shares = [line.figures[kind] / line.figures["limit"] for line in lines]
        bars = axes.barh([place + shift for place in places], shares, 0.36, color=color, label=kind)
        axes.bar_label(bars, [f"{share:.0%}" for share in shares], padding=5, color=INK, fontsize=9)
    axes.set_yticks(places, [line.row.title for line in lines])
    axes.set_xlim(0, 1.08)
    axes.axvline(1, color=PALE, linewidth=1, linestyle=":")
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(0.9, 0), labelcolor=INK)


def _times_better(line: Line) -> float:
    product, textbook = line.figures["product"], line.figures["textbook"]
    return textbook / product if line.row.less_is_better else product / textbook
