"""Precision-recall curves as pictures, in the style of the official page of WIDER FACE."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retinaface_fast.errors import MissingDependencyError

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from .widerface import Curve

__all__ = ["plot_curves"]

#: Told apart by people who see colours differently, too: Okabe and Ito 2008, without the yellow that is faint
#: on white. Then the same, dashed and dotted.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_LONGEST_NAME = 40
_LINES = ("-", "--", ":")


def plot_curves(
    results: Mapping[str, Mapping[str, Curve]],
    folder: str | os.PathLike[str],
    *,
    formats: Sequence[str] = ("png", "svg"),
) -> list[Path]:
    """Draw a figure for each subset: recall to the right, precision upwards, average precision in the legend.

    Args:
        results: The curves of each result by subset, such as `Scores.curves`, by the name that the legend is
            to have. The first has the subsets that are drawn; the others need them, too.
        folder: Where `curve-<subset>.<format>` are written; it is made if need be.
        formats: Of files; any that matplotlib writes.

    Returns:
        The files.

    Raises:
        ValueError: There is no result, or one lacks a subset.
        MissingDependencyError: matplotlib is not installed.
    """
    if not results:
        raise ValueError("results must hold at least one, by its name")
    subsets = list(next(iter(results.values())))
    for name, curves in results.items():
        missing = [subset for subset in subsets if subset not in curves]
        if missing:
            raise ValueError(f"results must hold the subset {missing[0]!r} of {name}, got {list(curves)}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for subset in subsets:
        figure = _draw({name: curves[subset] for name, curves in results.items()}, subset)
        for suffix in formats:
            path = folder / f"curve-{subset}.{suffix}"
            # Without a date, the same curves give the same file.
            figure.savefig(path, dpi=150, metadata={"Date": None} if suffix == "svg" else None)
            written.append(path)
    return written


def _shortened(name: str) -> str:
    """Return a name that a legend has room for."""
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def _draw(curves: Mapping[str, Curve], title: str) -> Any:
    """A figure of its own: pyplot would keep it, and chooses a window system."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            "matplotlib", purpose="drawing precision-recall curves", extra="eval"
        ) from error
    figure = Figure(figsize=(6.4, 5.6), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    best_first = sorted(curves, key=lambda name: -curves[name].average_precision)
    colors = {name: index for index, name in enumerate(curves)}  # whoever leads, a name keeps its colour
    lines = []
    for name in best_first:
        curve = curves[name]
        drawn = curve.precision > 0  # before the first prediction there is none
        index = colors[name]
        axes.plot(
            curve.recall[drawn],
            curve.precision[drawn],
            _LINES[index // len(_COLORS) % len(_LINES)],
            color=_COLORS[index % len(_COLORS)],
            linewidth=2,
            label=f"{name}-{curve.average_precision:.3f}",
        )
        lines.append((axes.lines[-1], f"{_shortened(name)}-{curve.average_precision:.3f}"))
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="Recall", ylabel="Precision")
    axes.set_title(title.capitalize(), fontweight="bold")
    ticks = np.linspace(0, 1, 11)
    axes.set_xticks(ticks)
    axes.set_yticks(ticks)
    axes.grid(color="0.85", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(direction="in", top=True, right=True, pad=6)
    # By handle: matplotlib leaves out a label that begins with an underscore.
    legend = axes.legend(
        *zip(*lines, strict=True), loc="lower left", framealpha=0.9, edgecolor="0.6", fancybox=False
    )
    for text in legend.get_texts():
        text.set_parse_math(False)  # a name is no formula
    return figure
