"""Which of many faces show the same person."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from retinaface_fast._validation import check_number
from retinaface_fast.errors import MissingDependencyError

from .embedding import check_embeddings

if TYPE_CHECKING:
    import numpy.typing as npt

    from retinaface_fast._typing import DoubleArray, IntArray

__all__ = ["GROUPING_DISTANCE", "group_faces"]

#: Groups whose faces are on average nearer to each other than this are joined. Lower than the threshold for
#: two faces: among many there are always some that look alike.
GROUPING_DISTANCE = 0.5

#: Embeddings are never so far apart. With a higher one there would be no number that keeps two faces apart.
HIGHEST_THRESHOLD = 1_000_000

#: The distances of so many, and the copy that SciPy makes of them, take 3.2 GB.
_MOST_FACES = 20_000


def group_faces(
    embeddings: npt.ArrayLike,
    *,
    threshold: float = GROUPING_DISTANCE,
    pictures: npt.ArrayLike | None = None,
) -> IntArray:
    """Group faces by person.

    Average linkage: the two groups whose faces are nearest to each other on average are joined, again and
    again, until none are nearer than the threshold. The answer does not depend on the order of the faces, but
    for equal embeddings of one picture, which stand for each other; and a row of look-alikes does not become
    one person. dlib's own clustering (Chinese whispers), and single linkage, follow such rows: of 432 faces,
    68 of them of 18 known persons, they put 82 and 101 into one group at 0.5, average linkage 8; and the
    answer of Chinese whispers depends on the order.

    Memory and time grow with the square of the number of faces: 5,000 take 0.2 GB and 3 s.

    Args:
        embeddings: (N, 128), see `FaceEmbedder`; 20,000 at most.
        threshold: Groups with an average distance below it are joined; > 0, at most 1,000,000. With
            the default, 94 % of the pairs of one person among those 68 were together, and no pair of two;
            with 0.525 all of the former, but also 51 pairs of strangers on one picture instead of 36.
        pictures: (N,) integers: the picture of each face. Two faces of one picture are then never one person,
            which is right for all but collages, and worth a lot: people on one photograph look alike more
            often than others. None knows nothing of pictures.

    Returns:
        (N,) int64 the group of each face: 0 is the largest, and of groups as large, that which appears first.
        A face that is like no other is a group of its own.

    Raises:
        TypeError: `threshold` is not a number, or `pictures` not integers.
        ValueError: A wrong shape, an embedding that is not finite, too many of them, or a threshold out of
            range.
        MissingDependencyError: SciPy is not installed.

    Examples:
        >>> import numpy as np
        >>> group_faces(np.repeat([[0.0], [0.1], [0.0]], 128, axis=1)).tolist()
        [0, 1, 0]
    """
    threshold = check_number(threshold, "threshold")
    if not 0 < threshold <= HIGHEST_THRESHOLD:
        raise ValueError(f"threshold must be above 0 and at most {HIGHEST_THRESHOLD:,}, got {threshold:,}")
    faces = check_embeddings(embeddings, "embeddings")
    origins = _check_pictures(pictures, len(faces))
    if len(faces) > _MOST_FACES:
        raise ValueError(f"embeddings must be at most {_MOST_FACES:,}, got {len(faces):,}")
    if len(faces) < 2:
        return np.zeros(len(faces), np.int64)
    # Where distances are equal, the linkage takes the pair that comes first: a fixed order of the faces makes
    # the answer one that does not depend on theirs. Faces that are equal may still be of different pictures.
    order = np.lexsort((*(() if origins is None else (origins,)), *faces.T[::-1]))
    labels = np.empty(len(faces), np.int64)
    labels[order] = _linked(faces[order], origins[order] if origins is not None else None, threshold)
    return _by_size(labels)


def _check_pictures(pictures: npt.ArrayLike | None, count: int) -> IntArray | None:
    if pictures is None:
        return None
    array = np.asarray(pictures)
    if array.shape != (count,):
        raise ValueError(f"pictures must be one for each of the {count} faces, got shape {array.shape}")
    if count and array.dtype.kind not in "iu":
        raise TypeError(f"pictures must be integers, got {array.dtype}")
    return array.astype(np.int64)


def _linked(faces: DoubleArray, origins: IntArray | None, threshold: float) -> Any:
    try:
        from scipy.cluster.hierarchy import fcluster, linkage
        from scipy.spatial.distance import pdist
    except ImportError as error:
        raise MissingDependencyError("SciPy", purpose="grouping faces", extra="dlib") from error
    distances = pdist(faces)
    if np.isinf(distances.max()):
        raise ValueError("embeddings must not be so large that their distance is infinite")
    if origins is not None:
        # So far apart that one such pair keeps the average of any two groups above the threshold.
        never = 2 * (threshold + 1) * len(faces) ** 2
        for first in range(len(faces) - 1):
            others = first + 1 + np.flatnonzero(origins[first + 1 :] == origins[first])
            # The place of a pair in a condensed matrix, as SciPy documents it.
            distances[len(faces) * first + others - (first + 2) * (first + 1) // 2] = never
    tree = linkage(distances, method="average")
    # fcluster joins at the threshold, too.
    return fcluster(tree, np.nextafter(threshold, 0), criterion="distance")


def _by_size(labels: IntArray) -> IntArray:
    """Number groups by falling size, and then by their first face."""
    _, first, inverse, sizes = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    rank = np.empty(len(first), np.int64)
    rank[np.lexsort((first, -sizes))] = np.arange(len(first))
    return rank[inverse.reshape(-1)]
