from __future__ import annotations

import copy
import json
import pickle
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from retinaface_fast import Detections, Face, MissingDependencyError
from retinaface_fast.detections import LANDMARK_NAMES


def make(count: int = 5, *, seed: int = 0, image_size: tuple[int, int] = (120, 160)) -> Detections:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 60, (count, 2))
    return Detections(
        boxes=np.hstack([corners, corners + rng.uniform(5, 50, (count, 2))]),
        scores=np.sort(rng.uniform(0.5, 1, count))[::-1],
        landmarks=rng.uniform(0, 100, (count, 5, 2)),
        image_size=image_size,
        timings={"decode": 0.001, "total": 0.0241},
        engine="torch",
        device="cpu",
    )


EMPTY = Detections([], [], [], image_size=(4, 6))


def test_columns_have_their_types_and_cannot_be_changed() -> None:
    boxes = np.arange(8, dtype=np.float64).reshape(2, 4)
    result = Detections(boxes, [0.9, 0.8], np.zeros((2, 5, 2)), image_size=np.array([4, 6]))
    assert (result.boxes.dtype, result.scores.dtype, result.landmarks.dtype) == (np.float32,) * 3
    assert result.image_size == (4, 6)
    assert [type(value) for value in result.image_size] == [int, int]
    boxes[:] = -1
    assert result.boxes[1].tolist() == [4, 5, 6, 7]
    for array in (result.boxes, result.scores, result.landmarks, result[0].box, result[:1].boxes):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    with pytest.raises(AttributeError):
        result.scores = np.ones(2)
    with pytest.raises(TypeError):
        result.timings["total"] = 1.0


def test_no_face_keeps_shapes() -> None:
    for empty in (EMPTY, make()[:0], make()[[]], make()[np.zeros(5, bool)], EMPTY[:], EMPTY.clip()):
        assert len(empty) == 0
        assert not empty
        assert list(empty) == []
        assert (empty.boxes.shape, empty.scores.shape, empty.landmarks.shape) == ((0, 4), (0,), (0, 5, 2))
        assert empty.boxes.dtype == empty.scores.dtype == empty.landmarks.dtype == np.float32
    image = np.zeros((4, 6, 3), np.uint8)
    assert EMPTY.draw(image).shape == (4, 6, 3)
    assert EMPTY.align(image).shape == (0, 112, 112, 3)
    assert EMPTY.crop(image) == []
    assert Detections.from_dict(json.loads(EMPTY.to_json())) == EMPTY


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"boxes": np.zeros((2, 5))}, r"boxes must have shape \(N, 4\), got \(2, 5\)"),
        ({"boxes": np.zeros(4)}, "boxes must have shape"),
        ({"scores": np.zeros(3)}, r"scores must have shape \(2\), got \(3,\)"),
        ({"landmarks": np.zeros((2, 10))}, r"landmarks must have shape \(2, 5, 2\)"),
        ({"landmarks": np.zeros((1, 5, 2))}, "landmarks must have shape"),
        ({"image_size": (0, 6)}, r"image_size must be \(height, width\)"),
    ],
)
def test_columns_that_do_not_fit(fields: dict, message: str) -> None:
    good = {
        "boxes": np.zeros((2, 4)),
        "scores": np.zeros(2),
        "landmarks": np.zeros((2, 5, 2)),
        "image_size": (4, 6),
    }
    Detections(**good)
    with pytest.raises(ValueError, match=message):
        Detections(**{**good, **fields})


def test_is_a_sequence_of_faces() -> None:
    result = make()
    assert len(result) == 5
    faces = list(result)
    assert all(isinstance(face, Face) for face in faces)
    for index, face in enumerate(faces):
        np.testing.assert_array_equal(face.box, result.boxes[index])
        np.testing.assert_array_equal(face.landmarks, result.landmarks[index])
        assert face.score == float(result.scores[index])
        assert type(face.score) is float
        assert result[index] == result[index - 5] == result[np.int64(index)] == face
    for index in (5, -6, 10**30):
        with pytest.raises(IndexError, match="out of range for 5 faces"):
            result[index]


