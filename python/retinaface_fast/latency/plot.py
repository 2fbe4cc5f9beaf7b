"""What a run has found, as a picture: dots, and further to the right is slower."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from retinaface_fast.errors import MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PLOT_SUFFIXES", "plot_latency"]

PLOT_SUFFIXES = (".png", ".svg", ".pdf")
#: On a logarithmic axis the length of a bar would mean nothing, the place of a dot does. The first number of
#: threads is lighter than the last; ours and everyone else's told apart by people who see colours
#: differently, too (Okabe and Ito 2008).
_COLORS = {True: ("#7FB8D9", "#0072B2"), False: ("#EBB08A", "#D55E00")}
_INK = "#222222"
#: Label of a row, whether it is ours, and what was measured of it by number of threads.
_Row: TypeAlias = "tuple[str, bool, dict[int, Mapping[str, Any]]]"


def plot_latency(record: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """Draw the times of whole detections: a panel for each size, a dot for each row and number of threads.

    The line through a dot lies between the quartiles of the rounds. Where a time is suspicious, its number
    has the question mark of the tables.

    Args:
        record: What `LatencyBenchmark` gives.
        path: The file; its suffix, one of `PLOT_SUFFIXES`, says the format. Its folder is made if need be.

    Returns:
        The file.

    Raises:
        ValueError: The suffix is another one, or nothing was measured.
        MissingDependencyError: matplotlib is not installed.
    """
    target = Path(path)
    if target.suffix.lower() not in PLOT_SUFFIXES:
        raise ValueError(f"path must end in {', '.join(PLOT_SUFFIXES)}, got {target.name!r}")
    panels = _panels(record)
    if not panels:
        raise ValueError("record must hold times, got none")
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
    except ImportError as error:
        raise MissingDependencyError("matplotlib", purpose="drawing the times", extra="benchmark") from error
    dots = [sum(len(times) for *_, times in rows) for _, rows in panels]
    gaps = [len(rows) for _, rows in panels]
    heights = [0.21 * count + 0.16 * gap + 0.55 for count, gap in zip(dots, gaps, strict=True)]
    figure = Figure(figsize=(9, sum(heights) + 0.9), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    low, high = _limits([times for _, rows in panels for *_, times in rows])
    steps = (1, 2, 5) if high / low < 1e3 else (1, 3)  # more numbers would lie on each other
    for axis, (title, rows) in zip(axes, panels, strict=True):
        _draw(axis, title, rows)
        axis.set_xscale("log")
        axis.set_xlim(low, high)
        axis.xaxis.set_major_locator(LogLocator(subs=steps))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
    axes[-1].set_xlabel("milliseconds for one picture, array to faces; further left is faster (logarithmic)")
    figure.suptitle(f"{record['machine']['cpu']}: detection of one picture", fontsize=11, color=_INK)
    target.parent.mkdir(parents=True, exist_ok=True)
    # Without a date and random names, the same record gives the same file.
    vector = target.suffix.lower() == ".svg"
    with rc_context({"svg.hashsalt": "retinaface_fast"}):
        part = target.with_name(f".{target.stem}.{os.getpid()}.part{target.suffix}")
        try:
            figure.savefig(part, dpi=150, metadata={"Date": None} if vector else None)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    return target


def _panels(record: Mapping[str, Any]) -> list[tuple[str, list[_Row]]]:
    """Title and rows of each size."""
    sizes: dict[tuple[int, ...], dict[str, dict[int, Mapping[str, Any]]]] = {}
    for cell in record["cells"]:
        rows = sizes.setdefault(tuple(cell["size_hw"]), {})
        for name, result in cell["results"].items():
            if "median" in result:
                rows.setdefault(name, {})[cell["threads"]] = result
    panels = []
    for (height, width), rows in sizes.items():
        # The fastest on most threads is on top.
        order = sorted(rows, key=lambda name: rows[name][max(rows[name])]["median"])
        if order:
            panels.append((f"{width}x{height}", [(name, rows[name]) for name in order]))
    return [
        (
            title,
            [(record["rows"][name]["label"], record["rows"][name]["ours"], times) for name, times in rows],
        )
        for title, rows in panels
    ]


def _draw(axis: Any, title: str, rows: list[_Row]) -> None:
    most = max(max(times) for *_, times in rows)
    place, ticks, labels = 0.0, [], []
    for label, ours, times in rows:
        colors = _COLORS[ours]
        begin = place
        for threads, result in sorted(times.items()):
            middle = result["median"] * 1e3
            low, high = (1e3 * value for value in result["quartiles"])
            color = colors[threads == most and most > 1]
            axis.plot([low, high], [place, place], color=_INK, linewidth=1.2, solid_capstyle="butt")
            axis.plot(
                [middle], [place], "o", color=color, markersize=7, markeredgecolor=_INK, markeredgewidth=0.5
            )
            text = f"{middle:,.0f}" if middle >= 100 else f"{middle:.1f}"
            doubt = " ?" if result.get("suspicion") else ""
            count = "1 thread" if threads == 1 else f"{threads} threads"
            axis.annotate(
                f"{text}{doubt}  {count}",
                (max(middle, high), place),
                xytext=(7, 0),
                textcoords="offset points",
                va="center",
                fontsize=7.5,
                color=_INK,
            )
            place += 1
        ticks.append((begin + place - 1) / 2)
        labels.append(label)
        place += 0.6
    axis.set_yticks(ticks, labels, fontsize=9)
    axis.set_ylim(-0.8, place - 0.8)
    axis.invert_yaxis()
    axis.set_title(title, loc="left", fontsize=10, color=_INK)
    axis.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    axis.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    axis.tick_params(axis="y", length=0)
    axis.tick_params(axis="x", labelbottom=True, labelsize=8)


def _limits(rows: list[dict[int, Mapping[str, Any]]]) -> tuple[float, float]:
    """Milliseconds at both ends of the axis, with room for the numbers at the right."""
    values = [1e3 * result["median"] for times in rows for result in times.values()]
    low, high = min(values) / 1.3, max(values)
    return low, high * (high / low) ** 0.2
