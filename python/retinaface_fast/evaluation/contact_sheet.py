"""What goes wrong, at a glance: the faces that were missed, and what was taken for one."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retinaface_fast._imports import import_cv2
from retinaface_fast._validation import check_positive_int
from retinaface_fast.errors import ImageError, MissingDependencyError
from retinaface_fast.image import read_image

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from retinaface_fast._typing import BoolArray, DoubleArray, IntArray, UInt8Array

    from .widerface import Scores

__all__ = ["ContactSheet", "sheet_of_false_positives", "sheet_of_misses"]

# Of a page, in pixels.
_TILE = 240
_CAPTION = 58
_GAP = 14
_HEADER = 104
_DPI = 100

#: The subject takes this part of its crop: the rest is where it is.
_SHARE = 0.4
#: A crop shows at least so many pixels of the picture, or a tiny face would be a few squares.
_LEAST_SIDE = 56
#: Of one picture, at most so many: a crowd would fill the page.
_OF_ONE_PICTURE = 4
#: Letters that fit below a crop.
_LETTERS = 42

_PAPER, _INK, _FAINT = "#16181d", "#f2f3f5", "#9aa1ad"
_COUNTED, _IGNORED, _PREDICTED, _SUBJECT = "#35d07f", "#8d96a5", "#ffb02e", "#ff4d5e"


@dataclass(frozen=True, slots=True, eq=False)
class ContactSheet:
    """A page of crops.

    Attributes:
        image: (H, W, 3) uint8 BGR.
        shown: Crops on it.
        total: Of how many they are the worst.
        skipped: Crops that were left out since their pictures could not be read.
    """

    image: UInt8Array
    shown: int
    total: int
    skipped: int

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the page; the kind of file is that of its suffix, such as .jpg or .png.

        Raises:
            ValueError: OpenCV does not write files of that suffix.
            OSError: The file cannot be written.
        """
        cv2 = import_cv2("writing contact sheets")
        path = Path(path)
        try:
            _, data = cv2.imencode(path.suffix, self.image, [cv2.IMWRITE_JPEG_QUALITY, 92])
        except cv2.error as error:
            raise ValueError(f"path must end in .jpg, .png or the like, got {path.name!r}") from error
        path.write_bytes(data.tobytes())


@dataclass(frozen=True, slots=True, eq=False)
class _Crop:
    """What a tile shows: one box is its subject, be it of a face or of a prediction.

    Attributes:
        picture: Index of the picture.
        subject: (4,) xyxy.
        nearest: (4,) xyxy of the prediction to show beside a face; None where there is none.
        lines: What is written below, two lines.
    """

    picture: int
    subject: DoubleArray
    nearest: DoubleArray | None
    lines: tuple[str, str]


@dataclass(frozen=True, slots=True)
class _Page:
    """What the heading of a page says.

    Attributes:
        title: In large letters.
        order: What comes first.
        legend: Colours and what they mean.
    """

    title: str
    order: str
    legend: tuple[tuple[str, str], ...]


