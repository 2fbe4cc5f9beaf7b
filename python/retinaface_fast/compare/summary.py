"""A comparison as JSON takes it: what the report shows, and what programs read."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

import retinaface_fast
from retinaface_fast.data import Prediction
from retinaface_fast.detections import LANDMARK_NAMES
from retinaface_fast.evaluation import evaluate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from retinaface_fast._typing import DoubleArray
    from retinaface_fast.data import GroundTruth
    from retinaface_fast.detections import Detections

    from .comparison import ComparedPicture, Contestant, Search
    from .pairing import FacePairs

__all__ = ["height_edges", "summarize_comparison"]

#: Of the layout of `comparison.json`: it goes up where a reader of the old one would go wrong.
_FORMAT = 1


def summarize_comparison(
    contestants: Sequence[Contestant],
    pictures: Sequence[ComparedPicture],
    *,
    min_iou: float,
    truth: Callable[[Sequence[str]], GroundTruth] | None = None,
    protocol: str | None = None,
) -> dict[str, Any]:
    """Sum up a comparison.

    Args:
        contestants: The detectors, as they were given to `compare_picture`.
        pictures: What that returned for each picture.
        min_iou: What it was called with.
        truth: Returns the faces that are to be found in the pictures of these names. It is called with those
            that every detector has searched, so that average precision is over the same pictures for all.
        protocol: Name of the protocol by which the scored faces were found.

    Returns:
        As JSON takes it, without NaN or infinity. `detectors`: name, label, settings, pictures, failed, faces
        and the median of the seconds of each. `pairs`: how each detector but the first compares with the
        first: matched faces, those of one only, the median overlap and the median distance of each landmark,
        a fraction of the height of the first's box, with the number of pairs that have it. `heights`: edges
        in pixels, and for each detector the number of faces in `[edges[i], edges[i + 1])`. `ground_truth`:
        average precision and curves, or None. `pictures`: everything of each picture.
    """
    whole = [picture for picture in pictures if picture.is_whole]
    edges = height_edges([search.detections for picture in pictures for search in picture.searches.values()])
    return {
        "format": _FORMAT,
        "version": retinaface_fast.__version__,
        "min_iou": min_iou,
        "reference": contestants[0].name,
        "num_pictures": len(pictures),
        "num_failed": len(pictures) - len(whole),
        "detectors": [_detector(each, pictures) for each in contestants],
        "pairs": {each.name: _pairs(each.name, pictures) for each in contestants[1:]},
        "heights": {
            "edges": [round(edge, 3) for edge in edges],
            "counts": {each.name: _height_counts(each.name, pictures, edges) for each in contestants},
        },
        "ground_truth": None
        if truth is None or not whole
        else _ground_truth(contestants, whole, truth([picture.name for picture in whole]), protocol),
        "pictures": [_picture(picture) for picture in pictures],
    }


def _searches(name: str, pictures: Sequence[ComparedPicture]) -> list[Search]:
    return [picture.searches[name] for picture in pictures if name in picture.searches]


def _detector(contestant: Contestant, pictures: Sequence[ComparedPicture]) -> dict[str, Any]:
    searches = _searches(contestant.name, pictures)
    found = [search.detections for search in searches if search.detections is not None]
    seconds = [search.seconds for search in searches if search.seconds is not None]
    return {
        "name": contestant.name,
        "label": contestant.label,
        "settings": dict(contestant.settings),
        "pictures": len(found),
        "failed": len(searches) - len(found),
        "faces": sum(map(len, found)),
        "median_seconds": _median(seconds),
    }


def _pairs(name: str, pictures: Sequence[ComparedPicture]) -> dict[str, Any]:
    pairs = [picture.pairs[name] for picture in pictures if name in picture.pairs]
    distances = np.concatenate([each.landmark_distances for each in pairs] or [np.empty((0, 5))])
    return {
        "pictures": len(pairs),
        "matched": sum(map(len, pairs)),
        "only_first": sum(len(each.only_first) for each in pairs),
        "only_second": sum(len(each.only_second) for each in pairs),
        "median_iou": _median(np.concatenate([each.ious for each in pairs] or [np.empty(0)])),
        "landmarks": {
            landmark: {
                "pairs": int(np.count_nonzero(~np.isnan(column))),
                "median_distance": _median(column),
            }
            for landmark, column in zip(LANDMARK_NAMES, distances.T, strict=True)
        },
    }


def _median(values: Sequence[float] | DoubleArray) -> float | None:
    """The median of what is not NaN; None where nothing is."""
    numbers = np.asarray(values, np.float64)
    numbers = numbers[~np.isnan(numbers)]
    return round(float(np.median(numbers)), 6) if numbers.size else None


def height_edges(results: Sequence[Detections | None]) -> list[float]:
    """Return the edges of bins for the heights of all faces: powers of the square root of two.

    Examples:
        >>> import numpy as np
        >>> from retinaface_fast import Detections
        >>> points = np.full((2, 5, 2), np.nan)
        >>> result = Detections([[0, 0, 9, 9], [0, 0, 20, 20]], [0.9, 0.8], points, image_size=(90, 90))
        >>> [round(edge, 1) for edge in height_edges([result])]
        [8.0, 11.3, 16.0, 22.6]
        >>> height_edges([])
        []
    """
    heights = np.concatenate([_heights(result) for result in results if result is not None] or [np.empty(0)])
    heights = heights[heights > 0]
    if not heights.size:
        return []
    low, high = float(heights.min()), float(heights.max())
    first = math.floor(2 * math.log2(low))
    edges = [2 ** (first / 2)]
    while edges[-1] <= high:
        edges.append(2 ** ((first + len(edges)) / 2))
    # The logarithm is rounded: the lowest face must not fall below the first edge.
    return edges if edges[0] <= low else [2 ** ((first - 1) / 2), *edges]


def _heights(result: Detections) -> DoubleArray:
    return np.asarray(result.boxes[:, 3] - result.boxes[:, 1], np.float64)


def _height_counts(name: str, pictures: Sequence[ComparedPicture], edges: Sequence[float]) -> list[int]:
    found = [search.detections for search in _searches(name, pictures) if search.detections is not None]
    heights = np.concatenate([_heights(each) for each in found] or [np.empty(0)])
    bins = np.searchsorted(np.asarray(edges), heights[heights > 0], side="right") - 1
    counts: list[int] = np.bincount(bins, minlength=max(len(edges) - 1, 0)).tolist()
    return counts


def _ground_truth(
    contestants: Sequence[Contestant],
    pictures: Sequence[ComparedPicture],
    truth: GroundTruth,
    protocol: str | None,
) -> dict[str, Any]:
    ap, curves = {}, {}
    for contestant in contestants:
        found = [picture.searches[contestant.name].scored for picture in pictures]
        scores = evaluate([_prediction(each) for each in found if each is not None], truth)
        any_face = {subset: bool(counted.any()) for subset, counted in truth.counted.items()}
        ap[contestant.name] = {
            subset: round(value, 5) if any_face[subset] else None for subset, value in scores.ap.items()
        }
        curves[contestant.name] = {
            subset: {
                "recall": curve.recall.round(5).tolist(),
                "precision": curve.precision.round(5).tolist(),
            }
            for subset, curve in scores.curves.items()
            if any_face[subset]
        }
    return {
        "protocol": protocol,
        "pictures": len(truth),
        "faces": {subset: int(np.count_nonzero(counted)) for subset, counted in truth.counted.items()},
        "ap": ap,
        "curves": curves,
    }


def _prediction(found: Detections) -> Prediction:
    return Prediction(np.asarray(found.boxes, np.float64), np.asarray(found.scores, np.float64))


def _picture(picture: ComparedPicture) -> dict[str, Any]:
    if picture.error is not None:
        return {"name": picture.name, "error": picture.error}
    return {
        "name": picture.name,
        "image_size": None if picture.image_size is None else list(picture.image_size),
        "searches": {name: _search(search) for name, search in picture.searches.items()},
        "pairs": {name: _of_picture(pairs) for name, pairs in picture.pairs.items()},
    }


def _search(search: Search) -> dict[str, Any]:
    if search.detections is None:
        return {"error": search.error}
    faces = [face.to_dict() for face in search.detections]
    seconds = None if search.seconds is None else round(search.seconds, 6)
    failed = {} if search.scored_error is None else {"scored_error": search.scored_error}
    return {"seconds": seconds, "faces": faces, **failed}


def _of_picture(pairs: FacePairs) -> dict[str, Any]:
    return {
        "matched": pairs.pairs.tolist(),
        "ious": pairs.ious.round(4).tolist(),
        "landmark_distances": [
            [None if math.isnan(value) else round(value, 5) for value in row]
            for row in pairs.landmark_distances.tolist()
        ],
        "only_first": pairs.only_first.tolist(),
        "only_second": pairs.only_second.tolist(),
    }
