"""Crops for face recognition: five landmarks are laid on the ArcFace template by a similarity transform.

The template, and the way in which it grows with the size of the crop, are those of InsightFace, with which
the usual recognition networks were trained. As there, coordinates go into the affine warp as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ._imports import import_cv2
from ._landmarks import LANDMARK_NAMES, unknown_landmarks
from ._validation import check_color, check_positive_int
from .image import read_image

if TYPE_CHECKING:
    from ._typing import ColorOrder, UInt8Array
    from .image import ImageSource

__all__ = ["align_faces", "arcface_template", "estimate_similarity"]

# Left eye, right eye, nose, left and right mouth corner, as seen in the image, in a crop of 112x112.
_TEMPLATE_112 = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)


def arcface_template(size: int = 112) -> npt.NDArray[np.float64]:
    """Where the five landmarks lie in an aligned crop.

    For multiples of 112 the template grows with the crop. For multiples of 128 it grows by size / 128 and
    moves to the right by 8 pixels for each 128: the same face, with more of its surroundings.

    Args:
        size: Width and height of the crop in pixels; a multiple of 112 or of 128.

    Returns:
        (5, 2) float64, x and y in pixels of the crop.

    Raises:
        TypeError: `size` is not an integer.
        ValueError: `size` is not a positive multiple of 112 or of 128, for which no template is agreed upon.

    Examples:
        >>> arcface_template(128)[0].tolist()
        [46.2946, 51.6963]
    """
    size = check_positive_int(size, "size")
    template = np.array(_TEMPLATE_112)
    if size % 112 == 0:
        return template * (size / 112)
    if size % 128 == 0:
        return template * (size / 128) + (8 * size / 128, 0)
    raise ValueError(
        f"size must be a multiple of 112 or of 128, for which the ArcFace template is defined, got {size}; "
        "resize the crop of the next larger one"
    )


def estimate_similarity(source: npt.ArrayLike, target: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Find the similarity transform that brings points nearest to other points, in the least-squares sense.

    Rotation, uniform scale and shift without reflection: Umeyama (1991), "Least-squares estimation of
    transformation parameters between two point patterns". In the plane such a transform is z ↦ a z + b over
    the complex numbers, and the optimum is a linear regression, which needs no singular values:
    a = Σ conj(z - mean z) (w - mean w) / Σ |z - mean z|², b = mean w - a mean z.

    Args:
        source: (..., K, 2) points, x and y; computed in float64.
        target: (K, 2) points, or (..., K, 2), to bring them to.

    Returns:
        (..., 2, 3) float64 matrices M: a source point p goes to M[:, :2] @ p + M[:, 2].

    Raises:
        ValueError: Wrong shapes, a coordinate that is not finite, or source points that all coincide.

    Examples:
        >>> estimate_similarity([[0, 0], [1, 0], [0, 1]], [[5, 5], [7, 5], [5, 7]]).round(6).tolist()
        [[2.0, -0.0, 5.0], [0.0, 2.0, 5.0]]
    """
    points, goals = np.asarray(source, np.float64), np.asarray(target, np.float64)
    for name, array in (("source", points), ("target", goals)):
        if array.ndim < 2 or array.shape[-1] != 2 or array.shape[-2] < 2:
            raise ValueError(f"{name} must have shape (..., K, 2) with K of at least 2, got {array.shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} must be finite")
    if points.shape[-2] != goals.shape[-2]:
        raise ValueError(f"source and target must have as many points, got {points.shape} and {goals.shape}")
    source_mean, target_mean = points.mean(axis=-2), goals.mean(axis=-2)
    x, y = np.moveaxis(points - source_mean[..., None, :], -1, 0)
    u, v = np.moveaxis(goals - target_mean[..., None, :], -1, 0)
    spread = (x * x + y * y).sum(axis=-1)
    if (spread <= 0).any():
        raise ValueError("source points must not all coincide")
    real = (x * u + y * v).sum(axis=-1) / spread
    imaginary = (x * v - y * u).sum(axis=-1) / spread
    matrices = np.empty((*real.shape, 2, 3))
    matrices[..., 0, 0] = matrices[..., 1, 1] = real
    matrices[..., 1, 0] = imaginary
    matrices[..., 0, 1] = -imaginary
    matrices[..., 2] = target_mean - (matrices[..., :2] @ source_mean[..., None])[..., 0]
    return matrices


def align_faces(
    image: ImageSource, landmarks: npt.ArrayLike, *, size: int = 112, color: ColorOrder = "bgr"
) -> UInt8Array:
    """Cut faces out of a picture, turned and scaled so that their landmarks lie on the ArcFace template.

    Args:
        image: The picture, anything that `read_image` takes.
        landmarks: (N, 5, 2) x and y in pixels of the picture: left eye, right eye, nose, left and right mouth
            corner, left and right as seen in the image.
        size: Width and height of a crop in pixels; a multiple of 112 or of 128, see `arcface_template`.
        color: Channel order of an array, and of the crops.

    Returns:
        (N, size, size, 3) uint8 in the order of `color`. What lies outside the picture is black.

    Raises:
        ImageError: The picture cannot be read.
        TypeError: An argument has the wrong type.
        ValueError: A wrong shape or size, or a face that lacks a landmark (NaN), or whose landmarks are
            infinite or all coincide.
        MissingDependencyError: OpenCV is needed and cannot be imported.

    Examples:
        >>> import numpy as np
        >>> align_faces(np.zeros((64, 64, 3), np.uint8), np.empty((0, 5, 2)), size=224).shape
        (0, 224, 224, 3)
    """
    check_color(color)
    template = arcface_template(size)
    points = np.asarray(landmarks, np.float64)
    if points.ndim != 3 or points.shape[1:] != (5, 2):
        raise ValueError(f"landmarks must have shape (N, 5, 2), got {points.shape}")
    for index, unknown in enumerate(unknown_landmarks(points)):
        if unknown.any():
            missing = ", ".join(np.array(LANDMARK_NAMES)[unknown])
            raise ValueError(f"face {index} lacks landmarks, and aligning takes all five: no {missing}")
    pixels = read_image(image, color=color).to_color(color)
    crops = np.empty((len(points), size, size, 3), np.uint8)
    if not len(points):
        return crops
    cv2 = import_cv2("aligning faces")
    for crop, matrix in zip(crops, estimate_similarity(points, template), strict=True):
        cv2.warpAffine(pixels, matrix, (size, size), dst=crop, flags=cv2.INTER_LINEAR)
    return crops
