"""Where everything in a plot of the report lies, in units of its SVG; colours and text are the template's."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["curve_plot", "height_plot"]

# A phone shows the plots at about the size of their units, so that letters keep theirs.
_WIDTH, _LEFT, _RIGHT, _TOP, _BOTTOM = 400, 46, 16, 12, 42
_HEIGHT_OF_BARS, _HEIGHT_OF_CURVES = 240, 330
#: A bin with one face among bins with hundreds still shows.
_LEAST_BAR = 2.0


def height_plot(summary: Mapping[str, Any]) -> dict[str, Any] | None:
    """Lay out the histogram of face heights, the bars of all detectors beside each other in each bin.

    Args:
        summary: What `summarize_comparison` returned.

    Returns:
        `width` and `height`; `bars` with x, y, width, height, series (index of the detector) and count;
        `x_ticks` and `y_ticks` with `at` and `text`; the edges of the plot. None where there is no face.
    """
    edges, counts = summary["heights"]["edges"], list(summary["heights"]["counts"].values())
    if len(edges) < 2:
        return None
    most = max(max(each) for each in counts)
    step = _step(most)
    top = step * math.ceil(most / step)
    right, bottom = _WIDTH - _RIGHT, _HEIGHT_OF_BARS - _BOTTOM
    bin_width = (right - _LEFT) / (len(edges) - 1)
    bar_width = 0.86 * bin_width / len(counts)
    bars = []
    for series, of_detector in enumerate(counts):
        for index, count in enumerate(of_detector):
            if count:
                tall = max(_LEAST_BAR, count / top * (bottom - _TOP))
                x = _LEFT + (index + 0.07) * bin_width + series * bar_width
                bars.append(
                    {
                        "x": round(x, 2),
                        "y": round(bottom - tall, 2),
                        "width": round(bar_width, 2),
                        "height": round(tall, 2),
                        "series": series,
                        "count": count,
                        "bin": index,
                    }
                )
    # Powers of two, which every second edge is; with few bins the others, too.
    every = [edge for edge in edges if math.log2(edge) % 1 < 0.01 or math.log2(edge) % 1 > 0.99]
    named = edges if len(edges) <= 5 else every
    return {
        **_frame(_HEIGHT_OF_BARS),
        "bars": bars,
        "x_ticks": [
            {"at": round(_LEFT + edges.index(edge) * bin_width, 2), "text": f"{edge:.0f}"} for edge in named
        ],
        "y_ticks": [
            {"at": round(bottom - value / top * (bottom - _TOP), 2), "text": f"{value:,}"}
            for value in range(0, top + 1, step)
        ],
    }


def _frame(height: int) -> dict[str, int]:
    return {
        "width": _WIDTH,
        "height": height,
        "left": _LEFT,
        "right": _WIDTH - _RIGHT,
        "top": _TOP,
        "bottom": height - _BOTTOM,
    }


def _step(most: int) -> int:
    """A round number that goes three to six times into the highest bar."""
    power = 10 ** max(0, math.floor(math.log10(max(most, 1))) - 1)
    return next(int(step) for k in range(9) for m in (1, 2, 5) if most / (step := m * power * 10**k) <= 6)


def curve_plot(curves: Mapping[str, Mapping[str, Any]], subset: str) -> dict[str, Any]:
    """Lay out the precision-recall curves of all detectors on one subset.

    Args:
        curves: `ground_truth["curves"]` of `summarize_comparison`.
        subset: Name of the subset; each detector has it.

    Returns:
        `width` and `height`; `lines` with series and points; ticks as for `height_plot`.
    """
    frame = _frame(_HEIGHT_OF_CURVES)
    across, up = frame["right"] - _LEFT, frame["bottom"] - _TOP
    lines = []
    for series, of_detector in enumerate(curves.values()):
        curve = of_detector[subset]
        points = _thinned(
            [
                (round(_LEFT + recall * across, 1), round(frame["bottom"] - precision * up, 1))
                for recall, precision in zip(curve["recall"], curve["precision"], strict=True)
                if precision > 0  # before the first prediction there is none
            ]
        )
        lines.append({"series": series, "points": " ".join(f"{x},{y}" for x, y in points)})
    fifths = [index / 5 for index in range(6)]
    return {
        **frame,
        "lines": lines,
        "x_ticks": [{"at": round(_LEFT + share * across, 1), "text": f"{share:.1f}"} for share in fifths],
        "y_ticks": [
            {"at": round(frame["bottom"] - share * up, 1), "text": f"{share:.1f}"} for share in fifths
        ],
    }


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Leave out what repeats the point before: most of a thousand thresholds do."""
    return [point for index, point in enumerate(points) if index == 0 or point != points[index - 1]]