def test_face_tells_its_size_and_place() -> None:
    face = Face(np.float32([10, 20, 40, 80]), np.float32(0.5), np.arange(10).reshape(5, 2))
    assert (face.width, face.height, face.center) == (30.0, 60.0, (25.0, 50.0))
    assert str(face) == "face 0.500 at (10.0, 20.0, 40.0, 80.0)"
    assert pickle.loads(pickle.dumps(face)) == face
    assert face != Face(face.box, 0.25, face.landmarks)
    assert face != "face"
    with pytest.raises(TypeError, match="unhashable"):
        hash(face)
    assert face.to_dict()["landmarks"]["right_mouth"] == [8.0, 9.0]


@given(st.data(), st.integers(0, 12))
@settings(deadline=None)
def test_selection_is_that_of_numpy(data: st.DataObject, count: int) -> None:
    result = make(count)
    index = data.draw(
        st.one_of(
            hnp.arrays(bool, count),
            st.slices(count),
            st.lists(st.integers(-count, count - 1), max_size=20) if count else st.just([]),
            hnp.arrays(np.int32, st.integers(0, 9), elements=st.integers(-count, count - 1))
            if count
            else st.just(np.empty(0, np.int32)),
        )
    )
    selected = result[index]
    expected = np.asarray(index, int) if isinstance(index, list) else index
    np.testing.assert_array_equal(selected.boxes, result.boxes[expected])
    np.testing.assert_array_equal(selected.scores, result.scores[expected])
    np.testing.assert_array_equal(selected.landmarks, result.landmarks[expected])
    assert selected.image_size == result.image_size
    assert (selected.timings, selected.engine, selected.device) == (result.timings, "torch", "cpu")


def test_list_of_bools_is_a_mask() -> None:
    assert make()[[True, False, False, False, True]] == make()[[0, 4]]


@pytest.mark.parametrize(
    "index", ["a", 1.0, None, True, np.True_, (0, 1), [0.5], [[0]], np.zeros((5, 1), bool)]
)
def test_wrong_index_is_a_type_error(index: object) -> None:
    with pytest.raises(TypeError, match="index must be"):
        make()[index]


def test_mask_of_wrong_length_and_index_out_of_range() -> None:
    with pytest.raises(IndexError, match="a mask of 4 does not fit 5 faces"):
        make()[np.ones(4, bool)]
    with pytest.raises(IndexError):
        make()[[0, 5]]


def test_equality_looks_at_what_was_found() -> None:
    result = make()
    other = Detections(result.boxes, result.scores, result.landmarks, result.image_size, engine="onnxruntime")
    assert result == other
    assert result != make(seed=1)
    assert result != make(4)
    assert result != make(image_size=(121, 160))
    assert result != result.boxes.tolist()
    for field in ("boxes", "scores", "landmarks"):
        changed = {name: getattr(result, name).copy() for name in ("boxes", "scores", "landmarks")}
        changed[field].flat[-1] += 0.25
        assert result != Detections(**changed, image_size=result.image_size), field
    with pytest.raises(TypeError, match="unhashable"):
        hash(result)


@pytest.mark.parametrize("copied", [lambda r: pickle.loads(pickle.dumps(r)), copy.copy, copy.deepcopy])
def test_copies_are_equal_and_read_only(copied) -> None:
    result = make()
    other = copied(result)
    assert other == result
    assert (dict(other.timings), other.engine, other.device) == (dict(result.timings), "torch", "cpu")
    assert not other.boxes.flags.writeable


