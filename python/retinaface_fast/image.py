"""Pictures in: a path, bytes, a file object, a PIL image or an array becomes uint8 pixels and a geometry.

Every picture that leaves this module stands upright (EXIF orientation is applied), and its `Geometry` leads
coordinates back to the upright picture at its original size, also when it was decoded at a reduced scale.
OpenCV is imported only to decode or to resize; an array or PIL image that is used at its own size needs none.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ._image_file import BinaryFile, check_pixels, checked_header, choose_reduction, decode, read_bytes
from ._imports import import_cv2
from ._validation import check_color, check_positive_int
from .errors import ImageError
from .geometry import Geometry

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

    from ._typing import AnyArray, ColorOrder, UInt8Array

__all__ = ["DEFAULT_MAX_PIXELS", "ImageSource", "LoadedImage", "read_image"]

#: Pictures with more pixels than this are refused before they are decoded, unless `max_pixels` or the
#: environment variable `RETINAFACE_FAST_MAX_PIXELS` says otherwise. 268,435,456 pixels decode to 0.8 GB.
DEFAULT_MAX_PIXELS = 2**28

#: What `read_image`, and with it every detecting function, takes.
ImageSource: TypeAlias = (
    "str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryFile | PilImage | AnyArray"
)


@dataclass(frozen=True, slots=True, eq=False)
class LoadedImage:
    """A picture ready for an engine.

    Attributes:
        pixels: (H, W, 3) uint8; the bytes of a pixel, and the pixels of a row, lie side by side. Rows may
            lie apart: a view of the caller's array is not copied.
        color: Order of the channels of `pixels`.
        geometry: How to map coordinates back to the original picture.
        decode_seconds: Time spent on reading, decoding and checking.
        resize_seconds: Time spent on resizing.
    """

    pixels: UInt8Array
    color: ColorOrder
    geometry: Geometry
    decode_seconds: float = 0.0
    resize_seconds: float = 0.0

    def to_color(self, color: ColorOrder) -> UInt8Array:
        """Return the pixels in this channel order: (H, W, 3) uint8, a copy only where the order differs."""
        return self.pixels if color == self.color else np.ascontiguousarray(self.pixels[:, :, ::-1])


def read_image(
    source: ImageSource,
    *,
    color: ColorOrder = "bgr",
    max_side: int | None = None,
    max_pixels: int | None = None,
) -> LoadedImage:
    """Read a picture from wherever it is.

    Alpha is dropped: the colours beneath it are what is looked at. 16-bit pictures are scaled to 8 bits.
    Animated pictures give their first frame. JPEG files that are much larger than `max_side` are decoded at
    1/2, 1/4 or 1/8 of their size, which takes a fraction of the time and memory.

    Args:
        source: A path; the bytes of a picture file; a file object opened for reading bytes; a PIL image; or
            a uint8 array of shape (H, W, 3), (H, W, 4), (H, W, 1) or (H, W).
        color: Channel order of an array, `"bgr"` as OpenCV gives it or `"rgb"`. Files and PIL images know
            their own.
        max_side: Shrink the picture until its longer side is at most so many pixels; None leaves it alone.
            Never enlarges.
        max_pixels: Refuse files and PIL images with more pixels than this before they are decoded. None
            stands for the environment variable `RETINAFACE_FAST_MAX_PIXELS`, or 2**28 where it is not set.

    Returns:
        The upright picture, with the way back to its original size.

    Raises:
        ImageError: There is no such file, it cannot be read, it is not a picture, its end is missing, or it
            is larger than `max_pixels`.
        TypeError: `source` is nothing of the above, or an array of another dtype.
        ValueError: An array is empty or has another shape, or an option is out of range.
        MissingDependencyError: OpenCV is needed and cannot be imported.

    Examples:
        >>> import numpy as np
        >>> loaded = read_image(np.zeros((480, 640), np.uint8))
        >>> loaded.pixels.shape, loaded.geometry.is_identity
        ((480, 640, 3), True)
    """
    started = time.perf_counter()
    check_color(color)
    if max_side is not None:
        max_side = check_positive_int(max_side, "max_side")
    limit = pixel_limit(max_pixels)
    orientation, reduction = 1, 1
    if isinstance(source, np.ndarray):
        pixels = _from_array(source)
        original_hw = pixels.shape[:2]
    elif _is_pil_image(source):
        pixels, color = _from_pil(source, limit), "rgb"
        original_hw = pixels.shape[:2]
    else:
        name, data = read_bytes(source, limit)
        header = checked_header(name, data, limit)
        reduction = choose_reduction(header, max_side)
        pixels, color = decode(name, data, header, reduction), "bgr"
        # A decoder may read a header that contradicts itself another way than `checked_header` does.
        check_pixels(name, pixels.shape[:2], limit)
        original_hw = header.size_hw if reduction > 1 else pixels.shape[:2]
        orientation = header.orientation
    decoded = time.perf_counter()
    # What the pixels cover of the original: a reduced decoder rounds its size up and fills the rest.
    covered_hw = original_hw
    if pixels.shape[:2] == (-(-original_hw[0] // reduction), -(-original_hw[1] // reduction)):
        covered_hw = (pixels.shape[0] * reduction, pixels.shape[1] * reduction)
    if max_side is not None and max(pixels.shape[:2]) > max_side:
        pixels = resize(pixels, _fitted_size_hw(original_hw, max_side))
    resized = time.perf_counter()
    scale_xy = (covered_hw[1] / pixels.shape[1], covered_hw[0] / pixels.shape[0])
    surplus_xy = (float(original_hw[1] - covered_hw[1]), float(original_hw[0] - covered_hw[0]))
    swap, flip_x, flip_y = _ORIENTATIONS[orientation]
    if orientation != 1:
        pixels = _turn(pixels, orientation)
    if swap:
        original_hw, scale_xy, surplus_xy = original_hw[::-1], scale_xy[::-1], surplus_xy[::-1]
    geometry = Geometry(
        original_size_hw=original_hw,
        size_hw=pixels.shape[:2],
        scale_xy=scale_xy,
        offset_xy=(surplus_xy[0] if flip_x else 0.0, surplus_xy[1] if flip_y else 0.0),
    )
    turned = time.perf_counter()
    return LoadedImage(
        pixels=pixels,
        color=color,
        geometry=geometry,
        decode_seconds=(decoded - started) + (turned - resized),
        resize_seconds=resized - decoded,
    )


# EXIF orientation: whether the axes change places, then whether x and y are mirrored.
_ORIENTATIONS = {
    1: (False, False, False),
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}


def _turn(pixels: UInt8Array, orientation: int) -> UInt8Array:
    cv2 = import_cv2("turning pictures upright")
    swap, flip_x, flip_y = _ORIENTATIONS[orientation]
    if swap:
        pixels = cv2.transpose(pixels)
    if flip_x or flip_y:
        pixels = cv2.flip(pixels, -1 if flip_x and flip_y else int(flip_x))
    return pixels


def _fitted_size_hw(size_hw: tuple[int, int], max_side: int) -> tuple[int, int]:
    height, width = size_hw
    longer = max(size_hw)
    return max(1, round(height * max_side / longer)), max(1, round(width * max_side / longer))


def resize(pixels: UInt8Array, size_hw: tuple[int, int]) -> UInt8Array:
    """Bring (H, W, 3) uint8 pixels to another height and width, bilinearly.

    They are halved first while they are three times as large or more, so that small faces do not dissolve
    into aliasing. AP on 546 pictures of WIDER FACE at 1/4.2 of their size: 71.3 / 52.5 / 21.1; plain bilinear
    70.8 / 51.7 / 20.8, area averaging 71.7 / 52.7 / 21.2 in two to ten times the time. At 1/2 and 1/3 they
    are all alike.
    """
    cv2 = import_cv2("resizing pictures")
    while max(pixels.shape[:2]) >= 3 * max(size_hw):
        height, width = pixels.shape[:2]
        half = ((width + 1) // 2, (height + 1) // 2)
        pixels = cv2.resize(pixels, half, interpolation=cv2.INTER_LINEAR)
    if pixels.shape[:2] == size_hw:
        return pixels
    resized: UInt8Array = cv2.resize(pixels, size_hw[::-1], interpolation=cv2.INTER_LINEAR)
    return resized


def rescale(pixels: UInt8Array, scale: float) -> tuple[UInt8Array, tuple[float, float]]:
    """Scale (H, W, 3) uint8 pixels, up or down, bilinearly.

    Both axes are sampled at exactly this scale: the sides of the result are rounded, what it shows is not
    stretched to them. Published figures were made that way, and at small faces it shows: stretching to the
    rounded sides, which differs by up to 0.02 %, moved AP on WIDER FACE by 0.1.

    Args:
        pixels: The picture.
        scale: Pixels of the result per pixel of the picture; > 0.

    Returns:
        The result, (max(1, round(H * scale)), max(1, round(W * scale)), 3) uint8, and pixels of the picture
        per pixel of the result, x and y.

    Raises:
        MissingDependencyError: OpenCV cannot be imported.
    """
    height, width = pixels.shape[:2]
    size_hw = (round(height * scale), round(width * scale))
    if scale <= 1 / 3 or 0 in size_hw:  # in steps, or a picture a pixel wide
        size_hw = (max(1, size_hw[0]), max(1, size_hw[1]))
        return resize(pixels, size_hw), (width / size_hw[1], height / size_hw[0])
    cv2 = import_cv2("resizing pictures")
    scaled: UInt8Array = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    return scaled, (1 / scale, 1 / scale)


def pixel_limit(max_pixels: int | None) -> int:
    if max_pixels is not None:
        return check_positive_int(max_pixels, "max_pixels")
    text = os.environ.get("RETINAFACE_FAST_MAX_PIXELS", "")
    if not text:
        return DEFAULT_MAX_PIXELS
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"RETINAFACE_FAST_MAX_PIXELS must be a positive whole number, got {text!r}")
    return int(text)


def _from_array(array: AnyArray) -> UInt8Array:
    if array.dtype != np.uint8:
        raise TypeError(f"image must be an array of uint8, got {array.dtype}{_dtype_advice(array)}")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise ValueError(
            f"image must have shape (H, W, 3), (H, W, 4), (H, W, 1) or (H, W), got {array.shape}"
            f"{_shape_advice(array.shape)}"
        )
    if array.size == 0:
        raise ValueError(f"image is empty: its shape is {array.shape}")
    pixels = np.asarray(array)
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    height, width, channels = pixels.shape
    row_stride, column_stride, channel_stride = pixels.strides
    side_by_side = channel_stride == 1 and (column_stride == 3 or width == 1)
    if channels == 3 and side_by_side and (row_stride >= 3 * width or height == 1):
        return pixels
    copy = np.empty((height, width, 3), np.uint8)
    for channel in range(3):  # an eighth of the time that NumPy takes for all three at once
        copy[:, :, channel] = pixels[:, :, min(channel, channels - 1)]
    return copy


def _dtype_advice(array: AnyArray) -> str:
    kind = array.dtype.kind
    if kind == "f":
        top = float(np.nanmax(array)) if array.size and not np.isnan(array).all() else 0.0
        scaled = "image * 255" if top <= 1 else "image"
        return f"; convert with np.clip({scaled}, 0, 255).round().astype(np.uint8)"
    if kind == "b":
        return "; convert with image.astype(np.uint8) * 255"
    if array.dtype == np.uint16:
        return "; convert 16-bit pixels with (image >> 8).astype(np.uint8)"
    if kind in "iu":
        return "; convert values between 0 and 255 with image.astype(np.uint8)"
    return ""


def _shape_advice(shape: tuple[int, ...]) -> str:
    if len(shape) == 1:
        return "; pass an encoded picture as bytes, with array.tobytes()"
    if len(shape) == 3 and shape[0] in (1, 3, 4):
        return "; channels come last: image.transpose(1, 2, 0)"
    if len(shape) == 4:
        return "; pass several pictures to detect_batch"
    return ""


def _is_pil_image(source: object) -> bool:
    # Whoever holds a PIL image has imported PIL; nobody else should pay for it.
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(source, module.Image)


def _from_pil(image: Any, limit: int) -> UInt8Array:
    """Pixels of a PIL image: upright, (H, W, 3) uint8 RGB."""
    from PIL import ImageOps

    name = f"PIL image {getattr(image, 'filename', '') or ''}".rstrip()
    width, height = image.size
    if width < 1 or height < 1:
        raise ValueError(f"image is empty: a PIL image of {width}x{height} pixels")
    check_pixels(name, (height, width), limit)
    if image.mode in ("I", "F"):
        raise TypeError(
            f"image must have 8 or 16 bits for a channel, got a PIL image of mode {image.mode!r}; scale it "
            "to 0 … 255 and pass it as a uint8 array"
        )
    try:
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I;16"):
            gray = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
            return np.repeat(gray[:, :, None], 3, axis=2)
        if image.mode == "P":  # straight to RGB, PIL warns about palettes with transparency
            image = image.convert("RGBA")
        return np.array(image.convert("RGB"))
    except (OSError, EOFError, SyntaxError, ValueError) as error:
        raise ImageError(f"{name}: cannot be decoded: {error}") from error
