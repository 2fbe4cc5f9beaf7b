"""One search of a picture in memory: as a whole or in tiles, again on a reduced one, or at several sizes."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from . import ops
from ._imports import import_cv2
from ._tiles import tile_grid
from .engines import DetectingEngine, Engine
from .image import rescale
from .tta import box_sides

if TYPE_CHECKING:
    from ._settings import Settings
    from ._typing import AnyArray, ColorOrder, UInt8Array
    from .tta import TTA

__all__ = ["CANDIDATE_SCORE", "CLOSE_UP_FROM", "Search", "Stopwatch", "flip_faces"]

#: Views of a test-time augmentation are searched from this score on, the lowest that evaluations look at.
CANDIDATE_SCORE = 0.02

#: Landmarks of a mirrored face in the order of an upright one: left and right change places.
_MIRRORED = np.array([1, 0, 2, 4, 3])

# Close-ups. Of forty faces of WIDER FACE that fill their picture, MobileNet-0.25 finds 39 at 500 pixels
# (geometric mean side), 37 at 700, 27 at 800 and none at 1,000: there it takes parts of them for faces.
#: A picture whose shorter side has more pixels can hold a face that is too large to be found.
CLOSE_UP_FROM = 600
#: Longer side of the reduced picture, and how far the reduction may go.
_REDUCED_SIDE, _MOST_REDUCTION = 384, 8
#: The reduced picture gives faces from this geometric mean side on, in pixels of the picture.
_CLOSE_UP_FACE = 400
#: Faces of the picture from this side on, in its pixels and in those of the reduced one, must be found in
#: both, in the reduced one with any score and this overlap.
_DOUBTFUL_FACE, _DOUBTFUL_REDUCED, _CONFIRMED_IOU = 200, 16, 0.4


@dataclass(slots=True)
class Stopwatch:
    """Seconds that the stages of one search took."""

    network: float = 0.0
    resize: float = 0.0


@dataclass(frozen=True, slots=True)
class Search:
    """A network with what turns its outputs into faces."""

    engine: Engine
    anchors: ops.AnchorConfig
    variances: tuple[float, float]
    _detecting: DetectingEngine | None = field(init=False)

    def __post_init__(self) -> None:
        # Once, and not for each picture: a look at a protocol takes microseconds.
        detecting = self.engine if isinstance(self.engine, DetectingEngine) else None
        object.__setattr__(self, "_detecting", detecting)

    def __call__(
        self, pixels: UInt8Array, color: ColorOrder, settings: Settings, watch: Stopwatch
    ) -> ops.Faces:
        """Find the faces.

        Args:
            pixels: (H, W, 3) uint8.
            color: Order of their channels.
            settings: What to look for, and how often.
            watch: What the stages took is added to it.

        Returns:
            The faces, in pixels of the picture and not clipped to it.
        """
        if settings.tta is not None:
            return self._views(pixels, color, settings, settings.tta, watch)
        if settings.close_ups and min(pixels.shape[:2]) > CLOSE_UP_FROM:
            return self._with_close_ups(pixels, color, settings, watch)
        return self._once(pixels, color, settings, watch)

    def _views(
        self, pixels: UInt8Array, color: ColorOrder, settings: Settings, tta: TTA, watch: Stopwatch
    ) -> ops.Faces:
        views = tta.views(pixels.shape[:2])
        asked = settings
        if len(views) > 1:
            # What a view finds is a vote and not yet a face: limits hold for the faces.
            asked = settings.keep_all().override(
                score_threshold=min(settings.score_threshold, CANDIDATE_SCORE)
            )
            if tta.paper_compat:
                asked = asked.unlimited().override(nms_threshold=1.0)
        found = []
        seen, scale_xy = pixels, (1.0, 1.0)
        for view in views:
            started = time.perf_counter()
            if view.flipped:
                cv2 = import_cv2("mirroring pictures")
                picture = cv2.flip(seen, 1)
            else:
                seen, scale_xy = (pixels, (1.0, 1.0)) if view.scale == 1 else rescale(pixels, view.scale)
                picture = seen
            watch.resize += time.perf_counter() - started
            faces = self._once(picture, color, asked, watch)
            if view.flipped:
                faces = flip_faces(faces, picture.shape[1])
            found.append(_scaled(faces, scale_xy))
        if len(views) == 1:
            return found[0]
        return tta.merge(
            found,
            views,
            score_threshold=settings.score_threshold,
            nms_threshold=settings.nms_threshold,
            keep_top_k=settings.keep_top_k,
        )

    def _with_close_ups(
        self, pixels: UInt8Array, color: ColorOrder, settings: Settings, watch: Stopwatch
    ) -> ops.Faces:
        reduction = min(-(-max(pixels.shape[:2]) // _REDUCED_SIDE), _MOST_REDUCTION)
        started = time.perf_counter()
        reduced = _reduce(pixels, reduction)
        watch.resize += time.perf_counter() - started
        # Limits hold for what is left in the end: one that came before would leave nothing to confirm with.
        faces = self._once(pixels, color, settings.keep_all(), watch)
        asked = settings.unlimited().override(score_threshold=min(settings.score_threshold, CANDIDATE_SCORE))
        seen = _scaled(self._once(reduced, color, asked, watch), (reduction, reduction))
        is_close_up = (box_sides(seen.boxes) >= _CLOSE_UP_FACE) & (seen.scores > settings.score_threshold)
        is_sure = box_sides(faces.boxes) < max(_DOUBTFUL_FACE, _DOUBTFUL_REDUCED * reduction)
        if not is_sure.all():
            confirmed = ops.box_iou(faces.boxes, seen.boxes).max(axis=1, initial=0) > _CONFIRMED_IOU
            is_sure |= confirmed
        if is_sure.all() and not is_close_up.any():
            return _select(faces, slice(settings.keep_top_k))
        return _suppress([_select(faces, is_sure), _select(seen, is_close_up)], settings)

    def _once(self, pixels: UInt8Array, color: ColorOrder, settings: Settings, watch: Stopwatch) -> ops.Faces:
        if settings.tile_side is None or max(pixels.shape[:2]) <= settings.tile_side:
            return self._whole(pixels, color, settings, watch)
        # All candidates of a tile, for those that it answers for are suppressed by those of its neighbours.
        all_of_them = settings.override(nms_threshold=1.0).unlimited()
        found = []
        for tile in tile_grid(pixels.shape[:2], settings.tile_side, max(self.anchors.strides)):
            left, top, right, bottom = tile.outer
            faces = self._whole(pixels[top:bottom, left:right], color, all_of_them, watch)
            corner = np.array([left, top], np.float32)
            faces = ops.Faces(faces.boxes + np.tile(corner, 2), faces.scores, faces.landmarks + corner)
            found.append(_select(faces, tile.owns(faces.boxes)))
        return _suppress(found, settings)

    def _whole(
        self, pixels: UInt8Array, color: ColorOrder, settings: Settings, watch: Stopwatch
    ) -> ops.Faces:
        if self._detecting is not None:
            faces, seconds = self._detecting.detect(
                pixels,
                color=color,
                score_threshold=settings.score_threshold,
                nms_threshold=settings.nms_threshold,
                top_k=settings.top_k,
                keep_top_k=settings.keep_top_k,
            )
            watch.network += seconds
            return faces
        started = time.perf_counter()
        outputs = self.engine.run(pixels[None], color=color)
        watch.network += time.perf_counter() - started
        [faces] = ops.postprocess(
            outputs.class_scores,
            outputs.box_deltas,
            outputs.landmark_deltas,
            pixels.shape[:2],
            config=self.anchors,
            scores_are=outputs.scores_are,
            variances=self.variances,
            score_threshold=settings.score_threshold,
            nms_threshold=settings.nms_threshold,
            top_k=settings.top_k,
            keep_top_k=settings.keep_top_k,
        )
        return faces


def flip_faces(faces: ops.Faces, width: int) -> ops.Faces:
    """Mirror faces: what a search of a mirrored picture found, in the frame of the upright one.

    Args:
        faces: In pixels of a picture, which need not be a multiple of anything wide.
        width: Width of that picture in pixels; x becomes width - x.

    Returns:
        The faces, the left eye and mouth corner again those that are left in the image.
    """
    boxes, landmarks = faces.boxes.copy(), faces.landmarks[:, _MIRRORED].copy()
    boxes[:, [0, 2]] = width - faces.boxes[:, [2, 0]]
    landmarks[:, :, 0] = width - landmarks[:, :, 0]
    return ops.Faces(boxes, faces.scores, landmarks)


def _reduce(pixels: UInt8Array, reduction: int) -> UInt8Array:
    """Reduce (H, W, 3) pixels to 1/reduction: each block becomes the mean of four of its pixels.

    What is left at the right and the bottom and is no whole block is left out.

    Close-ups are large and smooth enough for that, and it takes no OpenCV, which arrays are detected without.
    """
    height, width = (length // reduction * reduction for length in pixels.shape[:2])
    first, second = reduction // 4, (3 * reduction) // 4
    total = np.full((height // reduction, width // reduction, 3), 2, np.uint16)
    for row in (first, second):
        for column in (first, second):
            total += pixels[row:height:reduction, column:width:reduction]
    reduced: UInt8Array = (total >> 2).astype(np.uint8)
    return reduced


def _scaled(faces: ops.Faces, scale_xy: tuple[float, float]) -> ops.Faces:
    """Faces in a frame in which a pixel of theirs is this long."""
    if scale_xy == (1.0, 1.0):
        return faces
    scale = np.asarray(scale_xy)
    boxes = (faces.boxes.reshape(-1, 2, 2) * scale).reshape(-1, 4).astype(np.float32)
    return ops.Faces(boxes, faces.scores, (faces.landmarks * scale).astype(np.float32))


def _select(faces: ops.Faces, index: AnyArray | slice) -> ops.Faces:
    return ops.Faces(*(column[index] for column in faces))


def _suppress(found: list[ops.Faces], settings: Settings) -> ops.Faces:
    """Faces of several searches in one frame; of those that overlap too much, the best."""
    boxes, scores, landmarks = (np.concatenate(columns) for columns in zip(*found, strict=True))
    kept = ops.nms(
        boxes,
        scores,
        iou_threshold=settings.nms_threshold,
        top_k=settings.top_k,
        keep_top_k=settings.keep_top_k,
    )
    return ops.Faces(boxes[kept], scores[kept], landmarks[kept])