def sheet_of_misses(
    scores: Scores,
    images: str | os.PathLike[str],
    *,
    subset: str = "hard",
    min_score: float = 0.5,
    limit: int = 40,
    columns: int = 8,
) -> ContactSheet:
    """Show the largest faces that a user would not have got.

    Those are the faces that count and that no prediction found, or only one with a score below `min_score`;
    from the highest to the lowest, four of one picture at most.

    Args:
        scores: What `evaluate` returned.
        images: Folder of the pictures, `<event>/<name>.jpg`. Crops of those that cannot be read are skipped.
        subset: The faces that count are those of this subset.
        min_score: What is found with a lower score is missed; `-math.inf` leaves what was not found at all.
            The default is that of `FaceDetector`.
        limit: Most crops.
        columns: Of the page.

    Returns:
        The page. Red is the missed face, yellow the prediction that found it or came nearest, green other
        faces that count, grey those that do not.

    Raises:
        ValueError: An argument is out of range.
        TypeError: An argument has the wrong type.
        MissingDependencyError: matplotlib or OpenCV is not installed.
    """
    counted = _counted(scores, subset)
    found = scores.found_by >= 0
    missed = np.flatnonzero(counted & ~(found & (scores.found_at >= min_score)))
    boxes = scores.truth.boxes
    heights = boxes[:, 3] - boxes[:, 1]
    missed = missed[np.argsort(-heights[missed], kind="stable")]
    nearest = np.where(found, scores.found_by, _nearest(scores))

    def _crops() -> Iterator[_Crop]:
        for face in missed:
            by = nearest[face]
            says = "nothing near"
            if by >= 0:
                overlap = _rounded_down(scores.overlaps[by])
                says = f"overlap {overlap}"
                if not found[face]:
                    says = f"nearest: score {scores.scores[by]:.2f}, overlap {overlap}"
            how = f"found with {scores.found_at[face]:.2f}" if found[face] else "not found"
            yield _Crop(
                picture=int(np.searchsorted(scores.truth.offsets, face, side="right")) - 1,
                subject=boxes[face],
                nearest=scores.boxes[by] if by >= 0 else None,
                lines=(f"{heights[face]:.0f} px, {how}", says),
            )

    below = f", or with a score below {min_score:g}" if np.isfinite(min_score) else ""
    page = _Page(
        title=f"Missed faces: not found{below}",
        order="highest faces first",
        legend=(
            (_SUBJECT, "missed face"),
            (_PREDICTED, "nearest prediction"),
            (_COUNTED, f"face that counts ({subset})"),
            (_IGNORED, "face that does not"),
        ),
    )
    return _make(
        scores, Path(images), counted, _crops(), len(missed), page=page, limit=limit, columns=columns
    )


def sheet_of_false_positives(
    scores: Scores,
    images: str | os.PathLike[str],
    *,
    subset: str = "hard",
    limit: int = 40,
    columns: int = 8,
) -> ContactSheet:
    """Show the false alarms of which the detector was surest.

    Those are the predictions that found nothing, or a face that a better one had found; from the highest
    score to the lowest, four of one picture at most.

    Args:
        scores: What `evaluate` returned.
        images: Folder of the pictures, `<event>/<name>.jpg`. Crops of those that cannot be read are skipped.
        subset: The faces that count are those of this subset.
        limit: Most crops.
        columns: Of the page.

    Returns:
        The page. Red is the false alarm, green the faces that count, grey those that do not.

    Raises:
        ValueError: An argument is out of range.
        TypeError: An argument has the wrong type.
        MissingDependencyError: matplotlib or OpenCV is not installed.
    """
    counted = _counted(scores, subset)
    wrong = np.flatnonzero(~scores.left_out(counted) & ~scores.right(counted))
    wrong = wrong[np.argsort(-scores.scores[wrong], kind="stable")]

    def _crops() -> Iterator[_Crop]:
        for prediction in wrong:
            box, overlap = scores.boxes[prediction], scores.overlaps[prediction]
            says = f"nearest face: overlap {_rounded_down(overlap)}" if overlap else "no face there"
            if overlap >= scores.min_overlap:
                says = "the face was found with a higher score"
            yield _Crop(
                picture=int(np.searchsorted(scores.offsets, prediction, side="right")) - 1,
                subject=box,
                nearest=None,
                lines=(f"score {scores.scores[prediction]:.3f}, {box[3] - box[1]:.0f} px", says),
            )

    page = _Page(
        title="False alarms",
        order="highest scores first",
        legend=(
            (_SUBJECT, "false alarm"),
            (_COUNTED, f"face that counts ({subset})"),
            (_IGNORED, "face that does not"),
        ),
    )
    return _make(scores, Path(images), counted, _crops(), len(wrong), page=page, limit=limit, columns=columns)


def _counted(scores: Scores, subset: str) -> BoolArray:
    if subset not in scores.truth.counted:
        raise ValueError(f"subset must be one of {', '.join(scores.truth.counted)}, got {subset!r}")
    return scores.truth.counted[subset]


