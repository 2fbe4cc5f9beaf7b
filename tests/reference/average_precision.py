"""Oracle of average precision by the rules of Pascal VOC and of COCO: one prediction after another.

VOC (`VOCevaldet.m`): predictions of all pictures by score; each looks at the box that it overlaps most (sides
a pixel longer). Enough overlap, and the box is right if it is free, wrong if it is taken, neither if it is
ignored.

COCO: picture by picture, the best predictions by score; each takes the box that it overlaps most of those
that are free, and an ignored one only if no other has enough overlap. Ignored regions can be taken by any
number, and count the part of the prediction that is in them. For a range of areas, boxes beyond it are
ignored, and so are predictions beyond it that take nothing. Then all predictions by score; at each of 101
recalls the highest precision from there on.
"""

from __future__ import annotations

import math

Box = tuple[float, float, float, float]
#: Boxes and scores of each picture.
Found = "Sequence[tuple[Sequence[Box], Sequence[float]]]"
#: Boxes of each picture, and whether they are ignored.
Truth = "Sequence[tuple[Sequence[Box], Sequence[bool]]]"


def sides(box: Box, extra: float) -> tuple[float, float]:
    return box[2] - box[0] + extra, box[3] - box[1] + extra


def shared(a: Box, b: Box, extra: float) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0]) + extra
    height = min(a[3], b[3]) - max(a[1], b[1]) + extra
    return max(width, 0.0) * max(height, 0.0)


def area(box: Box, extra: float = 0.0) -> float:
    width, height = sides(box, extra)
    return width * height


def voc(found: Found, truth: Truth, threshold: float, interpolation: str) -> float:
    everything = [
        (-score, picture, index)
        for picture, (_, scores) in enumerate(found)
        for index, score in enumerate(scores)
    ]
    total = sum(not is_ignored for _, ignored in truth for is_ignored in ignored)
    if not total:
        return math.nan
    taken = set()
    right = wrong = 0
    curve = []
    for _, picture, index in sorted(everything):
        box = found[picture][0][index]
        boxes, ignored = truth[picture]
        best, best_overlap = None, -1.0
        for number, other in enumerate(boxes):
            both = shared(box, other, 1.0)
            overlap = both / (area(box, 1.0) + area(other, 1.0) - both)
            if overlap > best_overlap:
                best, best_overlap = number, overlap
        if best is not None and best_overlap >= threshold:
            if ignored[best]:
                continue
            if (picture, best) in taken:
                wrong += 1
            else:
                taken.add((picture, best))
                right += 1
        else:
            wrong += 1
        curve.append((right, right / (right + wrong)))
    if interpolation == "11":
        # Recall >= level / 10, in whole numbers.
        return (
            sum(
                max((precision for hits, precision in curve if 10 * hits >= level * total), default=0.0)
                for level in range(11)
            )
            / 11
        )
    return (
        sum(
            max((precision for hits, precision in curve if hits >= face), default=0.0)
            for face in range(1, total + 1)
        )
        / total
    )


def coco_curve(
    found: Found, truth: Truth, threshold: float, limits: tuple[float, float], most: int
) -> tuple[float, float]:
    """Average precision and recall at one overlap, of boxes within limits of their area."""
    low, high = limits
    judged = []  # (-score, order, right)
    total = 0
    for (boxes, scores), (faces, crowds) in zip(found, truth, strict=True):
        left_out = [crowd or not low <= area(face) <= high for face, crowd in zip(faces, crowds, strict=True)]
        total += left_out.count(False)
        free = set(range(len(faces)))
        by_score = sorted(range(len(boxes)), key=lambda index: -scores[index])[:most]
        for index in by_score:
            box = boxes[index]

            overlaps = []
            for face, crowd in zip(faces, crowds, strict=True):
                both = shared(box, face, 0.0)
                overlaps.append(both / (area(box) if crowd else area(box) + area(face) - both))
            # Of equals the last, as its authors' loop has it.
            good = [
                number for number in range(len(faces)) if number in free and overlaps[number] >= threshold
            ]
            good.sort(key=lambda number: (not left_out[number], overlaps[number], number))
            if good:
                taken = good[-1]
                if not crowds[taken]:
                    free.discard(taken)
                if not left_out[taken]:
                    judged.append((-scores[index], len(judged), True))
            elif low <= area(box) <= high:
                judged.append((-scores[index], len(judged), False))
    if not total:
        return math.nan, math.nan
    right = 0
    curve = []
    for position, (_, _, is_right) in enumerate(sorted(judged), 1):
        right += is_right
        curve.append((right, right / position))
    precision = sum(
        # As its authors have them: 35 times 0.01 is more than 7 / 20.
        max((value for hits, value in curve if hits / total >= level * 0.01), default=0.0)
        for level in range(101)
    )
    return precision / 101, right / total


def coco(found: Found, truth: Truth, most: int) -> dict[str, float]:
    overlaps = [0.5 + (0.95 - 0.5) / 9 * step for step in range(10)]  # rounded as its authors' are
    areas = {"": (0.0, 1e10), "_small": (0.0, 1024.0), "_medium": (1024.0, 9216.0), "_large": (9216.0, 1e10)}
    result = {}
    for name, limits in areas.items():
        curves = [coco_curve(found, truth, overlap, limits, most) for overlap in overlaps]
        result[f"ap{name}"] = sum(precision for precision, _ in curves) / 10
        result[f"ar{name}"] = sum(recall for _, recall in curves) / 10
        if not name:
            result["ap50"], result["ap75"] = curves[0][0], curves[5][0]
    return result
