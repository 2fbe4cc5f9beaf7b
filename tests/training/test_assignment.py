from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinaface_fast import ops
from retinaface_fast.training.assignment import IGNORED, NEGATIVE, assign_anchors
from retinaface_fast.training.recipe import AssignmentSection
from tests.ops.layouts import LAYOUTS
from tests.reference import assignment as reference

USUAL = AssignmentSection()
NAN, INF = float("nan"), float("inf")


def thresholds(config: AssignmentSection) -> reference.Thresholds:
    return reference.Thresholds(config.positive_iou, config.negative_iou, config.force, config.force_min_iou)


def array(*rows: list[float]) -> np.ndarray:
    return np.array(rows, np.float32).reshape(-1, 4)


def scene(
    seed: int, anchors: int, faces: int, *, whole: bool, ignored: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Anchors without an order and faces; with whole numbers, many IoUs are equal."""
    rng = np.random.default_rng(seed)
    centre_size = np.hstack([rng.uniform(0, 40, (anchors, 2)), rng.uniform(2, 16, (anchors, 2))])
    corner, size = rng.uniform(-4, 40, (faces, 2)), rng.uniform(1, 20, (faces, 2))
    if whole:
        centre_size[:, 2:] = 2 * np.round(centre_size[:, 2:] / 2)
        centre_size, corner, size = np.round(centre_size), np.round(corner), np.ceil(size)
    flags = rng.random(faces) < 0.3 if ignored else None
    return centre_size.astype(np.float32), np.hstack([corner, corner + size]).astype(np.float32), flags


CONFIGS = [
    USUAL,
    AssignmentSection(positive_iou=0.5, negative_iou=0.3),
    AssignmentSection(positive_iou=0.5, negative_iou=0.3, force=False),
    AssignmentSection(positive_iou=0.35, negative_iou=0.35, force_min_iou=0.2),
    AssignmentSection(positive_iou=1, negative_iou=1),
    AssignmentSection(positive_iou=0.01, negative_iou=0.01, force=False),
]


@settings(deadline=None, max_examples=150)
@given(
    seed=st.integers(0, 2**32),
    # Around the number of anchors that the core looks at together, and around twice that.
    anchors=st.one_of(st.integers(0, 100), st.sampled_from([31, 32, 33, 63, 64, 65])),
    faces=st.integers(0, 8),
    whole=st.booleans(),
    ignored=st.booleans(),
    config=st.sampled_from(CONFIGS),
)
def test_is_what_the_definition_says_pair_by_pair(
    *, seed: int, anchors: int, faces: int, whole: bool, ignored: bool, config: AssignmentSection
) -> None:
    grid, boxes, flags = scene(seed, anchors, faces, whole=whole, ignored=ignored)
    assigned = assign_anchors(grid, boxes, config=config, ignored=flags)
    assert assigned.dtype == np.int64
    assert assigned.tolist() == reference.assign_one_by_one(grid, boxes, thresholds(config), flags)


@pytest.mark.parametrize("config", CONFIGS, ids=range(len(CONFIGS)))
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("ignored", [True, False])
def test_of_a_pyramid_and_a_crowd(config: AssignmentSection, whole: bool, ignored: bool) -> None:
    rng = np.random.default_rng(3)
    anchors = ops.generate_anchors((320, 256))
    size = np.exp(rng.uniform(np.log(6), np.log(200), (40, 1))) * rng.uniform(0.8, 1.25, (40, 2))
    corner = rng.uniform(-20, 256, (40, 2))
    boxes = np.hstack([corner, corner + size])
    boxes = (np.round(boxes / 4) * 4 if whole else boxes).astype(np.float32)
    boxes[-1] = boxes[3]  # twice the same face
    flags = rng.random(40) < 0.2 if ignored else None

    if whole:
        iou = ops.box_iou(reference.corners(anchors), boxes)
        touched = iou.max(axis=1) > 0
        assert ((iou == iou.max(axis=1, keepdims=True)).sum(axis=1)[touched] > 1).any(), "no tied faces"
        assert ((iou == iou.max(axis=0)).sum(axis=0) > 1).any(), "no tied anchors"
        best = iou.argmax(axis=0)
        assert len(set(best.tolist())) < len(best), "no anchor that several faces claim"

    assigned = assign_anchors(anchors, boxes, config=config, ignored=flags)
    np.testing.assert_array_equal(assigned, reference.assign(anchors, boxes, thresholds(config), flags))
    assert {NEGATIVE} < set(assigned.tolist())


def test_the_oracles_agree() -> None:
    for seed in range(30):
        anchors, boxes, flags = scene(seed, 50, 6, whole=seed % 2 == 0, ignored=seed % 3 == 0)
        for config in CONFIGS:
            by_arrays = reference.assign(anchors, boxes, thresholds(config), flags)
            one_by_one = reference.assign_one_by_one(anchors, boxes, thresholds(config), flags)
            assert by_arrays.tolist() == one_by_one


def test_thresholds_are_reached_by_equal_ious() -> None:
    # 7 of 20 columns: 0.35, whose nearest float32 lies below 0.35.
    anchors, boxes = array([10, 10, 20, 20]), array([0, 0, 7, 20])
    assert float(ops.box_iou(reference.corners(anchors), boxes)[0, 0]) < 0.35
    alone = {"force": False}
    for positive, negative, expected in [
        (0.35, 0.35, 0),
        (0.36, 0.35, IGNORED),
        (0.36, 0.36, NEGATIVE),
        (0.35, 0.2, 0),
    ]:
        config = AssignmentSection(positive_iou=positive, negative_iou=negative, **alone)
        assert assign_anchors(anchors, boxes, config=config).tolist() == [expected]
    # Beside one that fits better, or half of its IoU would do for an ignored face.
    both = array([10, 10, 20, 20], [4.75, 10, 9.5, 20])
    for limit, expected in [(0.35, IGNORED), (0.36, NEGATIVE)]:
        config = AssignmentSection(positive_iou=limit, negative_iou=limit)
        found = assign_anchors(both, boxes, config=config, ignored=np.array([True]))
        assert found.tolist() == [expected, IGNORED]
    for limit, expected in [(0.35, 0), (0.36, NEGATIVE)]:
        config = AssignmentSection(positive_iou=0.9, negative_iou=0.9, force_min_iou=limit)
        assert assign_anchors(anchors, boxes, config=config).tolist() == [expected]


def test_a_face_takes_its_best_anchor() -> None:
    anchors = array([10, 10, 20, 20], [10, 10, 20, 20], [50, 10, 20, 20])
    far, small = [200, 200, 210, 210], [0, 0, 4, 4]
    assert assign_anchors(anchors, array(small, far), config=USUAL).tolist() == [0, -1, -1]
    assert assign_anchors(anchors, array(small, small), config=USUAL).tolist() == [1, -1, -1]
    # From a face that it fits better, too; the second anchor keeps that one.
    whole = [0, 0, 20, 20]
    assert assign_anchors(anchors, array(whole, small), config=USUAL).tolist() == [1, 0, -1]
    assert assign_anchors(anchors, array(small, whole), config=USUAL).tolist() == [1, 1, -1]


def test_a_face_below_the_limit_takes_nothing_from_another() -> None:
    anchors = array([10, 10, 20, 20])
    config = AssignmentSection(force_min_iou=0.2)
    assert assign_anchors(anchors, array([0, 0, 20, 20], [0, 0, 4, 4]), config=config).tolist() == [0]


def test_ignored_faces() -> None:
    anchors = array([10, 10, 20, 20], [50, 10, 20, 20], [99, 10, 20, 20], [12, 10, 20, 20], [85, 10, 9, 20])
    boxes = array([0, 0, 20, 20], [40, 0, 60, 20], [80, 0, 86, 20])
    every, none = np.ones(3, bool), np.zeros(3, bool)
    # Ignored faces take no anchor, and what is hardly on one stays background.
    assert assign_anchors(anchors, boxes, config=USUAL, ignored=every).tolist() == [-2, -2, -1, -2, -2]
    plain = assign_anchors(anchors, boxes, config=USUAL).tolist()
    assert assign_anchors(anchors, boxes, config=USUAL, ignored=none).tolist() == plain == [0, 1, -1, 0, 2]
    # A face wins over an ignored face in the same place, whichever comes first.
    for both in (array([0, 0, 20, 20], [0, 0, 20, 20]), array([0, 0, 20, 20], [0, 0, 20, 21])):
        first = assign_anchors(anchors, both, config=USUAL, ignored=np.array([True, False]))
        assert first.tolist() == [1, -1, -1, 1, -1]


IGNORED_ONE = np.array([True])


@pytest.mark.parametrize("side", [1, 3, 5, 8])
def test_an_ignored_face_smaller_than_all_anchors(side: int) -> None:
    anchors = ops.generate_anchors((128, 128))
    rng = np.random.default_rng(side)
    for corner in rng.uniform(0, 128 - side, (40, 2)):
        box = np.hstack([corner, corner + side]).astype(np.float32)
        found = assign_anchors(anchors, box[None], config=USUAL, ignored=IGNORED_ONE)
        left_out = anchors[found == IGNORED]
        # Those of 16 pixels that hold it whole, and no larger ones nor such as do not touch it.
        corners = reference.corners(anchors)
        holds = (corners[:, :2] <= box[:2]).all(axis=1) & (corners[:, 2:] >= box[2:]).all(axis=1)
        of_16 = anchors[:, 2] == 16
        assert (found[holds & of_16] == IGNORED).all()
        assert (holds & of_16).any()
        assert set(left_out[:, 2].tolist()) == {16}
        centre = (box[:2] + box[2:]) / 2
        assert (np.abs(left_out[:, :2] - centre) <= 8).all()  # its centre in the anchor


def test_an_ignored_region_leaves_out_the_anchors_in_it() -> None:
    anchors = ops.generate_anchors((640, 640))
    box = array([84, 84, 364, 364])
    found = assign_anchors(anchors, box, config=USUAL, ignored=IGNORED_ONE)
    corners = reference.corners(anchors)
    shared = np.minimum(corners[:, 2:], box[0, 2:]) - np.maximum(corners[:, :2], box[0, :2])
    share = np.clip(shared, 0, None).prod(axis=1) / anchors[:, 2:].prod(axis=1)
    for size in (16, 32, 64, 128):
        of_size = anchors[:, 2] == size
        np.testing.assert_array_equal(found[of_size] == IGNORED, share[of_size] >= 0.5)
        assert (share[of_size] >= 0.5).any()
        assert (share[of_size] == 0.5).any() == (size in (16, 32))  # centres on its edge
    assert (found[share == 0] == NEGATIVE).all()


def test_half_of_an_anchor_in_an_ignored_region() -> None:
    anchors = array([40, 50, 20, 20], [50, 50, 90, 90])
    for left, expected in [(40, IGNORED), (np.nextafter(np.float32(40), np.float32(41)), NEGATIVE)]:
        box = array([left, 0, 140, 100])
        found = assign_anchors(anchors, box, config=USUAL, ignored=IGNORED_ONE)
        assert found.tolist() == [expected, IGNORED]


def test_half_of_the_highest_iou_with_an_ignored_face() -> None:
    # Both anchors hold the whole face, 16 of 256 pixels and 16 of 512 or a few more.
    face = array([0, 0, 4, 4])
    for height, expected in [(16, IGNORED), (16.25, NEGATIVE)]:
        anchors = array([8, 8, 16, 16], [16, height / 2, 32, height])
        found = assign_anchors(anchors, face, config=USUAL, ignored=IGNORED_ONE)
        assert found.tolist() == [IGNORED, expected]


def test_what_touches_no_anchor_leaves_none_out() -> None:
    anchors = array([8, 8, 16, 16], [8, 8, 0, 0], [5, 5, INF, INF], [5, 5, -10, -10], [NAN, 5, 10, 10])
    for box, first in [([16, 0, 20, 4], NEGATIVE), ([-90, -90, 90, 90], IGNORED)]:
        found = assign_anchors(anchors, array(box), config=USUAL, ignored=IGNORED_ONE)
        assert found.tolist() == [first, -1, -1, -1, -1]


def test_no_faces_and_no_anchors() -> None:
    anchors = ops.generate_anchors((64, 64))
    assert assign_anchors(anchors, array(), config=USUAL).tolist() == [NEGATIVE] * len(anchors)
    empty = np.zeros(0, bool)
    assert assign_anchors(anchors, array(), config=USUAL, ignored=empty).tolist() == [NEGATIVE] * len(anchors)
    assert assign_anchors(array(), array([0, 0, 4, 4]), config=USUAL).shape == (0,)


def test_anchors_without_bounds_overlap_nothing() -> None:
    anchors = array([NAN, 5, 10, 10], [5, 5, INF, INF], [INF, 5, 10, 10], [5, 5, -10, -10], [5, 5, 10, 10])
    assert assign_anchors(anchors, array([0, 0, 10, 10]), config=USUAL).tolist() == [-1, -1, -1, -1, 0]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_in_memory(layout: str) -> None:
    anchors, boxes, flags = scene(5, 70, 6, whole=False, ignored=True)
    change = LAYOUTS[layout]
    flags_changed = flags if layout == "misaligned" else change(flags)  # a byte is aligned anywhere
    changed = assign_anchors(change(anchors), change(boxes), config=USUAL, ignored=flags_changed)
    np.testing.assert_array_equal(changed, assign_anchors(anchors, boxes, config=USUAL, ignored=flags))


def test_flags_need_not_be_ones() -> None:
    # NumPy takes any byte that is not 0 for true.
    anchors, boxes = array([10, 10, 20, 20]), array([0, 0, 20, 20])
    flags = np.array([2], np.uint8).view(bool)
    assert assign_anchors(anchors, boxes, config=USUAL, ignored=flags).tolist() == [IGNORED]


@pytest.mark.parametrize(
    "box",
    [
        [0, 0, 0, 10],
        [0, 0, 10, 0],
        [10, 0, 0, 10],
        [0, 10, 10, 0],
        [10, 10, 0, 0],
        [NAN, 0, 9, 9],
        [0, NAN, 9, 9],
        [0, 0, NAN, 9],
        [0, 0, 9, NAN],
        [0, 0, INF, 9],
        [-INF, 0, 9, 9],
        [-3e38, 0, 3e38, 1],
        [0, 0, 2e19, 2e19],
    ],
)
@pytest.mark.parametrize("flag", [True, False])
def test_boxes_without_an_area_are_errors(box: list[float], flag: bool) -> None:
    boxes = array([0, 0, 9, 9], box, [0, 0, 9, 9])
    with pytest.raises(ValueError, match=r"^boxes: expected .* got \(.*\) at index 1$"):
        assign_anchors(array([5, 5, 9, 9]), boxes, config=USUAL, ignored=np.array([False, flag, False]))


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"anchors": np.zeros((2, 3), np.float32)}, ValueError, r"^anchors: expected .*\(A, 4\), got"),
        ({"anchors": np.zeros((2, 4))}, TypeError, "^anchors: expected a float32 array .* got float64"),
        ({"boxes": np.zeros(4, np.float32)}, ValueError, r"^boxes: expected .*\(G, 4\), got"),
        ({"boxes": [[0.0, 0.0, 1.0, 1.0]]}, TypeError, "^boxes: expected a float32 array"),
        ({"boxes": None}, TypeError, "^boxes: expected a float32 array"),
        ({"ignored": np.zeros(1, np.uint8)}, TypeError, "^ignored: expected a bool array .* got uint8"),
        ({"ignored": np.zeros(2, bool)}, ValueError, "^ignored: expected one for each of the 1 boxes, got 2"),
        ({"ignored": np.zeros((1, 1), bool)}, ValueError, r"^ignored: expected .*\(G,\), got"),
    ],
)
def test_bad_arguments(changed: dict[str, object], error: type[Exception], message: str) -> None:
    arguments = {"anchors": array([5, 5, 9, 9]), "boxes": array([0, 0, 9, 9]), **changed}
    with pytest.raises(error, match=message):
        assign_anchors(config=USUAL, **arguments)


def test_many_threads_at_once() -> None:
    scenes = [scene(seed, 3000, 30, whole=False, ignored=True) for seed in range(4)]
    expected = [assign_anchors(a, b, config=USUAL, ignored=i) for a, b, i in scenes]
    wrong: list[int] = []

    def work(which: int) -> None:
        anchors, boxes, flags = scenes[which]
        for _ in range(50):
            found = assign_anchors(anchors, boxes, config=USUAL, ignored=flags)
            if not np.array_equal(found, expected[which]):
                wrong.append(which)

    threads = [threading.Thread(target=work, args=(which,)) for which in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
