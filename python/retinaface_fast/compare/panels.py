"""What detectors found in a picture, side by side: who found it too shows in the colour of a box."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from retinaface_fast._imports import import_cv2
from retinaface_fast.draw import draw_faces

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retinaface_fast._typing import UInt8Array
    from retinaface_fast.detections import Detections

    from .comparison import ComparedPicture, Contestant

__all__ = ["FOUND_BY_OTHERS", "draw_panels", "encode_jpeg", "own_color", "panel_side", "side_by_side"]

#: Red, green and blue of the box of a face that another detector found, too.
FOUND_BY_OTHERS = (0, 230, 150)
#: Of one that only this detector found: blue for the first, then amber, pink and violet. With the green above
#: they stay apart for people who see colours differently.
_OWN = ((72, 160, 255), (255, 176, 0), (255, 96, 176), (176, 128, 255))

_PAPER, _INK, _FAINT = (22, 24, 29), (242, 243, 245), (170, 177, 189)
#: Narrowest panel that has room for its caption.
_LEAST_WIDTH = 360
_GAP = 8
#: Height of the bars with text of panels of 1,000 pixels.
_BAR = 46


def own_color(index: int) -> tuple[int, int, int]:
    """Return red, green and blue of what only the detector of this index found."""
    return _OWN[index % len(_OWN)]


def draw_panels(
    pixels: UInt8Array, picture: ComparedPicture, *, max_side: int | None = None
) -> dict[str, UInt8Array]:
    """Draw what each detector found on a copy of the picture.

    Args:
        pixels: (H, W, 3) uint8 BGR, the picture that was searched.
        picture: What came of it.
        max_side: Shrink the copies to this longest side before anything is drawn, so that lines and letters
            stay as they are; None leaves them.

    Returns:
        (h, w, 3) uint8 BGR by the name of the detector, without those that failed.

    Raises:
        MissingDependencyError: OpenCV cannot be imported.
    """
    cv2 = import_cv2("drawing")
    height, width = pixels.shape[:2]
    scale = 1.0 if max_side is None else min(1.0, max_side / max(height, width))
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    zoom = np.array([pixels.shape[1] / width, pixels.shape[0] / height])
    panels = {}
    for index, (name, search) in enumerate(picture.searches.items()):
        found = search.detections
        if found is None:
            continue
        colors = np.tile(own_color(index), (len(found), 1))
        colors[_found_by_others(name, picture, found)] = FOUND_BY_OTHERS
        panels[name] = draw_faces(
            pixels,
            found.boxes * np.tile(zoom, 2),
            scores=found.scores,
            landmarks=found.landmarks * zoom,
            labels=False,
            box_colors=colors,
            # Colours say something here, and a page shows the panels at some 400 pixels.
            least_line_width=max(1, round(max(pixels.shape[:2]) / 400)),
        )
    return panels


def _found_by_others(name: str, picture: ComparedPicture, found: Detections) -> Any:
    """(N,) bool; the others are compared with the first alone, so that its faces may have several finders."""
    shared = np.zeros(len(found), np.bool_)
    is_first = name == next(iter(picture.searches))
    for other, pairs in picture.pairs.items():
        if is_first or other == name:
            shared[pairs.pairs[:, 0 if is_first else 1]] = True
    return shared


def side_by_side(
    pixels: UInt8Array, picture: ComparedPicture, contestants: Sequence[Contestant], *, max_side: int = 1600
) -> UInt8Array:
    """Put what all detectors found into one picture, with the number of faces, the time and a legend.

    Args:
        pixels: (H, W, 3) uint8 BGR, the picture that was searched.
        picture: What came of it.
        contestants: The detectors.
        max_side: Longest side of each panel.

    Returns:
        (h, w, 3) uint8 BGR.

    Raises:
        MissingDependencyError: OpenCV cannot be imported.
    """
    panels = draw_panels(pixels, picture, max_side=max_side)
    height, width = next((panel.shape[:2] for panel in panels.values()), (_LEAST_WIDTH // 2, 0))
    cell = max(width, _LEAST_WIDTH)
    scale = max(0.5, cell / 1000)
    bar = round(_BAR * scale)
    sheet = np.empty(
        (height + 2 * bar, len(contestants) * (cell + _GAP) - _GAP, 3),
        np.uint8,
    )
    sheet[:] = _PAPER[::-1]
    for index, contestant in enumerate(contestants):
        left = index * (cell + _GAP)
        panel = panels.get(contestant.name)
        if panel is not None:
            start = left + (cell - width) // 2
            sheet[bar : bar + height, start : start + width] = panel
        _write(sheet, caption(contestant, picture), (left + bar // 4, 0), bar, _INK)
    left = bar // 4
    for color, text in _legend(contestants):
        edge = bar // 4
        top = bar + height + edge
        sheet[top : top + bar - 2 * edge, left : left + bar - 2 * edge] = color[::-1]
        left += bar - edge
        left += _write(sheet, text, (left, bar + height), bar, _FAINT) + bar // 2
    return sheet


def caption(contestant: Contestant, picture: ComparedPicture) -> str:
    """Return what a panel says above the picture: ASCII, the letters that OpenCV has."""
    search = picture.searches.get(contestant.name)
    label = contestant.label.encode("ascii", "replace").decode()
    if search is None or search.detections is None:
        return f"{label}: failed"
    count = len(search.detections)
    faces = f"{count} face{'' if count == 1 else 's'}"
    return f"{label}: {faces}" + (f", {1000 * search.seconds:.0f} ms" if search.seconds is not None else "")


def _legend(contestants: Sequence[Contestant]) -> list[tuple[tuple[int, int, int], str]]:
    alone = [(own_color(index), f"{each.label} alone") for index, each in enumerate(contestants)]
    return [(FOUND_BY_OTHERS, "found by another, too"), *alone]


def _write(
    sheet: UInt8Array, text: str, left_top: tuple[int, int], height: int, color: tuple[int, int, int]
) -> int:
    """Write one line in the middle of a bar; return its width in pixels."""
    cv2 = import_cv2("drawing")
    scale = height / _BAR
    thickness = max(1, round(1.5 * scale))
    text = text.encode("ascii", "replace").decode()
    (wide, high), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.8 * scale, thickness)
    where = (left_top[0], left_top[1] + (height + high) // 2)
    cv2.putText(
        sheet, text, where, cv2.FONT_HERSHEY_SIMPLEX, 0.8 * scale, color[::-1], thickness, cv2.LINE_AA
    )
    return int(wide)


def encode_jpeg(pixels: UInt8Array, *, quality: int = 82) -> bytes:
    """Return a picture as a JPEG file.

    Raises:
        ValueError: A side has more than the 65,535 pixels that JPEG can hold, or none.
        MissingDependencyError: OpenCV cannot be imported.
    """
    cv2 = import_cv2("writing pictures")
    try:
        done, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    except cv2.error as error:
        raise ValueError(f"pixels cannot be written as JPEG: {error.err}") from None
    if not done:
        raise ValueError(f"pixels of {pixels.shape[1]}x{pixels.shape[0]} do not fit into JPEG")
    encoded: bytes = data.tobytes()
    return encoded


def panel_side(num_panels: int) -> int:
    """Return the longest side of an embedded panel, so that a report of any number stays of a sane size.

    All panels together have some 40 million pixels, about 10 MB as JPEG; each 320 to 1,200 pixels.

    Examples:
        >>> [panel_side(number) for number in (2, 60, 150, 600)]
        [1200, 1000, 632, 320]
    """
    # 2 : 3, as photographs have it.
    side = (40e6 / max(num_panels, 1) * 1.5) ** 0.5
    return int(min(1200, max(320, side)))
