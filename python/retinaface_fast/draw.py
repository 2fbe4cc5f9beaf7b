"""Pictures of results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ._imports import import_cv2
from ._validation import check_color, check_optional_positive_int, check_positive_int
from .image import read_image

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._typing import ColorOrder, UInt8Array
    from .image import ImageSource

__all__ = ["draw_faces"]

# Red, green, blue. The landmarks' order is that of the package; one colour for each side of the image shows
# at a glance whether left and right were kept apart.
_BOX = (0, 230, 150)
_OUTLINE = (16, 24, 32)
_LEFT, _RIGHT, _NOSE = (255, 150, 0), (40, 170, 255), (255, 255, 255)
_LANDMARKS = (_LEFT, _RIGHT, _NOSE, _LEFT, _RIGHT)

_SHIFT = 4  # OpenCV draws at sixteenths of a pixel
_SMALLEST_WITH_LANDMARKS = 20  # pixels of width


def draw_faces(
    image: ImageSource,
    boxes: npt.ArrayLike,
    *,
    scores: npt.ArrayLike | None = None,
    landmarks: npt.ArrayLike | None = None,
    labels: Sequence[str] | bool | None = None,
    box_colors: npt.ArrayLike | None = None,
    line_width: int | None = None,
    least_line_width: int = 1,
    color: ColorOrder = "bgr",
) -> UInt8Array:
    """Draw boxes, landmarks and scores on a copy of a picture.

    Landmarks on the left of the image are orange, those on its right blue, the nose white.

    Args:
        image: The picture, anything that `read_image` takes; it is not changed.
        boxes: (N, 4) xyxy in pixels of the picture.
        scores: (N,) numbers written as labels; also the order of drawing, so that the best is on top.
        landmarks: (N, 5, 2) in pixels of the picture; left eye, right eye, nose, left and right mouth corner.
            Drawn on faces at least 20 pixels wide: on smaller ones they would hide the face. One that is
            NaN is unknown, and not drawn.
        labels: A text for each face; or True for the scores and False for none. None writes the scores of
            faces that are large enough for them, which keeps crowds recognisable.
        box_colors: (N, 3) red, green and blue of each box and its label, from 0 to 255 whatever the order of
            `color`; None draws all in the same green.
        line_width: In pixels; None chooses one from the size of the picture. Small faces get thinner lines.
        least_line_width: In pixels, of the boxes of small faces: on a picture that is shown much smaller, the
            usual line of one pixel can hardly be seen.
        color: Channel order of an array, and of the result.

    Returns:
        (H, W, 3) uint8 in the order of `color`, ready for `cv2.imwrite` if that is "bgr".

    Raises:
        ImageError: The picture cannot be read.
        TypeError: An argument has the wrong type.
        ValueError: Shapes that do not fit each other.
        MissingDependencyError: OpenCV is needed and cannot be imported.

    Examples:
        >>> import numpy as np
        >>> picture = np.zeros((48, 64, 3), np.uint8)
        >>> drawn = draw_faces(picture, [[8, 8, 40, 40]], scores=[0.9])
        >>> drawn.shape, bool(drawn.any()), bool(picture.any())
        ((48, 64, 3), True, False)
    """
    check_color(color)
    line_width = check_optional_positive_int(line_width, "line_width")
    least_line_width = check_positive_int(least_line_width, "least_line_width")
    box_array = _shaped(boxes, "boxes", (4,))
    count = len(box_array)
    score_array = None if scores is None else _shaped(scores, "scores", (), count)
    landmark_array = None
    if landmarks is not None:
        landmark_array = _shaped(landmarks, "landmarks", (5, 2), count, may_be_unknown=True)
    paints = np.tile(np.array(_BOX, np.float64), (count, 1))
    if box_colors is not None:
        paints = _shaped(box_colors, "box_colors", (3,), count)
        if ((paints < 0) | (paints > 255)).any():
            raise ValueError("box_colors must be from 0 to 255")
    if labels is not None and not isinstance(labels, bool) and len(labels) != count:
        raise ValueError(f"labels must be one for each of the {count} boxes, got {len(labels)}")
    canvas = np.array(read_image(image, color=color).to_color(color), order="C")
    if not count:
        return canvas
    pen = _Pen(canvas, color, line_width, least_line_width)
    order = np.arange(count) if score_array is None else np.argsort(score_array, kind="stable")
    for index in order:
        pen.box(box_array[index], paints[index])
        if landmark_array is not None:
            pen.landmarks(landmark_array[index], box_array[index])
    for index in order:  # on top of every box
        if labels is None or isinstance(labels, bool):
            wanted = labels is not False and score_array is not None
            if wanted and (labels or pen.has_room_for_label(box_array[index])):
                pen.label(f"{score_array[index]:.2f}", box_array[index], paints[index])  # type: ignore[index]
        else:
            pen.label(str(labels[index]), box_array[index], paints[index])
    return canvas


class _Pen:
    """What is drawn with on one canvas: line widths that fit its size, colours in its channel order."""

    def __init__(self, canvas: UInt8Array, color: ColorOrder, line_width: int | None, least: int) -> None:
        self.cv2 = import_cv2("drawing")
        self.canvas = canvas
        self.reverse = color == "bgr"
        self.line_width = max(least, line_width or round(max(canvas.shape[:2]) / 400))
        self.least_line_width = least
        self.font_scale = max(0.4, max(canvas.shape[:2]) / 2000)

    def box(self, box: npt.NDArray[np.float64], paint: npt.NDArray[np.float64]) -> None:
        width = self._line_width(box)
        corners = self._fixed(box[:2]), self._fixed(box[2:])
        lines = [(width, self._rounded(paint))]
        if width > 1:  # a dark edge for light pictures; on a thin line it would hide the colour
            lines.insert(0, (width + 2, _OUTLINE))
        for line, tint in lines:
            self.cv2.rectangle(self.canvas, *corners, self._paint(tint), line, self.cv2.LINE_AA, _SHIFT)

    def landmarks(self, points: npt.NDArray[np.float64], box: npt.NDArray[np.float64]) -> None:
        if box[2] - box[0] < _SMALLEST_WITH_LANDMARKS:
            return  # five dots would hide the face that they explain
        radius = float(np.clip((box[2] - box[0]) / 40, 0.8, 3.0 * self.line_width))
        for point, paint in zip(points, _LANDMARKS, strict=True):
            if np.isnan(point).any():
                continue
            discs = [(radius, paint)]
            if radius > 1.2:  # on the smallest faces an edge would hide what it frames
                discs.insert(0, (radius + 0.7, _OUTLINE))
            for size, tint in discs:
                self.cv2.circle(
                    self.canvas,
                    self._fixed(point),
                    round(size * (1 << _SHIFT)),
                    self._paint(tint),
                    self.cv2.FILLED,
                    self.cv2.LINE_AA,
                    _SHIFT,
                )

    def has_room_for_label(self, box: npt.NDArray[np.float64]) -> bool:
        return bool(box[2] - box[0] >= self._label_size("0.99")[0])

    def label(self, text: str, box: npt.NDArray[np.float64], paint: npt.NDArray[np.float64]) -> None:
        height, width = self.canvas.shape[:2]
        text_width, text_height, pad = self._label_size(text)
        limits = np.array([width, height, width, height])
        x1, y1, _, _ = (round(float(value)) for value in np.clip(box, 0, limits))
        edge = self._line_width(box) // 2
        left = min(max(0, x1 - edge), max(0, width - text_width))
        bottom = y1 - edge if y1 - edge >= text_height else min(height, y1 + edge + text_height)
        top = bottom - text_height
        cv2 = self.cv2
        corners = (left, top), (left + text_width - 1, bottom - 1)
        cv2.rectangle(self.canvas, *corners, self._paint(self._rounded(paint)), cv2.FILLED)
        cv2.putText(
            self.canvas,
            text,
            (left + pad, bottom - pad - 1),
            cv2.FONT_HERSHEY_SIMPLEX,
            self.font_scale,
            self._paint(_OUTLINE),
            max(1, round(self.font_scale * 1.6)),
            cv2.LINE_AA,
        )

    def _label_size(self, text: str) -> tuple[int, int, int]:
        """Width, height and padding in pixels."""
        thickness = max(1, round(self.font_scale * 1.6))
        (width, height), _ = self.cv2.getTextSize(
            text, self.cv2.FONT_HERSHEY_SIMPLEX, self.font_scale, thickness
        )
        pad = max(2, round(height * 0.35))
        return width + 2 * pad, height + 2 * pad, pad

    def _line_width(self, box: npt.NDArray[np.float64]) -> int:
        side = float(min(box[2] - box[0], box[3] - box[1]))
        return int(np.clip(side / 25, self.least_line_width, self.line_width))

    def _fixed(self, point: npt.NDArray[np.float64]) -> tuple[int, int]:
        # The centre of the first pixel is 0 for OpenCV and 0.5 here. Far points are brought near: OpenCV
        # counts in 32 bits.
        height, width = self.canvas.shape[:2]
        x, y = np.clip(point, (-width, -height), (2 * width, 2 * height)) - 0.5
        return round(float(x) * (1 << _SHIFT)), round(float(y) * (1 << _SHIFT))

    @staticmethod
    def _rounded(paint: npt.NDArray[np.float64]) -> tuple[int, int, int]:
        red, green, blue = (round(float(value)) for value in paint)
        return red, green, blue

    def _paint(self, rgb: tuple[int, int, int]) -> tuple[int, int, int]:
        return rgb[::-1] if self.reverse else rgb


def _shaped(
    values: Any,
    name: str,
    rest: tuple[int, ...],
    count: int | None = None,
    *,
    may_be_unknown: bool = False,
) -> npt.NDArray[np.float64]:
    array = np.asarray(values, np.float64)
    if array.shape == (0,):
        array = array.reshape(0, *rest)
    if array.ndim != 1 + len(rest) or array.shape[1:] != rest:
        expected = ", ".join(["N", *(str(value) for value in rest)])
        raise ValueError(f"{name} must have shape ({expected}{'' if rest else ','}), got {array.shape}")
    if count is not None and len(array) != count:
        raise ValueError(f"{name} must be one for each of the {count} boxes, got {len(array)}")
    if not (np.isfinite(array) | (may_be_unknown & np.isnan(array))).all():
        raise ValueError(f"{name} must be finite{' or NaN' if may_be_unknown else ''}")
    return array
