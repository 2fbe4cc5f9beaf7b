"""The curves of a training run as one picture: losses, learning rate, average precision."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from retinaface_fast.errors import DatasetError, MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["plot_run"]

#: Values by step, by the name of the curve.
_Curves: TypeAlias = "dict[str, dict[int, float]]"

#: A curve has its colour whatever else is there. Told apart by people who see colours differently, too: Okabe
#: and Ito 2008, without the yellow that is faint on white.
_COLORS = {
    "loss": "#222222",
    "total": "#222222",
    "classification": "#0072B2",
    "box": "#D55E00",
    "landmark": "#009E73",
    "dense": "#CC79A7",
    "lr": "#222222",
    "easy": "#009E73",
    "medium": "#0072B2",
    "hard": "#D55E00",
    "ap": "#222222",
}
_OTHERS = ("#E69F00", "#56B4E9", "#CC79A7")
_INK = "#222222"
#: Where the events of tag "train/…" belong that are no losses.
_LEARNING_RATE, _NOT_DRAWN = "lr", frozenset({"epoch"})


def plot_run(folder: str | os.PathLike[str], output_png: str | os.PathLike[str]) -> Path:
    """Draw what a run has logged: a panel for the losses, the learning rate, and the average precision.

    The TensorBoard files of the folder, and of the folders in it, are taken for those of one run that was
    resumed: of two values for the same step the later one is drawn, and what a resumed run has taken back is
    not. A panel without values is left out.

    Args:
        folder: The folder of the run. Drawn are the scalars `train/<term of the loss>`, `train/lr` and
            `validation/<subset>`, the latter from 0 to 1.
        output_png: The file, `.png`. Its folder is made if need be.

    Returns:
        The file.

    Raises:
        ValueError: The file has another suffix.
        DatasetError: The folder is missing or holds no such scalars.
        MissingDependencyError: TensorBoard or matplotlib is not installed.
        OSError: The file cannot be written.
    """
    target = Path(output_png)
    if target.suffix.lower() != ".png":
        raise ValueError(f"output_png: expected the name of a .png file, got {target.name!r}")
    scalars = _read(Path(folder))
    train = {tag.removeprefix("train/"): curve for tag, curve in scalars.items() if tag.startswith("train/")}
    rate = {name: train.pop(name) for name in (_LEARNING_RATE,) if name in train}
    panels: dict[str, _Curves] = {
        "loss": {name: curve for name, curve in train.items() if name not in _NOT_DRAWN},
        "learning rate": rate,
        "average precision": {
            tag.removeprefix("validation/"): curve
            for tag, curve in scalars.items()
            if tag.startswith("validation/")
        },
    }
    panels = {title: curves for title, curves in panels.items() if curves}
    if not panels:
        raise DatasetError(f"{folder}: expected scalars train/… or validation/…, got {sorted(scalars)}")
    figure = _draw(panels)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.stem}.{os.getpid()}.part.png")
    try:
        figure.savefig(part, dpi=150)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target


def _read(folder: Path) -> _Curves:
    """The scalars of all event files in and below a folder, by tag."""
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    except ImportError as error:
        raise MissingDependencyError(
            "tensorboard", purpose="reading the log of a training run", extra="train"
        ) from error
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder")
    places = sorted({path.parent for path in folder.rglob("*.tfevents.*")})
    if not places:
        raise DatasetError(f"{folder} holds no TensorBoard files (events.out.tfevents.*)")
    events: dict[str, list[Any]] = {}
    for place in places:
        # Told of a restart at a step, it drops what was logged beyond it. 0: keep all, not a sample.
        accumulator = EventAccumulator(str(place), size_guidance={"scalars": 0})
        accumulator.Reload()
        for tag in accumulator.Tags()["scalars"]:
            # A restart may take back all that a tag has, and leave its name.
            if accumulator.Scalars(tag):
                events.setdefault(tag, []).extend(accumulator.Scalars(tag))
    return {
        tag: dict(sorted({event.step: event.value for event in sorted(found, key=_written)}.items()))
        for tag, found in sorted(events.items())
    }


def _written(event: Any) -> float:
    """When an event was written; the sort keeps the order of those that have the same time."""
    return float(event.wall_time)


def _draw(panels: Mapping[str, _Curves]) -> Any:
    """A figure of its own: pyplot would keep it, and chooses a window system."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            "matplotlib", purpose="drawing the curves of a training run", extra="train"
        ) from error
    figure = Figure(figsize=(9, 0.6 + 2.8 * len(panels)), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axis, (title, curves) in zip(axes, panels.items(), strict=True):
        axis.set_title(title, loc="left", fontsize=10, color=_INK)
        _draw_panel(axis, curves, marked=title == "average precision")
        if title == "learning rate" and any(value > 0 for value in curves[_LEARNING_RATE].values()):
            axis.set_yscale("log")
        if title == "average precision":
            axis.set_ylim(0, 1)
        axis.grid(color="#DDDDDD", linewidth=0.6)
        axis.set_axisbelow(True)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
        axis.tick_params(labelsize=8)
    axes[-1].set_xlabel("step", fontsize=9)
    return figure


def _draw_panel(axis: Any, curves: _Curves, *, marked: bool) -> None:
    order = list(_COLORS)
    known = sorted((name for name in curves if name in _COLORS), key=order.index)
    others = sorted(name for name in curves if name not in _COLORS)
    colors = {name: _COLORS[name] for name in known}
    colors |= {name: _OTHERS[index % len(_OTHERS)] for index, name in enumerate(others)}
    for name, color in colors.items():
        steps, values = list(curves[name]), list(curves[name].values())
        # Few points are seen only as dots: validations, and the first minutes of a run.
        dots = "o" if marked or len(steps) == 1 else ""
        axis.plot(
            steps,
            values,
            color=color,
            linewidth=1.4,
            marker=dots,
            markersize=4,
            label=f"{name} {values[-1]:.4g}",
        )
    legend = axis.legend(
        title="last value", loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8
    )
    legend.get_title().set_fontsize(8)
    for text in legend.get_texts():
        text.set_parse_math(False)  # a name is no formula
