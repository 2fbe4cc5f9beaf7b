"""The run of `retinaface-fast detect`: from sources to results, past what is broken."""

from __future__ import annotations

import contextlib
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinaface_fast.errors import RetinaFaceError
from retinaface_fast.image import read_image

from . import _console
from ._frames import Frames, frame_writer
from ._outputs import (
    Csv,
    Inputs,
    JsonLines,
    OutputError,
    Records,
    ResultsError,
    Stream,
    naming,
    unique,
    write_picture,
)
from ._report import TABLE_PICTURES, Tally, plural, print_faces, progress_bar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.progress import Progress, TaskID

    from retinaface_fast._typing import UInt8Array
    from retinaface_fast.detections import Detections
    from retinaface_fast.detector import FaceDetector

    from ._sources import NotFound, Source


class _StopRun(Exception):  # noqa: N818 -- not an error: it ends the run
    """Ends the run at the first failure (`--fail-fast`)."""


def _failures() -> tuple[type[Exception], ...]:
    """What is the fault of one source and does not end the run."""
    # OpenCV raises its own class where it lacks memory, also while it resizes, turns or warps.
    cv2 = sys.modules.get("cv2")
    return (RetinaFaceError, OSError, ValueError, MemoryError, *(() if cv2 is None else (cv2.error,)))


@dataclass(frozen=True, slots=True)
class Plan:
    """What one call of the command is to do.

    Attributes:
        sources: Pictures and videos, in order.
        missing: Arguments that lead to nothing: each counts as failed.
        camera: Number of a camera to look at after the sources.
        targets: Where annotated versions go, by the source's path; None writes none.
        camera_target: Where the camera's annotated video goes.
        crops: Folder for aligned faces.
        crop_size: Side of an aligned face in pixels.
        max_pixels: Refuse files with more pixels; see `read_image`.
        json_to: File for JSON lines, or `-`.
        csv_to: File for CSV, or `-`.
        every: Look at every nth frame of a video.
        max_frames: Stop a video or camera after so many frames that were looked at.
        fail_fast: Stop at the first failure.
        quiet: Print errors only.
    """

    sources: Sequence[Source]
    missing: Sequence[NotFound] = ()
    camera: int | None = None
    targets: Mapping[Path, Path] | None = None
    camera_target: Path | None = None
    crops: Path | None = None
    crop_size: int = 112
    max_pixels: int | None = None
    json_to: str | None = None
    csv_to: str | None = None
    every: int = 1
    max_frames: int | None = None
    fail_fast: bool = False
    quiet: bool = False

    @property
    def shows_tables(self) -> bool:
        """Whether the standard output is for a person, who has few enough pictures to look at tables."""
        return (
            not self.quiet and "-" not in (self.json_to, self.csv_to) and len(self.sources) <= TABLE_PICTURES
        )