def test_dict_holds_plain_numbers_and_comes_back() -> None:
    result = make()
    values = result.to_dict()
    assert list(values) == ["image_size", "faces", "timings", "engine", "device"]
    assert values["image_size"] == [120, 160]
    assert list(values["faces"][0]) == ["box", "score", "landmarks"]
    assert tuple(values["faces"][0]["landmarks"]) == LANDMARK_NAMES
    for restored in (
        Detections.from_dict(values),
        Detections.from_dict(json.loads(result.to_json())),
        Detections.from_dict(json.loads(result.to_json(indent=2))),
    ):
        assert restored == result
        assert (restored.timings, restored.engine, restored.device) == (result.timings, "torch", "cpu")
    assert Detections.from_dict({key: values[key] for key in ("image_size", "faces")}) == result


def test_json_refuses_what_json_cannot_say() -> None:
    for points, score in ((np.inf, 0.5), (0, np.nan)):
        result = Detections(np.zeros((1, 4)), [score], np.full((1, 5, 2), points), image_size=(4, 4))
        with pytest.raises(ValueError, match="JSON"):
            result.to_json()


#: What dlib's predictor of five points gives: eyes alone; of the second face, the last only by half.
PARTLY = np.float32(
    [
        [[40, 55], [70, 55], [np.nan, np.nan], [np.nan, np.nan], [np.nan, np.nan]],
        [[41, 50], [65, 51], [55, 70], [43, 90], [67, np.nan]],
    ]
)


def partly_known(landmarks: np.ndarray = PARTLY) -> Detections:
    boxes = [[20, 30, 90, 110], [25, 35, 80, 99]]
    return Detections(boxes, [1.5, -0.2], landmarks, image_size=(120, 160))


def test_unknown_landmarks_are_null_and_come_back() -> None:
    result = partly_known()
    first, second = (face["landmarks"] for face in json.loads(result.to_json())["faces"])
    assert first == dict(zip(LANDMARK_NAMES, [[40, 55], [70, 55], None, None, None], strict=True))
    assert second["right_mouth"] is None
    assert second["left_mouth"] == [43, 90]
    restored = Detections.from_dict(json.loads(result.to_json()))
    expected = PARTLY.copy()
    expected[1, 4] = np.nan
    np.testing.assert_array_equal(restored.landmarks, expected)
    assert restored == partly_known(expected)
    assert Detections.from_dict(result[:1].to_dict()) == result[:1]


def test_results_with_the_same_unknown_landmarks_are_equal() -> None:
    result, known = partly_known(), np.nan_to_num(PARTLY, nan=3)
    for other in (partly_known(), pickle.loads(pickle.dumps(result)), copy.deepcopy(result)):
        assert other == result
        assert other[0] == result[0]
    assert partly_known(known) != result
    assert partly_known(known)[0] != result[0]
    np.testing.assert_array_equal(result.clip().landmarks, PARTLY)


def test_pictures_of_faces_with_unknown_landmarks() -> None:
    image = np.full((120, 160, 3), 128, np.uint8)
    result = partly_known()
    drawn = result[:1].draw(image, labels=False)
    assert (drawn[50:60, 35:45] != 128).any(), "the left eye is drawn"
    assert (drawn[62:105, 26:85] == 128).all(), "and nothing where nose and mouth might be"
    assert (drawn[35:50, 26:85] == 128).all()
    assert [crop.shape for crop in result.crop(image)] == [(80, 70, 3), (64, 55, 3)]
    with pytest.raises(ValueError, match=r"face 0 lacks landmarks.*no nose, left_mouth, right_mouth"):
        result.align(image)
    with pytest.raises(ValueError, match=r"face 0 lacks landmarks.*no right_mouth"):
        result[1:].align(image)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"faces": [], "image_size": [1, 2, 3]},
        {"faces": [{"box": [0, 0, 1, 1], "score": 1.0}], "image_size": [4, 4]},
        {"faces": [{"box": [0, 0, 1], "score": 1.0, "landmarks": {}}], "image_size": [4, 4]},
        {"faces": 3, "image_size": [4, 4]},
        {"faces": [3], "image_size": [4, 4]},
        {"faces": [], "image_size": None},
    ],
)
def test_from_dict_of_something_else(values: dict) -> None:
    with pytest.raises(ValueError, match=r"must have|must be|unpack"):
        Detections.from_dict(values)


