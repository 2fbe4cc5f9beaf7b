"""Training pictures on a page: what the network will see, and what it is told about it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from retinaface_fast._imports import import_cv2
from retinaface_fast.draw import draw_faces

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retinaface_fast._typing import UInt8Array

    from .augmentation import Augmented

#: Pictures on a page.
TILES = 16

# In pixels. A tile is as large as the small training pictures, so that their pixels are seen as they are.
_TILE = 320
_CAPTION = 24
_GAP = 8

_COLUMNS = 4
_PAPER, _INK = (29, 24, 22), (245, 243, 242)  # BGR
_TRAINED, _IGNORED = (0, 230, 150), (150, 150, 150)  # RGB, as `draw_faces` has them


def draw_sheet(pictures: Sequence[tuple[Augmented, int]]) -> UInt8Array:
    """Draw training pictures with their boxes, grey if ignored, and landmarks.

    Args:
        pictures: Each with the number of its anchors that are faces; at least one.

    Returns:
        (H, W, 3) uint8 BGR.
    """
    cv2 = import_cv2("drawing")
    columns = min(_COLUMNS, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    size_hw = (rows * (_TILE + _CAPTION + _GAP) + _GAP, columns * (_TILE + _GAP) + _GAP)
    sheet = np.full((*size_hw, 3), _PAPER, np.uint8)
    for index, (augmented, anchors) in enumerate(pictures):
        row, column = divmod(index, columns)
        top = _GAP + row * (_TILE + _CAPTION + _GAP)
        left = _GAP + column * (_TILE + _GAP)
        sheet[top : top + _TILE, left : left + _TILE] = _tile(augmented)
        ignored = int(np.count_nonzero(augmented.ignored))
        caption = f"faces {len(augmented.boxes) - ignored}, ignored {ignored}, anchors {anchors}"
        cv2.putText(
            sheet,
            caption,
            (left, top + _TILE + 17),
            cv2.FONT_HERSHEY_SIMPLEX,
            0.45,
            _INK,
            1,
            cv2.LINE_AA,
        )
    return sheet


def _tile(augmented: Augmented) -> UInt8Array:
    cv2 = import_cv2("drawing")
    scale = _TILE / augmented.image.shape[0]
    return draw_faces(
        cv2.resize(augmented.image, (_TILE, _TILE), interpolation=cv2.INTER_AREA),
        augmented.boxes * scale,
        landmarks=augmented.landmarks * scale,
        box_colors=np.where(augmented.ignored[:, None], _IGNORED, _TRAINED),
    )