@dataclass(slots=True)
class Run:
    """A run in progress; call it once."""

    plan: Plan
    detector: FaceDetector
    tally: Tally = field(default_factory=Tally)
    _records: list[Records] = field(default_factory=list)
    _crop_names: set[Path] = field(default_factory=set)
    _inputs: Inputs = field(init=False)
    _progress: Progress = field(init=False)
    _task: TaskID = field(init=False)

    def __call__(self) -> int:
        """Do the work and return the exit code: 0, 1 if anything failed, 130 if it was interrupted."""
        plan, tally, console = self.plan, self.tally, _console.stderr()
        self._inputs = Inputs(plan.sources)
        started = time.perf_counter()
        with contextlib.ExitStack() as stack:
            if plan.json_to is not None:
                self._records.append(JsonLines(stack.enter_context(Stream(plan.json_to))))
            # A header above nothing is no result; the JSON lines hold at least why there is none.
            if plan.csv_to is not None and (plan.sources or plan.camera is not None):
                self._records.append(Csv(stack.enter_context(Stream(plan.csv_to))))
            self._progress = stack.enter_context(progress_bar(console, enabled=not plan.quiet))
            self._task = self._progress.add_task("pictures", total=len(plan.sources), faces=0)
            try:
                self._everything()
            except KeyboardInterrupt:
                tally.interrupted = True
            except _StopRun:
                pass
        if not plan.quiet:
            total = len(plan.sources) + len(plan.missing)
            text = tally.summary(time.perf_counter() - started, total=total)
            _console.line(console, text, style="red" if tally.failed else "green")
        if tally.interrupted:
            return 130
        return 1 if tally.failed else 0

    def _everything(self) -> None:
        for absent in self.plan.missing:
            self._fail(absent.argument, absent.reason)
        for source in self.plan.sources:
            name = str(source.path)
            try:
                if source.is_video:
                    target = self.plan.targets[source.path] if self.plan.targets is not None else None
                    self._stream(name, source.path, target, source.relative)
                else:
                    self._picture(name, source)
            except (BrokenPipeError, ResultsError):  # nobody gets the results: no fault of the picture
                raise
            except OutputError as error:
                self._fail(name, str(error), is_its_fault=False)
            except _failures() as error:
                self._fail(name, str(error) or type(error).__name__)
            self._progress.update(self._task, advance=1, faces=self.tally.faces)
        if self.plan.camera is not None:
            name = f"camera:{self.plan.camera}"
            try:
                self._stream(
                    name, self.plan.camera, self.plan.camera_target, Path(f"camera-{self.plan.camera}")
                )
            except (BrokenPipeError, ResultsError):
                raise
            except OutputError as error:
                self._fail(name, str(error), is_its_fault=False)
            except _failures() as error:
                self._fail(name, str(error) or type(error).__name__)

    def _fail(self, name: str, message: str, *, is_its_fault: bool = True) -> None:
        self.tally.failed += 1
        says_all = name in message or not is_its_fault
        _console.error(message if says_all else f"{name}: {message}", self._progress.console)
        for records in self._records:
            records.write_error(name, message)
        if self.plan.fail_fast:
            raise _StopRun

    def _picture(self, name: str, source: Source) -> None:
        if self.plan.targets is None and self.plan.crops is None:
            # The detector reads the file itself: with max_side it may decode it at a reduced scale.
            detections = self.detector.detect(source.path)
        else:
            pixels = read_image(source.path, max_pixels=self.plan.max_pixels).to_color("bgr")
            detections = self.detector.detect(pixels)
            if self.plan.targets is not None:
                write_picture(self.plan.targets[source.path], detections.draw(pixels))
            self._crops(pixels, detections, source.relative.with_suffix(""))
        self.tally.pictures += 1
        self._result({"source": name}, detections)
        if self.plan.shows_tables:
            with naming("the standard output", ResultsError):
                print_faces(_console.stdout(), name, detections)

    def _stream(self, name: str, origin: Path | int, target: Path | None, relative: Path) -> None:
        plan, before = self.plan, (self.tally.frames, self.tally.faces)
        with contextlib.ExitStack() as stack:
            frames = stack.enter_context(Frames(origin))
            write = stack.enter_context(frame_writer(target, frames.rate / plan.every)) if target else None
            wanted = frames.count and -(-frames.count // plan.every)
            if plan.max_frames is not None:
                wanted = min(wanted, plan.max_frames) if wanted else plan.max_frames
            task = self._progress.add_task("frames", total=wanted, faces=0)
            stack.callback(self._progress.remove_task, task)
            for number, (index, seconds, pixels) in enumerate(frames.read(every=plan.every), start=1):
                detections = self.detector.detect(pixels)
                if write is not None:
                    write(detections.draw(pixels))
                self._crops(pixels, detections, relative.with_name(f"{relative.stem}-{index:06}"))
                self.tally.frames += 1
                self._result({"source": name, "frame": index, "seconds": round(seconds, 3)}, detections)
                self._progress.update(task, advance=1, faces=self.tally.faces - before[1])
                if number == plan.max_frames:
                    break
        if plan.shows_tables:
            frames_done, faces = self.tally.frames - before[0], self.tally.faces - before[1]
            with naming("the standard output", ResultsError):
                _console.line(
                    _console.stdout(), f"{name}: {plural(faces, 'face')} in {plural(frames_done, 'frame')}"
                )

    def _result(self, origin: dict[str, Any], detections: Detections) -> None:
        self.tally.faces += len(detections)
        for records in self._records:
            records.write(origin, detections)

    def _crops(self, pixels: UInt8Array, detections: Detections, relative: Path) -> None:
        if self.plan.crops is None or not len(detections):
            return
        for index, crop in enumerate(detections.align(pixels, size=self.plan.crop_size)):
            name = self.plan.crops / relative.with_name(f"{relative.name}-{index}.png")
            target = unique(name, self._crop_names)
            write_picture(self._inputs.protect(target, "--crops"), crop)
