"""The run of `retinaface-fast group`: from pictures to a folder for each person."""

from __future__ import annotations

import csv
import io
import json
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

import retinaface_fast
from retinaface_fast._files import write_whole
from retinaface_fast.compare import can_be_embedded, embedding_crops, group_faces
from retinaface_fast.compare.comparison import failures
from retinaface_fast.compare.panels import encode_jpeg
from retinaface_fast.compare.person_sheets import person_sheets
from retinaface_fast.draw import draw_faces
from retinaface_fast.errors import RetinaFaceError
from retinaface_fast.image import read_image

from . import _console
from ._new_folder import NewFolder
from ._outputs import OutputError, ResultsError, Stream, naming, try_folder
from ._recognition import wide_enough
from ._report import plural, progress_bar

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from retinaface_fast._typing import FloatArray, IntArray, UInt8Array
    from retinaface_fast.compare import FaceEmbedder
    from retinaface_fast.detections import Detections

    from ._sources import NotFound, Source

#: Bytes of a file name that are kept of a picture's: what is put around it has room in the 255 of most disks.
_NAME_BYTES = 120
#: Of all pictures, as JPEG.
_QUALITY = 95
#: Persons that are listed on the terminal.
_LISTED = 20


@dataclass(frozen=True, slots=True)
class Plan:
    """What one call of the command is to do.

    Attributes:
        sources: Pictures, in order.
        missing: Arguments that lead to nothing: each counts as failed.
        out: Folder that is written to.
        threshold: Of `group_faces`.
        min_face: Faces that are less wide, in pixels, are left out.
        min_size: Persons with fewer faces have no folder.
        collages: Faces of one picture may be one person.
        max_pixels: Refuse files with more pixels; see `read_image`.
        json_to: File for a copy of groups.json, or `-`.
        quiet: Print errors only.
    """

    sources: Sequence[Source]
    missing: Sequence[NotFound]
    out: Path
    threshold: float
    min_face: int
    min_size: int
    collages: bool = False
    max_pixels: int | None = None
    json_to: str | None = None
    quiet: bool = False


@dataclass(slots=True)
class _Picture:
    """What is known of a picture.

    Attributes:
        number: From 1, in the order of the sources: part of the names of its files.
        source: Where it is.
        faces: The faces that are grouped.
        indices: Their numbers among all that were found, as `retinaface-fast detect` counts.
        too_small: Faces that were left out for their width.
        without_eyes: Faces that were left out since a landmark model gave no eyes.
        crops: The grouped faces as JPEG. Encoded: those of thousands of faces have room in memory.
        persons: The person of each face, from 1.
    """

    number: int
    source: Source
    faces: Detections
    indices: IntArray
    too_small: int
    without_eyes: int
    crops: list[bytes]
    persons: list[int] = field(default_factory=list)

    @property
    def stem(self) -> str:
        """The beginning of the names of its files: no two pictures share it, and any disk takes it."""
        name = self.source.path.stem
        while len(os.fsencode(name)) > _NAME_BYTES:
            name = name[:-1]
        return f"{self.number:04}-{name}"

    def crop_name(self, face: int) -> str:
        return f"{self.stem}-{self.indices[face]}.jpg"