def _nearest(scores: Scores) -> IntArray:
    """(G,) the prediction nearest to each face, of those that overlap no other face more; -1 for none."""
    nearest = np.full(len(scores.truth.boxes), -1, dtype=np.int64)
    touching = np.flatnonzero(scores.overlaps > 0)
    rising = touching[np.argsort(scores.overlaps[touching], kind="stable")]
    nearest[scores.best[rising]] = rising  # the last assignment stays
    return nearest


def _rounded_down(overlap: float) -> str:
    """Two decimals that do not say 0.50 of what is not enough."""
    return f"{math.floor(100 * overlap) / 100:.2f}"


def _make(
    scores: Scores,
    images: Path,
    counted: BoolArray,
    crops: Iterator[_Crop],
    total: int,
    *,
    page: _Page,
    limit: int,
    columns: int,
) -> ContactSheet:
    limit, columns = check_positive_int(limit, "limit"), check_positive_int(columns, "columns")
    of_picture: dict[int, int] = {}
    tiles: list[tuple[_Crop, UInt8Array, DoubleArray]] = []
    unreadable: set[int] = set()
    skipped = 0
    for crop in crops:
        if len(tiles) == limit:
            break
        if of_picture.get(crop.picture, 0) == _OF_ONE_PICTURE:
            continue
        pixels = None
        if crop.picture not in unreadable:
            with contextlib.suppress(ImageError):
                pixels = read_image(images / f"{scores.truth.names[crop.picture]}.jpg").to_color("rgb")
        if pixels is None:
            unreadable.add(crop.picture)
            skipped += 1
            continue
        of_picture[crop.picture] = of_picture.get(crop.picture, 0) + 1
        tiles.append((crop, *_cut(pixels, crop.subject)))
    subtitle = f"{len(tiles):,} of {total:,}, {page.order}, {_OF_ONE_PICTURE} of one picture at most"
    if skipped:
        subtitle += f"; {skipped:,} left out whose pictures cannot be read"
    canvas = _Canvas(columns=max(min(columns, len(tiles)), 4), tiles=len(tiles))
    canvas.heading(page, subtitle)
    for crop, tile, view in tiles:
        canvas.tile(tile)
        faces = slice(*scores.truth.offsets[crop.picture : crop.picture + 2])
        for box, counts in zip(scores.truth.boxes[faces], counted[faces], strict=True):
            if not np.array_equal(box, crop.subject):
                canvas.box(box, view, _COUNTED if counts else _IGNORED, 1.1)
        if crop.nearest is not None:
            canvas.box(crop.nearest, view, _PREDICTED, 1.6)
        canvas.box(crop.subject, view, _SUBJECT, 2.0)
        canvas.caption(*crop.lines, _shortened(scores.truth.names[crop.picture]))
    return ContactSheet(image=canvas.pixels(), shown=len(tiles), total=total, skipped=skipped)


def _cut(pixels: UInt8Array, box: DoubleArray) -> tuple[UInt8Array, DoubleArray]:
    """A square around a box at the size of a tile; and x, y of its corner in the picture, and its side."""
    cv2 = import_cv2("contact sheets")
    height, width = pixels.shape[:2]
    side = max(float((box[2:] - box[:2]).max()) / _SHARE, _LEAST_SIDE)
    side = min(side, max(height, width))
    corner = (box[:2] + box[2:] - side) / 2
    # Moved into the picture where it fits; else centred, on the paper's colour.
    room = np.array([width, height]) - side
    corner = np.where(room >= 0, np.clip(corner, 0, np.maximum(room, 0)), room / 2)
    scale = _TILE / side
    matrix = np.array([[scale, 0, -corner[0] * scale], [0, scale, -corner[1] * scale]])
    matrix[:, 2] += 0.5 * scale - 0.5  # OpenCV counts from the centres of pixels
    if scale < 1:  # the mean of the pixels that fall together, or edges would be jagged
        blur = max(1, round(1 / scale)) | 1
        pixels = cv2.blur(pixels, (blur, blur))
    tile = cv2.warpAffine(
        pixels,
        matrix,
        (_TILE, _TILE),
        flags=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=tuple(bytes.fromhex(_PAPER[1:])),
    )
    return tile, np.array([*corner, side])


