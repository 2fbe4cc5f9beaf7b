"""The result of a detection: faces as columns."""

from __future__ import annotations

import json
import operator
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from ._landmarks import LANDMARK_NAMES, unknown_landmarks
from ._validation import check_color
from .errors import MissingDependencyError
from .image import read_image

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy.typing as npt
    import supervision

    from ._typing import AnyArray, ColorOrder, FloatArray, UInt8Array
    from .image import ImageSource, LoadedImage

__all__ = ["LANDMARK_NAMES", "Detections", "Face"]


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """One face.

    Attributes:
        box: (4,) float32 read-only: left, top, right and bottom edge in pixels of the picture.
        score: Probability of being a face, from 0 to 1; a detector that is not RetinaFace may have another
            scale.
        landmarks: (5, 2) float32 read-only, x and y in pixels of the picture, in the order of
            `LANDMARK_NAMES`; NaN where the detector gives none.
    """

    box: FloatArray
    score: float
    landmarks: FloatArray

    def __post_init__(self) -> None:
        object.__setattr__(self, "box", _column(self.box, "box", (4,)))
        object.__setattr__(self, "score", float(self.score))
        object.__setattr__(self, "landmarks", _column(self.landmarks, "landmarks", (5, 2)))

    @property
    def width(self) -> float:
        """Width of the box in pixels."""
        return float(self.box[2] - self.box[0])

    @property
    def height(self) -> float:
        """Height of the box in pixels."""
        return float(self.box[3] - self.box[1])

    @property
    def center(self) -> tuple[float, float]:
        """Centre of the box, x and y in pixels of the picture."""
        return float(self.box[0] + self.box[2]) / 2, float(self.box[1] + self.box[3]) / 2

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python numbers: `box`, `score`, and `landmarks` by name, None for an unknown one."""
        points = [
            None if is_unknown else point
            for point, is_unknown in zip(
                self.landmarks.tolist(), unknown_landmarks(self.landmarks), strict=True
            )
        ]
        return {
            "box": self.box.tolist(),
            "score": self.score,
            "landmarks": dict(zip(LANDMARK_NAMES, points, strict=True)),
        }

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Face):
            return NotImplemented
        return (
            self.score == other.score
            and np.array_equal(self.box, other.box)
            and np.array_equal(self.landmarks, other.landmarks, equal_nan=True)
        )

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return Face, (self.box, self.score, self.landmarks)

    def __str__(self) -> str:
        x1, y1, x2, y2 = self.box
        return f"face {self.score:.3f} at ({x1:.1f}, {y1:.1f}, {x2:.1f}, {y2:.1f})"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Detections:
    """The faces that were found in one picture, highest score first. Nothing in it can be changed.

    `len`, iteration and an integer index treat it as a sequence of `Face`; a slice, a mask or an array of
    indices selects faces and gives `Detections` again, such as `result[result.scores > 0.9]`. Where there is
    no face, the arrays are empty and keep their shapes. Two results are equal if they hold the same faces of
    a picture of the same size, landmarks that are unknown included; how long it took, and on what, is not
    compared.

    Attributes:
        boxes: (N, 4) float32 read-only, xyxy in pixels of the original picture. The frame is continuous, its
            origin the top left corner of the picture. Boxes of faces that are cut off by the edge of the
            picture may reach beyond it; `clip` cuts them.
        scores: (N,) float32 read-only, probabilities from 0 to 1; a detector that is not RetinaFace may have
            another scale.
        landmarks: (N, 5, 2) float32 read-only, x and y in the same frame, in the order of `LANDMARK_NAMES`.
            NaN where the detector gives none, which only those of `retinaface_fast.compare` do.
        image_size: Height and width of the original picture in pixels, after its EXIF orientation.
        timings: Seconds of each stage: decode, resize, network, postprocess, total. Read-only.
        engine: Name of the engine that ran the network.
        device: Device it ran on.

    Examples:
        >>> import numpy as np
        >>> points = np.zeros((2, 5, 2))
        >>> result = Detections([[0, 0, 8, 9], [4, 4, 6, 6]], [0.9, 0.6], points, image_size=(480, 640))
        >>> result
        Detections(2 faces in 640x480, scores 0.900 … 0.600)
        >>> len(result[result.scores > 0.8]), result[0].height
        (1, 9.0)
    """

    boxes: FloatArray
    scores: FloatArray
    landmarks: FloatArray
    image_size: tuple[int, int]
    timings: Mapping[str, float] = field(default_factory=dict)
    engine: str = ""
    device: str = ""

    def __post_init__(self) -> None:
        boxes = _column(self.boxes, "boxes", (None, 4))
        height, width = (operator.index(value) for value in self.image_size)
        if height < 1 or width < 1:
            raise ValueError(f"image_size must be (height, width) of at least 1, got {self.image_size}")
        set_field = object.__setattr__
        set_field(self, "boxes", boxes)
        set_field(self, "scores", _column(self.scores, "scores", (len(boxes),)))
        set_field(self, "landmarks", _column(self.landmarks, "landmarks", (len(boxes), 5, 2)))
        set_field(self, "image_size", (height, width))
        seconds = {str(name): float(value) for name, value in self.timings.items()}
        set_field(self, "timings", MappingProxyType(seconds))

    # A sequence of faces

    def __len__(self) -> int:
        return len(self.boxes)

    def __iter__(self) -> Iterator[Face]:
        for index in range(len(self)):
            yield self[index]

    @overload
    def __getitem__(self, index: int | np.integer[Any]) -> Face: ...
    # Not SupportsIndex above: every array has the method, so that a mask would seem to give a Face.
    @overload
    def __getitem__(self, index: slice | npt.ArrayLike) -> Detections: ...
    def __getitem__(self, index: int | np.integer[Any] | slice | npt.ArrayLike) -> Face | Detections:
        """Take one face by its index, or several by a slice, a mask or an array of indices."""
        if isinstance(index, slice):
            return self._select(index)
        if not isinstance(index, bool | np.bool_ | np.ndarray):
            try:
                position = operator.index(index)  # type: ignore[arg-type]
            except TypeError:
                pass
            else:
                if not -len(self) <= position < len(self):
                    raise IndexError(f"index {position} is out of range for {len(self)} faces")
                return Face(self.boxes[position], float(self.scores[position]), self.landmarks[position])
        array = np.asarray(index)
        if isinstance(index, tuple) or array.ndim != 1 or not (array.size == 0 or array.dtype.kind in "iub"):
            raise TypeError(
                "index must be an integer, a slice, or a mask or integer array of shape (N,), got "
                f"{type(index).__name__}"
            )
        if array.dtype.kind == "b" and len(array) != len(self):
            raise IndexError(f"a mask of {len(array)} does not fit {len(self)} faces")
        return self._select(array if array.dtype.kind in "iub" else array.astype(np.int64))

    def _select(self, index: slice | AnyArray) -> Detections:
        return replace(
            self, boxes=self.boxes[index], scores=self.scores[index], landmarks=self.landmarks[index]
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Detections):
            return NotImplemented
        return (
            self.image_size == other.image_size
            and np.array_equal(self.boxes, other.boxes)
            and np.array_equal(self.scores, other.scores)
            and np.array_equal(self.landmarks, other.landmarks, equal_nan=True)
        )

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        columns = (self.boxes, self.scores, self.landmarks)
        return Detections, (*columns, self.image_size, dict(self.timings), self.engine, self.device)

    def clip(self) -> Detections:
        """Cut the boxes at the edges of the picture; landmarks stay where they are."""
        height, width = self.image_size
        limits = np.array([width, height, width, height], np.float32)
        return replace(self, boxes=np.clip(self.boxes, 0, limits))

    # Pictures

    def draw(self, image: ImageSource, *, color: ColorOrder = "bgr", **options: Any) -> UInt8Array:
        """Draw the faces on a copy of the picture, without landmarks that are unknown.

        Args:
            image: The picture that was searched, from any source.
            color: Channel order of an array, and of the result.
            **options: `labels`, `box_colors`, `line_width` and `least_line_width` of
                `retinaface_fast.draw.draw_faces`.

        Returns:
            (H, W, 3) uint8 in the order of `color`, ready for `cv2.imwrite` if that is "bgr".

        Raises:
            ImageError: The picture cannot be read.
            ValueError: The picture has another size than the one that was searched.
            MissingDependencyError: OpenCV is needed and cannot be imported.
        """
        from .draw import draw_faces

        pixels = self._same_picture(image, color).to_color(color)
        return draw_faces(
            pixels, self.boxes, scores=self.scores, landmarks=self.landmarks, color=color, **options
        )

    def align(self, image: ImageSource, *, size: int = 112, color: ColorOrder = "bgr") -> UInt8Array:
        """Cut the faces out, turned and scaled to the ArcFace template, as recognition networks want them.

        Args:
            image: The picture that was searched, from any source.
            size: Width and height of a crop in pixels; a multiple of 112 or of 128.
            color: Channel order of an array, and of the crops.

        Returns:
            (N, size, size, 3) uint8 in the order of `color`.

        Raises:
            ImageError: The picture cannot be read.
            ValueError: `size` is no such multiple, a face lacks a landmark, or the picture has another size
                than the one searched.
            MissingDependencyError: OpenCV is needed and cannot be imported.
        """
        from .align import align_faces

        pixels = self._same_picture(image, color).to_color(color)
        return align_faces(pixels, self.landmarks, size=size, color=color)

    def crop(self, image: ImageSource, *, margin: float = 0.0, color: ColorOrder = "bgr") -> list[UInt8Array]:
        """Cut the boxes out of the picture, upright and at their own size.

        Args:
            image: The picture that was searched, from any source.
            margin: How much to add on each side, as a fraction of the width and height of the box; >= 0.
            color: Channel order of an array, and of the crops.

        Returns:
            For each face an (h, w, 3) uint8 array of its own: every pixel that the box touches, as far as it
            lies within the picture. Empty only where a box lies outside altogether.

        Raises:
            ImageError: The picture cannot be read.
            ValueError: `margin` is negative or not finite, or the picture has another size than the one
                searched.
            MissingDependencyError: OpenCV is needed and cannot be imported.
        """
        if not np.isfinite(margin) or margin < 0:
            raise ValueError(f"margin must be a fraction >= 0, got {margin}")
        pixels = self._same_picture(image, color).to_color(color)
        height, width = self.image_size
        sides = self.boxes[:, 2:] - self.boxes[:, :2]
        top_left = np.clip(np.floor(self.boxes[:, :2] - margin * sides), 0, (width, height))
        bottom_right = np.clip(np.ceil(self.boxes[:, 2:] + margin * sides), 0, (width, height))
        corners = np.hstack([top_left, np.maximum(top_left, bottom_right)]).astype(np.int64)
        return [pixels[y1:y2, x1:x2].copy() for x1, y1, x2, y2 in corners]

    def _same_picture(self, image: ImageSource, color: ColorOrder) -> LoadedImage:
        check_color(color)
        loaded = read_image(image, color=color)
        height, width = loaded.geometry.original_size_hw
        if (height, width) != self.image_size:
            raise ValueError(
                f"image must be the picture that was searched, of {self.image_size[1]}x{self.image_size[0]} "
                f"pixels, got one of {width}x{height}"
            )
        return loaded

    # Other forms

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python numbers, lists and strings, ready for JSON.

        Returns:
            `image_size` as [height, width]; `faces`, a list with `box`, `score` and `landmarks` by name, None
            for an unknown one; `timings` in seconds; `engine`; `device`.
        """
        return {
            "image_size": list(self.image_size),
            "faces": [face.to_dict() for face in self],
            "timings": dict(self.timings),
            "engine": self.engine,
            "device": self.device,
        }

    def to_json(self, *, indent: int | None = None) -> str:
        """Return `to_dict()` as JSON; every float32 is written so that it reads back the same.

        A landmark that is unknown is null.

        Raises:
            ValueError: Another number is not finite, which JSON cannot say.
        """
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Detections:
        """Build a result from what `to_dict` or `json.loads` gave; `timings`, `engine`, `device` may lack.

        Raises:
            ValueError: A key is missing or a value has another form.

        Examples:
            >>> Detections.from_dict({"image_size": [480, 640], "faces": []}).boxes.shape
            (0, 4)
        """
        try:
            faces = values["faces"]
            return cls(
                boxes=_column([face["box"] for face in faces], "box", (len(faces), 4)),
                scores=_column([face["score"] for face in faces], "score", (len(faces),)),
                landmarks=_column(
                    [[_point(face["landmarks"][name]) for name in LANDMARK_NAMES] for face in faces],
                    "landmarks",
                    (len(faces), 5, 2),
                ),
                image_size=tuple(values["image_size"]),
                timings=values.get("timings", {}),
                engine=values.get("engine", ""),
                device=values.get("device", ""),
            )
        except KeyError as error:
            raise ValueError(f"values must have the keys that to_dict writes: {error} is missing") from error
        except (TypeError, AttributeError) as error:
            raise ValueError(f"values must have the form that to_dict writes: {error}") from error

    def to_supervision(self) -> supervision.Detections:
        """Return the result as `supervision.Detections`, class 0, with `data["landmarks"]` of (N, 5, 2).

        Landmarks that are unknown are NaN there, too.

        Raises:
            MissingDependencyError: The package supervision is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise MissingDependencyError(
                "supervision", extra="supervision", purpose="Detections.to_supervision"
            ) from error
        return supervision.Detections(
            xyxy=self.boxes.copy(),
            confidence=self.scores.copy(),
            class_id=np.zeros(len(self), int),
            data={"class_name": np.full(len(self), "face"), "landmarks": self.landmarks.copy()},
        )

    def __repr__(self) -> str:
        return f"Detections({self._summary()})"

    def __str__(self) -> str:
        """A table of the faces, at most twenty of them."""
        lines = [self._summary()]
        if len(self):
            lines.append("  score      x1      y1      x2      y2   width  height")
        for face, _ in zip(self, range(20), strict=False):
            numbers = "".join(f"{value:8.1f}" for value in (*face.box, face.width, face.height))
            lines.append(f"  {face.score:.3f}{numbers}")
        if len(self) > 20:
            lines.append(f"  … and {len(self) - 20} more")
        return "\n".join(lines)

    def _summary(self) -> str:
        height, width = self.image_size
        text = {0: "no face", 1: "1 face"}.get(len(self), f"{len(self)} faces") + f" in {width}x{height}"
        if len(self) == 1:
            text += f", score {self.scores[0]:.3f}"
        elif len(self):
            text += f", scores {self.scores.max():.3f} … {self.scores.min():.3f}"
        if self.engine:
            text += f", {self.engine} on {self.device}"
        if "total" in self.timings:
            text += f", {self.timings['total'] * 1000:.1f} ms"
        return text


def _point(value: Any) -> Any:
    """A landmark of `to_dict`."""
    return (np.nan, np.nan) if value is None else value


def _column(values: Any, name: str, shape: tuple[int | None, ...]) -> FloatArray:
    """Copy to a read-only, contiguous float32 array of this shape; None stands for any length."""
    array: FloatArray = np.array(values, np.float32, order="C")
    if array.size == 0 and array.ndim == 1:
        array = array.reshape(tuple(0 if length is None else length for length in shape))
    fits = array.ndim == len(shape) and all(
        wanted in (None, length) for wanted, length in zip(shape, array.shape, strict=True)
    )
    if not fits:
        expected = ", ".join("N" if length is None else str(length) for length in shape)
        raise ValueError(f"{name} must have shape ({expected}), got {array.shape}")
    array.setflags(write=False)
    return array
