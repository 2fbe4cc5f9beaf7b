"""The picture of a run: what is read from its TensorBoard files, and what is drawn of it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from retinaface_fast.errors import DatasetError, MissingDependencyError
from retinaface_fast.training import curves
from retinaface_fast.training.curves import plot_run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

pytest.importorskip("matplotlib")
pytest.importorskip("tensorboard")
writer = pytest.importorskip("torch.utils.tensorboard")


def log(
    folder: Path, values: Mapping[str, Mapping[int, float]], *, name: str, purge: int | None = None
) -> None:
    """Write an event file; `name` keeps apart what is written within one second, and orders it."""
    with writer.SummaryWriter(str(folder), purge_step=purge, filename_suffix=f".{name}") as file:
        for tag, curve in values.items():
            for step, value in curve.items():
                file.add_scalar(tag, value, step)


def drawn(monkeypatch: pytest.MonkeyPatch, folder: Path, target: Path) -> dict[str, Any]:
    """The axes of the picture by their titles."""
    figures: list[Any] = []
    draw = curves._draw
    monkeypatch.setattr(curves, "_draw", lambda panels: figures.append(draw(panels)) or figures[-1])
    assert plot_run(folder, target) == target
    [figure] = figures
    return {axis.get_title(loc="left"): axis for axis in figure.axes}


def lines(axis: Any) -> dict[str, tuple[list[float], list[float]]]:
    return {
        line.get_label().split()[0]: (list(line.get_xdata()), [round(float(y), 5) for y in line.get_ydata()])
        for line in axis.lines
    }


RUN = {
    "train/loss": {10: 9.0, 20: 5.0, 30: 4.0},
    "train/classification": {10: 4.0, 20: 2.0, 30: 1.5},
    "train/box": {10: 2.0, 20: 1.0, 30: 0.75},
    "train/landmark": {10: 3.0, 20: 2.0, 30: 1.75},
    "train/epoch": {10: 0, 20: 1, 30: 2},
    "train/lr": {10: 0.001, 20: 0.01, 30: 0.001},
    "validation/easy": {15: 0.5, 30: 0.75},
    "validation/medium": {15: 0.25, 30: 0.5},
    "validation/hard": {15: 0.125, 30: 0.25},
    "other": {1: 1.0},
}


def test_three_panels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log(tmp_path / "run" / "log", RUN, name="a")
    axes = drawn(monkeypatch, tmp_path / "run", tmp_path / "new" / "run.png")
    assert list(axes) == ["loss", "learning rate", "average precision"]
    assert lines(axes["loss"]) == {
        name: ([10, 20, 30], list(RUN[f"train/{name}"].values()))
        for name in ("loss", "classification", "box", "landmark")
    }
    assert lines(axes["learning rate"]) == {"lr": ([10, 20, 30], [0.001, 0.01, 0.001])}
    assert axes["learning rate"].get_yscale() == "log"
    assert lines(axes["average precision"]) == {
        name: ([15, 30], list(RUN[f"validation/{name}"].values())) for name in ("easy", "medium", "hard")
    }
    assert axes["average precision"].get_ylim() == (0, 1)
    labels = [text.get_text() for text in axes["average precision"].get_legend().get_texts()]
    assert labels == ["easy 0.75", "medium 0.5", "hard 0.25"]
    for axis in axes.values():
        assert len({line.get_color() for line in axis.lines}) == len(axis.lines)
    picture = cv2.imread(str(tmp_path / "new" / "run.png"))
    assert picture is not None
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["run.png"]
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_a_resumed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The later value of a step wins, and what the second file takes back is gone."""
    log(tmp_path, {"train/loss": {1: 9.0, 2: 8.0, 3: 7.0, 4: 6.0, 6: 5.0}}, name="a")
    log(tmp_path, {"train/loss": {4: 3.0, 5: 2.0}}, name="b", purge=4)
    axes = drawn(monkeypatch, tmp_path, tmp_path / "run.png")
    assert list(axes) == ["loss"]
    assert lines(axes["loss"]) == {"loss": ([1, 2, 3, 4, 5], [9.0, 8.0, 7.0, 3.0, 2.0])}


def test_a_curve_that_is_taken_back_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log(tmp_path, {"train/loss": {1: 9.0, 5: 8.0}, "validation/ap": {5: 0.5}}, name="a")
    log(tmp_path, {"train/loss": {5: 7.0}}, name="b", purge=4)
    axes = drawn(monkeypatch, tmp_path, tmp_path / "run.png")
    assert list(axes) == ["loss"]
    assert lines(axes["loss"]) == {"loss": ([1, 5], [9.0, 7.0])}


@pytest.mark.parametrize("folders", [("log", "log"), ("second", "first")])
def test_the_later_value_of_a_step_wins(
    folders: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log(tmp_path / folders[0], {"train/loss": {1: 9.0, 2: 8.0, 3: 7.0}}, name="a")
    log(tmp_path / folders[1], {"train/loss": {3: 6.0, 2: 5.0}}, name="b")
    axes = drawn(monkeypatch, tmp_path, tmp_path / "run.png")
    assert lines(axes["loss"]) == {"loss": ([1, 2, 3], [9.0, 5.0, 6.0])}


def test_every_value_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorBoard keeps a sample of long curves unless it is told otherwise."""
    log(tmp_path, {"train/loss": {step: 1.0 + step % 7 for step in range(12_000)}}, name="a")
    axes = drawn(monkeypatch, tmp_path, tmp_path / "run.png")
    assert len(lines(axes["loss"])["loss"][0]) == 12_000


def test_a_run_that_was_killed_while_it_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log(tmp_path, {"train/loss": {1: 9.0, 2: 8.0, 3: 7.0}}, name="a")
    [file] = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-5])
    axes = drawn(monkeypatch, tmp_path, tmp_path / "run.png")
    assert lines(axes["loss"]) == {"loss": ([1, 2], [9.0, 8.0])}


def test_losses_that_are_no_numbers_and_unknown_terms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log(tmp_path, {"train/total": {1: 2.0, 2: float("nan")}, "train/$new_": {1: 0.0}}, name="a")
    log(tmp_path, {"train/lr": {1: 0.0}, "validation/ap": {2: 0.5}}, name="b")
    axes = drawn(monkeypatch, tmp_path, tmp_path / "run.png")
    assert list(lines(axes["loss"])) == ["total", "$new_"]
    assert axes["learning rate"].get_yscale() == "linear"
    assert lines(axes["average precision"]) == {"ap": ([2], [0.5])}


def test_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"output_png: .* \.png file, got 'run\.svg'"):
        plot_run(tmp_path, tmp_path / "run.svg")
    with pytest.raises(DatasetError, match="absent is not a folder"):
        plot_run(tmp_path / "absent", tmp_path / "run.png")
    with pytest.raises(DatasetError, match="holds no TensorBoard files"):
        plot_run(tmp_path, tmp_path / "run.png")
    log(tmp_path / "log", {"other": {1: 1.0}}, name="a")
    with pytest.raises(DatasetError, match=r"expected scalars train/… or validation/…, got \['other'\]"):
        plot_run(tmp_path, tmp_path / "run.png")
    assert [path.name for path in tmp_path.iterdir()] == ["log"]
    monkeypatch.setitem(sys.modules, "tensorboard.backend.event_processing.event_accumulator", None)
    with pytest.raises(MissingDependencyError, match=r"tensorboard is needed for .*fast\[train\]"):
        plot_run(tmp_path, tmp_path / "run.png")