def _shortened(name: str) -> str:
    """The name of a picture, its middle left out if need be: the event and the last digits find it."""
    if len(name) <= _LETTERS:
        return name
    event, _, rest = name.partition("/")
    event = event[: _LETTERS // 2]
    return f"{event}/...{rest[-(_LETTERS - len(event) - 4) :]}"


class _Canvas:
    """A page that is drawn on in pixels, from the top left corner; tiles come one after another.

    Args:
        columns: Tiles side by side.
        tiles: How many there will be.
    """

    def __init__(self, columns: int, tiles: int) -> None:
        try:
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure
            from matplotlib.patches import Rectangle
        except ImportError as error:
            raise MissingDependencyError("matplotlib", purpose="contact sheets", extra="eval") from error
        self._rectangle = Rectangle
        self._columns = columns
        self._width = columns * (_TILE + _GAP) + _GAP
        self._height = _HEADER + -(-tiles // columns) * (_TILE + _CAPTION + _GAP)
        # A figure of its own: pyplot would keep it, and chooses a window system.
        figure = Figure(figsize=(self._width / _DPI, self._height / _DPI), dpi=_DPI, facecolor=_PAPER)
        self._canvas: Any = FigureCanvasAgg(figure)
        self._axes: Any = figure.add_axes((0, 0, 1, 1))
        self._axes.set_axis_off()
        self._next = 0
        self._left = self._top = 0.0

    def heading(self, page: _Page, subtitle: str) -> None:
        self._text(_GAP, 32, page.title, _INK, 17, fontweight="bold")
        self._text(_GAP, 58, subtitle, _FAINT, 10)
        left = _GAP + 1
        for color, meaning in page.legend:
            self._axes.add_patch(
                self._rectangle((left, 78), 12, 12, fill=False, edgecolor=color, linewidth=2)
            )
            self._text(left + 19, 84, meaning, _FAINT, 10)
            left += 8 * len(meaning) + 46  # the letters of this size are up to 8 pixels wide on average

    def tile(self, pixels: UInt8Array) -> None:
        """Put the next tile into its place."""
        row, column = divmod(self._next, self._columns)
        self._next += 1
        left = self._left = _GAP + column * (_TILE + _GAP)
        top = self._top = _HEADER + row * (_TILE + _CAPTION + _GAP)
        extent = (left, left + _TILE, top + _TILE, top)
        self._axes.imshow(pixels, extent=extent, interpolation="nearest", aspect="auto")

    def box(self, box: DoubleArray, view: DoubleArray, color: str, line: float) -> None:
        """Draw what is visible of a box of the picture on the tile that was put last."""
        x1, y1, x2, y2 = (box - np.tile(view[:2], 2)) * (_TILE / view[2])
        if x2 < 0 or y2 < 0 or x1 > _TILE or y1 > _TILE:
            return
        patch = self._rectangle(
            (self._left + x1, self._top + y1), x2 - x1, y2 - y1, fill=False, edgecolor=color, linewidth=line
        )
        self._axes.add_patch(patch)
        frame = self._rectangle((self._left, self._top), _TILE, _TILE, transform=self._axes.transData)
        patch.set_clip_path(frame)

    def caption(self, what: str, how: str, where: str) -> None:
        """Write below the tile that was put last."""
        for text, below, color, size in ((what, 14, _INK, 9), (how, 31, _INK, 8), (where, 47, _FAINT, 7)):
            self._text(self._left, self._top + _TILE + below, text, color, size)

    def pixels(self) -> UInt8Array:
        """Return (H, W, 3) uint8 BGR."""
        self._axes.set(xlim=(0, self._width), ylim=(self._height, 0))
        self._canvas.draw()
        return np.ascontiguousarray(np.asarray(self._canvas.buffer_rgba())[:, :, 2::-1])

    def _text(self, x: float, y: float, text: str, color: str, size: float, **more: Any) -> None:
        # "$" in a name is no formula.
        self._axes.text(x, y, text, color=color, fontsize=size, va="center", parse_math=False, **more)