@dataclass(slots=True)
class GroupRun:
    """A run in progress; call it once."""

    plan: Plan
    detector: Any
    embedder: FaceEmbedder
    _pictures: list[_Picture] = field(default_factory=list)
    _embeddings: list[FloatArray] = field(default_factory=list)
    _errors: list[dict[str, str]] = field(default_factory=list)

    def __call__(self) -> int:
        """Do the work and return the exit code: 0, 1 if anything failed, 130 if it was interrupted."""
        started, plan, console = time.perf_counter(), self.plan, _console.stderr()
        for absent in plan.missing:
            self._fail(absent.argument, absent.reason)
        try_folder(plan.out)
        try:
            with progress_bar(console, enabled=not plan.quiet) as progress:
                task = progress.add_task("pictures", total=len(plan.sources), faces=0)
                faces = 0
                for number, source in enumerate(plan.sources, start=1):
                    try:
                        self._look_at(number, source)
                        faces += len(self._pictures[-1].faces)
                    except failures() as error:
                        self._fail(str(source.path), str(error) or type(error).__name__)
                    progress.update(task, advance=1, faces=faces)
            sizes = self._number_persons()
            if self._pictures:
                self._write(sizes)
        except KeyboardInterrupt:
            _console.error("interrupted")
            return 130
        if not plan.quiet:
            if plan.json_to != "-":
                self._print(sizes)
            self._close(sizes, time.perf_counter() - started)
        return 1 if self._errors else 0

    def _fail(self, name: str, message: str) -> None:
        _console.error(message if name in message else f"{name}: {message}")
        self._errors.append({"source": name, "error": message})

    def _look_at(self, number: int, source: Source) -> None:
        pixels = read_image(source.path, max_pixels=self.plan.max_pixels).to_color("bgr")
        faces = self.detector.detect(pixels)
        wide, usable = wide_enough(faces, self.plan.min_face), can_be_embedded(faces)
        indices = np.flatnonzero(wide & usable)
        faces = faces[indices]
        crops = embedding_crops(pixels, faces)
        self._embeddings.append(self.embedder.embed_crops(crops))
        self._pictures.append(
            _Picture(
                number=number,
                source=source,
                faces=faces,
                indices=indices,
                too_small=int((~wide).sum()),
                without_eyes=int((wide & ~usable).sum()),
                crops=[encode_jpeg(crop, quality=_QUALITY) for crop in crops],
            )
        )

    def _number_persons(self) -> list[int]:
        """Give each face its person; return how many faces each person has, from the first on."""
        if not self._pictures:
            return []
        origins = np.repeat(np.arange(len(self._pictures)), [len(p.faces) for p in self._pictures])
        try:
            labels = group_faces(
                np.concatenate(self._embeddings),
                threshold=self.plan.threshold,
                pictures=None if self.plan.collages else origins,
            )
        except (ValueError, MemoryError) as error:  # there are too many
            raise RetinaFaceError(f"the faces cannot be grouped: {error}") from None
        for index, picture in enumerate(self._pictures):
            picture.persons = (labels[origins == index] + 1).tolist()
        return np.bincount(labels).tolist() if len(labels) else []

    # Output

    def _write(self, sizes: list[int]) -> None:
        """Write the folder, and then what was asked for elsewhere."""
        plan = self.plan
        digits = max(3, len(str(len(sizes))))
        with naming(plan.out, ResultsError), NewFolder(plan.out) as folder:
            self._write_pictures(folder, sizes, digits)
            text = self._json(sizes, digits)
            try:
                folder.write("groups.csv", self._csv().encode())
                folder.write("groups.json", text.encode("ascii"))
            except OutputError as error:
                raise ResultsError(str(error)) from None
        if plan.json_to == "-":
            with Stream(plan.json_to) as stream:
                stream.write(text.encode("ascii"))
        elif plan.json_to is not None:
            with naming(plan.json_to, ResultsError):
                write_whole(plan.json_to, text)

    def _write_pictures(self, folder: NewFolder, sizes: list[int], digits: int) -> None:
        plan = self.plan
        of_person: dict[int, list[bytes]] = {}
        for picture in self._pictures:
            named = [sizes[person - 1] >= plan.min_size for person in picture.persons]
            try:
                for face, person in enumerate(picture.persons):
                    if named[face]:
                        of_person.setdefault(person, []).append(picture.crops[face])
                        name = f"person-{person:0{digits}}/{picture.crop_name(face)}"
                        folder.write(name, picture.crops[face])
                folder.write(
                    f"pictures/{picture.stem}.jpg",
                    encode_jpeg(self._annotated(picture, named), quality=_QUALITY),
                )
            except BrokenPipeError:
                raise
            except failures() as error:
                self._fail(str(picture.source.path), str(error) or type(error).__name__)
        for index, sheet in enumerate(person_sheets(sorted(of_person.items())), start=1):
            folder.write(f"persons-{index}.jpg", encode_jpeg(sheet, quality=_QUALITY))

    def _annotated(self, picture: _Picture, named: list[bool]) -> UInt8Array:
        pixels = read_image(picture.source.path, max_pixels=self.plan.max_pixels).to_color("bgr")
        chosen = np.array(named, dtype=bool)
        boxes = picture.faces.boxes
        drawn = draw_faces(pixels, boxes[~chosen])
        labels = [str(person) for person, has in zip(picture.persons, named, strict=True) if has]
        return draw_faces(drawn, boxes[chosen], labels=labels)

    def _json(self, sizes: list[int], digits: int) -> str:
        plan = self.plan
        persons = [
            {
                "person": person,
                "faces": size,
                "folder": f"person-{person:0{digits}}" if size >= plan.min_size else None,
            }
            for person, size in enumerate(sizes, start=1)
        ]
        pictures = [
            {
                "source": str(picture.source.path),
                "image_size": list(picture.faces.image_size),
                "faces": [
                    {
                        "face": int(index),
                        "person": person,
                        "crop": picture.crop_name(number) if sizes[person - 1] >= plan.min_size else None,
                        **face.to_dict(),
                    }
                    for number, (index, person, face) in enumerate(
                        zip(picture.indices, picture.persons, picture.faces, strict=True)
                    )
                ],
                "too_small": picture.too_small,
                "without_eyes": picture.without_eyes,
            }
            for picture in self._pictures
        ]
        record = {
            "format": 1,
            "version": retinaface_fast.__version__,
            "threshold": plan.threshold,
            "min_face": plan.min_face,
            "min_size": plan.min_size,
            "collages": plan.collages,
            "detector": self.detector.model,
            "persons": persons,
            "pictures": pictures,
            "failed": self._errors,
        }
        # ASCII: a file name that is no text has a place in it, too.
        return json.dumps(record, indent=1, allow_nan=False) + "\n"

    def _csv(self) -> str:
        text = io.StringIO(newline="")
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(("person", "source", "face", "score", "x1", "y1", "x2", "y2"))
        rows.writerows(
            (
                person,
                _console.printable(str(picture.source.path)),
                int(index),
                f"{face.score:.6f}",
                *(f"{float(v):.3f}" for v in face.box),
            )
            for picture in self._pictures
            for person, index, face in zip(picture.persons, picture.indices, picture.faces, strict=True)
        )
        return text.getvalue()

    def _print(self, sizes: list[int]) -> None:
        named = [size for size in sizes if size >= self.plan.min_size]
        with naming("the standard output", ResultsError):
            out = _console.stdout()
            for person, size in enumerate(named[:_LISTED], start=1):
                _console.line(out, f"person {person}: {plural(size, 'face')}")
            if len(named) > _LISTED:
                _console.line(out, f"and {plural(len(named) - _LISTED, 'person')} more")
            if rest := len(sizes) - len(named):
                few = "one face" if self.plan.min_size == 2 else f"fewer than {self.plan.min_size} faces"
                _console.line(out, f"{plural(rest, 'person')} with {few}")

    def _close(self, sizes: list[int], seconds: float) -> None:
        parts = [
            plural(len(self._pictures), "picture"),
            plural(sum(sizes), "face"),
            plural(len(sizes), "person"),
        ]
        if self._errors:
            parts.append(f"{len(self._errors):,} failed")
        small = sum(picture.too_small for picture in self._pictures)
        if small:
            parts.append(f"{plural(small, 'face')} too small (below {self.plan.min_face} pixels)")
        blind = sum(picture.without_eyes for picture in self._pictures)
        if blind:
            parts.append(f"{plural(blind, 'face')} without eyes")
        where = f", in {self.plan.out}" if self._pictures else ""
        text = f"{', '.join(parts)}{where}, in {seconds:.1f} s"
        _console.line(_console.stderr(), text, style="red" if self._errors else "green")
