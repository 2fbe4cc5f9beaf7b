"""What a person reads: the table of faces, the progress bar, the closing line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from rich import box
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from ._console import line

if TYPE_CHECKING:
    from rich.console import Console

    from retinaface_fast._typing import FloatArray
    from retinaface_fast.detections import Detections

#: Tables are for looking at: no more pictures than this, and no more faces of one picture, are shown.
TABLE_PICTURES = 10
TABLE_FACES = 20


class RateColumn(ProgressColumn):
    """How many a second."""

    def render(self, task: Task) -> Text:
        """Return the rate over the last half minute."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f}/s" if speed else "", style="progress.data.speed")


def progress_bar(console: Console, *, enabled: bool) -> Progress:
    """Return a progress bar with rate; nothing is drawn where there is no terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        RateColumn(),
        TextColumn("{task.fields[faces]} faces"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not (enabled and console.is_terminal),
    )


def _points(points: FloatArray) -> str:
    return " ".join("-" if np.isnan((x, y)).any() else f"{x:.0f},{y:.0f}" for x, y in points)


def print_faces(console: Console, name: str, detections: Detections) -> None:
    """Print the table of one picture's faces, best first; pixels of the picture, rounded.

    It fits into 80 columns as long as the coordinates have three digits.
    """
    height, width = detections.image_size
    title = f"{name}: {plural(len(detections), 'face')} in {width}x{height} pixels"
    line(console, title, style="bold")
    if not len(detections):
        return
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for heading in ("face", "score", "x1", "y1", "x2", "y2"):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("eyes", "nose", "mouth"):
        table.add_column(heading)
    for index, face in enumerate(detections[:TABLE_FACES]):
        table.add_row(
            str(index),
            f"{face.score:.3f}",
            *(f"{v:.0f}" for v in face.box),
            _points(face.landmarks[:2]),
            _points(face.landmarks[2:3]),
            _points(face.landmarks[3:]),
        )
    console.print(table)
    if len(detections) > TABLE_FACES:
        line(console, f"and {len(detections) - TABLE_FACES:,} more")


def plural(count: int, noun: str) -> str:
    """Return a count with its noun.

    Examples:
        >>> plural(1, "face"), plural(1200, "face")
        ('1 face', '1,200 faces')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


@dataclass(slots=True)
class Tally:
    """What a run has done so far.

    Examples:
        >>> tally = Tally(pictures=3, faces=7, failed=1)
        >>> tally.summary(1.5, total=4)
        '3 pictures, 7 faces, 1 failed, in 1.5 s (2.0/s)'
        >>> Tally(failed=1).summary(0.1, total=1)
        '0 pictures, 0 faces, 1 failed, in 0.1 s'
        >>> Tally(frames=100, interrupted=True).summary(10.0, total=1)
        'interrupted: 100 frames, 0 faces, in 10.0 s (10.0/s)'
    """

    pictures: int = 0
    frames: int = 0
    faces: int = 0
    failed: int = 0
    interrupted: bool = False

    def summary(self, seconds: float, *, total: int) -> str:
        """Return the closing line of a run over `total` sources that took so many seconds."""
        looked_at = [plural(self.pictures, "picture")] if self.pictures or not self.frames else []
        if self.interrupted and total > 1:
            looked_at[:1] = [f"{self.pictures:,} of {plural(total, 'picture')}"]
        if self.frames:
            looked_at.append(plural(self.frames, "frame"))
        parts = [*looked_at, plural(self.faces, "face")]
        if self.failed:
            parts.append(f"{self.failed:,} failed")
        done = self.pictures + self.frames
        rate = f" ({done / seconds:.1f}/s)" if done and seconds > 0 else ""
        start = "interrupted: " if self.interrupted else ""
        return f"{start}{', '.join(parts)}, in {seconds:.1f} s{rate}"