def test_clip_cuts_boxes_and_leaves_landmarks() -> None:
    boxes = [[-5, -6, 10, 12], [150, 100, 170, 130], [1, 2, 3, 4]]
    landmarks = np.full((3, 5, 2), -9)
    clipped = Detections(boxes, [0.9, 0.8, 0.7], landmarks, image_size=(120, 160)).clip()
    assert clipped.boxes.tolist() == [[0, 0, 10, 12], [150, 100, 160, 120], [1, 2, 3, 4]]
    assert (clipped.landmarks == -9).all()


def test_crop_takes_the_pixels_that_a_box_touches() -> None:
    image = np.arange(20 * 30 * 3, dtype=np.uint32).astype(np.uint8).reshape(20, 30, 3)
    boxes = [[2, 3, 8, 9], [2.5, 3.5, 7.5, 8.5], [-4, -4, 5, 5], [40, 40, 50, 50]]
    result = Detections(boxes, [0.9] * 4, np.zeros((4, 5, 2)), image_size=(20, 30))
    crops = result.crop(image)
    np.testing.assert_array_equal(crops[0], image[3:9, 2:8])
    np.testing.assert_array_equal(crops[1], image[3:9, 2:8])
    np.testing.assert_array_equal(crops[2], image[:5, :5])
    assert crops[3].size == 0
    assert not any(np.shares_memory(crop, image) for crop in crops)
    np.testing.assert_array_equal(result.crop(image, margin=0.5)[0], image[0:12, 0:11])
    np.testing.assert_array_equal(result.crop(image, color="rgb")[0], image[3:9, 2:8])
    for margin in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="margin must be"):
            result.crop(image, margin=margin)


@pytest.mark.parametrize("method", ["draw", "align", "crop"])
def test_another_picture_is_refused(method: str) -> None:
    with pytest.raises(ValueError, match="of 160x120 pixels, got one of 120x160"):
        getattr(make(), method)(np.zeros((160, 120, 3), np.uint8))
    with pytest.raises(ValueError, match="color must be"):
        getattr(make(), method)(np.zeros((120, 160, 3), np.uint8), color="hsv")


def test_repr_and_table() -> None:
    result = make(2)
    best, worst = result.scores
    summary = f"2 faces in 160x120, scores {best:.3f} … {worst:.3f}, torch on cpu, 24.1 ms"
    assert repr(result) == f"Detections({summary})"
    lines = str(result).splitlines()
    assert lines[0] == summary
    assert lines[1].split() == ["score", "x1", "y1", "x2", "y2", "width", "height"]
    assert lines[2].split() == [
        f"{best:.3f}",
        *(f"{value:.1f}" for value in (*result.boxes[0], result[0].width, result[0].height)),
    ]
    assert len(lines) == 4
    assert repr(EMPTY) == "Detections(no face in 6x4)"
    assert str(EMPTY) == "no face in 6x4"
    assert str(make(23)).splitlines()[-1] == "  … and 3 more"
    assert repr(make(1)).startswith("Detections(1 face in 160x120, score 0.")


@pytest.mark.filterwarnings("ignore")  # what other packages warn about when they are imported
def test_to_supervision() -> None:
    sv = pytest.importorskip("supervision")
    result = make()
    converted = result.to_supervision()
    assert isinstance(converted, sv.Detections)
    np.testing.assert_array_equal(converted.xyxy, result.boxes)
    np.testing.assert_array_equal(converted.confidence, result.scores)
    np.testing.assert_array_equal(converted.data["landmarks"], result.landmarks)
    assert (converted.class_id == 0).all()
    kept = converted[converted.confidence > result.scores[2]]
    np.testing.assert_array_equal(kept.data["landmarks"], result.landmarks[:2])
    assert len(EMPTY.to_supervision()) == 0
    np.testing.assert_array_equal(partly_known().to_supervision().data["landmarks"], PARTLY)


def test_to_supervision_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(MissingDependencyError, match=r"retinaface-fast\[supervision\]"):
        make().to_supervision()
