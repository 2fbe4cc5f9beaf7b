from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from retinaface_fast import ops
from tests.ops.agreement import (
    P2_P6,
    P3_P5,
    AmbiguousError,
    Grid,
    RawOutputs,
    assert_same_bits,
    assert_same_faces,
    assert_well_formed,
    check_faces,
    check_faces_independently,
)
from tests.ops.layouts import LAYOUTS
from tests.ops.samples import as_probabilities, random_outputs, spoil

FloatArray = npt.NDArray[np.float32]
SIZES_HW = [(1, 1), (1, 200), (200, 1), (31, 33), (64, 64), (97, 130), (160, 120)]


def quiet(image_size_hw: tuple[int, int], grid: Grid = P3_P5, batch: int = 1) -> RawOutputs:
    """Outputs of an empty picture: no face anywhere, every box the anchor itself."""
    count = grid.count(image_size_hw)
    class_scores = np.zeros((batch, count, 2), np.float32)
    class_scores[..., 0] = 5
    class_scores[..., 1] = -5
    return RawOutputs(
        class_scores, np.zeros((batch, count, 4), np.float32), np.zeros((batch, count, 10), np.float32)
    )


# --- by hand ---


def test_no_face_is_empty_arrays() -> None:
    faces = ops.postprocess(*quiet((64, 64)), (64, 64))
    assert len(faces) == 1
    assert_well_formed(faces[0])
    assert faces[0].boxes.shape == (0, 4)


def test_one_face_by_hand() -> None:
    raw = quiet((64, 64))
    # Anchor 5 is row 0, column 2, size 32 of P3: centre (20, 4).
    raw.class_scores[0, 5] = [-1, 2]
    raw.box_deltas[0, 5] = [1, -1, 0, np.log(2) / 0.2]
    raw.landmark_deltas[0, 5] = np.arange(10)
    (faces,) = ops.postprocess(*raw, (64, 64))
    np.testing.assert_allclose(faces.scores, [1 / (1 + np.exp(-3))], rtol=1e-6)
    np.testing.assert_allclose(faces.boxes, [[23.2 - 16, 0.8 - 32, 23.2 + 16, 0.8 + 32]], rtol=1e-6)
    expected = [[[20 + 3.2 * 2 * point, 4 + 3.2 * (2 * point + 1)] for point in range(5)]]
    np.testing.assert_allclose(faces.landmarks, expected, rtol=1e-6)


@pytest.mark.parametrize("grid", [P3_P5, P2_P6], ids=["P3-P5", "P2-P6"])
def test_every_anchor_comes_from_its_index(grid: Grid) -> None:
    # A network that predicts zero deltas and takes every anchor for a face gives the anchors back.
    image_size_hw = (45, 70)
    raw = quiet(image_size_hw, grid)
    count = raw.class_scores.shape[1]
    raw.class_scores[0, :, 1] = 5 + np.linspace(4, 1, count)
    (faces,) = ops.postprocess(
        *raw, image_size_hw, config=grid.config, nms_threshold=1.0, top_k=count, keep_top_k=count
    )
    anchors = grid.anchors(image_size_hw).astype(np.float32)
    assert_same_bits(faces.boxes, ops.decode_boxes(raw.box_deltas[0], anchors))
    assert_same_bits(faces.landmarks, ops.decode_landmarks(raw.landmark_deltas[0], anchors))


@pytest.mark.parametrize("image_size_hw", [(4320, 7680), (7680, 4320)], ids=str)
def test_8k(image_size_hw: tuple[int, int]) -> None:
    count = P3_P5.count(image_size_hw)
    class_scores = np.full((1, count, 2), -3, np.float32)
    class_scores[..., 0] = 3
    faces_at = np.array([0, 1, count // 3, count - 3, count - 1])
    class_scores[0, faces_at, 1] = [4, 5, 6, 7, 8]
    zeros = np.zeros((1, count, 14), np.float32)
    box_deltas, landmark_deltas = np.ascontiguousarray(zeros[..., :4]), np.ascontiguousarray(zeros[..., 4:])
    (faces,) = ops.postprocess(class_scores, box_deltas, landmark_deltas, image_size_hw, nms_threshold=1.0)
    anchors = ops.generate_anchors(image_size_hw)[faces_at[::-1]]
    assert_same_bits(faces.boxes, ops.decode_boxes(np.zeros((5, 4), np.float32), anchors))


def test_the_threshold_is_exclusive() -> None:
    raw = quiet((8, 8))
    raw.class_scores[0, :3] = [[0, 0], [0, 1e-6], [1, 1]]
    (faces,) = ops.postprocess(*raw, (8, 8), score_threshold=0.5, nms_threshold=1.0)
    assert len(faces.scores) == 1  # sigmoid(0) is 0.5 and not greater

    probabilities = np.float32([[0.5, 0.5], [0.3, 0.7], [0.4, 0.6], [0, 0.69999999], [0, 1]])
    raw = quiet((8, 8))
    raw.class_scores[:] = 0
    raw.class_scores[0, :5] = probabilities
    options: dict[str, Any] = {"scores_are": "probabilities", "nms_threshold": 1.0}
    for threshold, expected in [
        (0.5, [1, 0.7, 0.7, 0.6]),
        (0.7, [1]),  # 0.7 in single precision is smaller than 0.7 in double precision
        (float(np.float32(0.6)), [1, 0.7, 0.7]),
        (0.6, [1, 0.7, 0.7, 0.6]),  # 0.6 is greater
        (0.0, [1, 0.7, 0.7, 0.6, 0.5]),
        (1.0, []),
    ]:
        (faces,) = ops.postprocess(*raw, (8, 8), score_threshold=threshold, **options)
        np.testing.assert_allclose(faces.scores, expected, rtol=1e-6, err_msg=str(threshold))


def test_nan_is_no_candidate_and_infinite_logits_are() -> None:
    raw = quiet((8, 8))
    nan, inf = np.nan, np.inf
    rows = [[nan, 1], [1, nan], [nan, nan], [inf, inf], [-inf, inf], [-inf, 0]]
    raw.class_scores[0] = rows[: raw.class_scores.shape[1]]
    (faces,) = ops.postprocess(*raw, (8, 8), score_threshold=0.0, nms_threshold=1.0)
    np.testing.assert_array_equal(faces.scores, [1, 1])
    # In order of their anchors, the fifth (size 256) and the sixth (size 512).
    np.testing.assert_array_equal(faces.boxes[:, 2] - faces.boxes[:, 0], [256, 512])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
def test_boxes_that_are_not_finite_are_dropped(bad: float) -> None:
    for coordinate in range(4):
        raw = quiet((16, 16))
        raw.class_scores[0, [3, 7], 1] = [9, 8]
        raw.box_deltas[0, 3, coordinate] = bad
        (faces,) = ops.postprocess(*raw, (16, 16))
        # An infinitely small box is finite: exp(-inf) = 0. A centre at 1e30 is finite too, if far.
        dropped = not (coordinate >= 2 and bad == -np.inf) and not (coordinate < 2 and bad == 1e30)
        assert len(faces.scores) == 2 - dropped, f"{bad} in column {coordinate}"


@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize("axis", [0, 1])
def test_one_coordinate_that_overflows_drops_the_box(axis: int, side: int) -> None:
    raw = quiet((16, 16))
    last = raw.class_scores.shape[1] - 1  # the anchor of 512 pixels
    raw.class_scores[0, last, 1] = 9
    raw.box_deltas[0, last, axis] = side * 5.0e36  # a centre at 2.6e38
    (faces,) = ops.postprocess(*raw, (16, 16))
    assert len(faces.scores) == 1
    raw.box_deltas[0, last, 2 + axis] = 410  # half a size of 1e38
    (box,) = ops.decode_boxes(raw.box_deltas[0, last:], ops.generate_anchors((16, 16))[last:])
    assert np.isinf(box).sum() == 1
    (faces,) = ops.postprocess(*raw, (16, 16))
    assert len(faces.scores) == 0


def test_boxes_that_are_not_finite_are_dropped_after_top_k() -> None:
    raw = quiet((64, 64))
    raw.class_scores[0, ::9, 1] = 9
    raw.box_deltas[0, 0] = np.nan
    (faces,) = ops.postprocess(*raw, (64, 64), top_k=3, nms_threshold=1.0)
    assert len(faces.scores) == 2


def test_landmarks_are_not_judged() -> None:
    raw = quiet((16, 16))
    raw.class_scores[0, 2, 1] = 9
    raw.landmark_deltas[0, 2, :3] = [np.nan, np.inf, -np.inf]
    (faces,) = ops.postprocess(*raw, (16, 16))
    assert np.isnan(faces.landmarks[0, 0, 0])
    np.testing.assert_array_equal(faces.landmarks[0, [0, 1], [1, 0]], [np.inf, -np.inf])


def test_the_defaults() -> None:
    rng = np.random.default_rng(3)
    raw = random_outputs(rng, (160, 120))
    explicit = ops.postprocess(
        *raw,
        (160, 120),
        config=ops.P3_P5,
        scores_are="logits",
        variances=(0.1, 0.2),
        score_threshold=0.5,
        nms_threshold=0.4,
        top_k=5000,
        keep_top_k=750,
        threads=1,
    )
    assert_same_faces(ops.postprocess(*raw, (160, 120)), explicit)


# --- against the oracle ---


@pytest.mark.parametrize("grid", [P3_P5, P2_P6], ids=["P3-P5", "P2-P6"])
@pytest.mark.parametrize("image_size_hw", SIZES_HW, ids=str)
@pytest.mark.parametrize("scores_are", ["logits", "probabilities"])
def test_agrees_with_the_oracle(
    scores_are: str, image_size_hw: tuple[int, int], grid: Grid, rng: np.random.Generator
) -> None:
    raw = random_outputs(rng, image_size_hw, grid=grid, batch=2)
    if scores_are == "probabilities":
        raw = as_probabilities(raw)
    found = 0
    for options in (
        {},
        {"score_threshold": 0.02},
        {"score_threshold": 0.9, "nms_threshold": 0.2},
        {"score_threshold": 0.0, "nms_threshold": 1.0, "top_k": 10**6, "keep_top_k": 10**6},
        {"score_threshold": 0.3, "nms_threshold": 0.0, "top_k": 37, "keep_top_k": 11},
        {"variances": (0.3, 0.07)},
        {"score_threshold": 1.0},
    ):
        options["scores_are"] = scores_are
        faces = ops.postprocess(*raw, image_size_hw, config=grid.config, **options)
        expected = check_faces(faces, raw, image_size_hw, grid, **options)
        found += sum(len(image.indices) for image in expected)
    assert found > 0


def test_agrees_with_an_oracle_that_shares_nothing(rng: np.random.Generator) -> None:
    ambiguous = total = 0
    for _ in range(120):
        # Few candidates of different places, so that no overlap comes within 1e-5 of the threshold.
        raw = random_outputs(rng, (96, 128), face_share=0.05)
        options = {"score_threshold": 0.45, "nms_threshold": float(rng.uniform(0.2, 0.6))}
        faces = ops.postprocess(*raw, (96, 128), **options)
        try:
            total += check_faces_independently(faces, raw, (96, 128), P3_P5, **options)
        except AmbiguousError:
            ambiguous += 1
    assert total > 1000
    assert ambiguous < 40


def test_many_candidates(rng: np.random.Generator) -> None:
    raw = random_outputs(rng, (480, 640), face_share=0.6)
    for top_k in (1, 100, 5000, 100_000):
        options = {"score_threshold": 0.02, "top_k": top_k, "keep_top_k": 100_000}
        faces = ops.postprocess(*raw, (480, 640), **options)
        (expected,) = check_faces(faces, raw, (480, 640), P3_P5, **options)
        assert len(expected.candidates) == min(top_k, len(expected.candidates))


def test_logits_and_probabilities_agree(rng: np.random.Generator) -> None:
    for image_size_hw in SIZES_HW:
        raw = random_outputs(rng, image_size_hw, batch=3)
        logits = ops.postprocess(*raw, image_size_hw, score_threshold=0.3)
        probabilities = ops.postprocess(
            *as_probabilities(raw), image_size_hw, score_threshold=0.3, scores_are="probabilities"
        )
        for a, b in zip(logits, probabilities, strict=True):
            # NumPy's softmax may break ties of the logits in the last place, so boxes are compared as sets.
            np.testing.assert_allclose(a.scores, b.scores, rtol=1e-6)
            assert len(a.boxes) == len(b.boxes) or _ties(a.scores)


def _ties(scores: FloatArray) -> bool:
    return len(np.unique(scores)) < len(scores)


# --- one answer, however it is asked for ---


@pytest.mark.parametrize("grid", [P3_P5, P2_P6], ids=["P3-P5", "P2-P6"])
@pytest.mark.parametrize("image_size_hw", SIZES_HW, ids=str)
def test_levels_and_concatenated_agree(
    image_size_hw: tuple[int, int], grid: Grid, rng: np.random.Generator
) -> None:
    raw = random_outputs(rng, image_size_hw, grid=grid, batch=3)
    whole = ops.postprocess(*raw, image_size_hw, config=grid.config, score_threshold=0.2)
    levels = [grid.split(array, image_size_hw) for array in raw]
    for sequence in (tuple, list):
        parts = ops.postprocess(
            *(sequence(part) for part in levels), image_size_hw, config=grid.config, score_threshold=0.2
        )
        assert_same_faces(parts, whole)
    assert sum(len(image.scores) for image in whole) > 0
    # One argument by level and another concatenated is as good.
    mixed = ops.postprocess(raw[0], levels[1], raw[2], image_size_hw, config=grid.config, score_threshold=0.2)
    assert_same_faces(mixed, whole)


@pytest.mark.parametrize("threads", [1, 2, 3, 4, 16])
def test_batches_threads_and_single_images_agree(threads: int, rng: np.random.Generator) -> None:
    raw = random_outputs(rng, (97, 130), batch=7)
    raw.class_scores[3, :, 0] += 100  # an empty picture among the others
    batch = ops.postprocess(*raw, (97, 130), score_threshold=0.2, threads=threads)
    assert len(batch) == 7
    assert len(batch[3].scores) == 0
    single = [
        ops.postprocess(*(array[i : i + 1] for array in raw), (97, 130), score_threshold=0.2)[0]
        for i in range(7)
    ]
    assert_same_faces(batch, single)


def test_an_empty_batch_is_an_empty_list() -> None:
    assert ops.postprocess(*quiet((64, 64), batch=0), (64, 64)) == []


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("scores_are", ["logits", "probabilities"])
def test_any_layout_gives_the_same_answer(layout: str, scores_are: Any, rng: np.random.Generator) -> None:
    raw = random_outputs(rng, (97, 130), batch=2)
    if scores_are == "probabilities":
        raw = as_probabilities(raw)
    options: dict[str, Any] = {"scores_are": scores_are, "score_threshold": 0.1}
    expected = ops.postprocess(*raw, (97, 130), **options)
    change = LAYOUTS[layout]
    assert_same_faces(ops.postprocess(*(change(array) for array in raw), (97, 130), **options), expected)
    levels = [[change(part) for part in P3_P5.split(array, (97, 130))] for array in raw]
    assert_same_faces(ops.postprocess(*levels, (97, 130), **options), expected)


def test_levels_that_are_views_of_channels_last_convolutions(rng: np.random.Generator) -> None:
    # What a convolution gives in channels-last memory, (B, h, w, channels), reshaped without a copy.
    raw = random_outputs(rng, (97, 130), batch=2)
    expected = ops.postprocess(*raw, (97, 130), score_threshold=0.1)
    levels = [P3_P5.split(array, (97, 130)) for array in raw]
    views = [
        [part.reshape(2, -1, 2 * part.shape[2]).reshape(part.shape) for part in parts] for parts in levels
    ]
    assert_same_faces(ops.postprocess(*views, (97, 130), score_threshold=0.1), expected)


def test_a_strided_batch_is_not_read_past_its_images(rng: np.random.Generator) -> None:
    raw = random_outputs(rng, (97, 130), batch=6)
    expected = ops.postprocess(*(np.ascontiguousarray(array[::-2]) for array in raw), (97, 130))
    assert_same_faces(ops.postprocess(*(array[::-2] for array in raw), (97, 130)), expected)


@pytest.mark.parametrize("before", [1, 2, 7, 8, 9, 40])
def test_a_call_knows_nothing_of_the_call_before(before: int) -> None:
    # Work space is used again, so what the first call kept must not suppress anything in the second.
    size = (640, 640)
    row, column = np.divmod(np.arange(before + 1), 10)
    apart = (8 * row * 80 + 8 * column) * 2 + 1  # anchors of 32 pixels, 64 apart
    first = quiet(size)
    first.class_scores[0, apart[:before], 1] = 9 - 0.05 * np.arange(before)
    (faces,) = ops.postprocess(*first, size)
    assert len(faces.scores) == before
    for place in range(before):
        second = quiet(size)
        second.class_scores[0, apart[before], 1] = 9
        second.class_scores[0, apart[place], 1] = 8
        ops.postprocess(*first, size)
        (faces,) = ops.postprocess(*second, size)
        assert len(faces.scores) == 2, f"face {place} of the call before"


def test_results_do_not_share_memory(rng: np.random.Generator) -> None:
    raw = random_outputs(rng, (97, 130), batch=2)
    first = ops.postprocess(*raw, (97, 130))
    copies = [ops.Faces(*(array.copy() for array in image)) for image in first]
    for image in ops.postprocess(*raw, (97, 130)):
        for array in image:
            array[...] = -1
    ops.postprocess(*random_outputs(rng, (160, 120)), (160, 120), score_threshold=0.0, nms_threshold=1.0)
    assert_same_faces(first, copies)


# --- hypothesis ---


@settings(deadline=None, derandomize=True, max_examples=150)
@given(
    height=st.integers(1, 80),
    width=st.integers(1, 80),
    grid=st.sampled_from(
        [P3_P5, P2_P6, Grid((13,), ((20.0,),)), Grid((8, 64), ((9.5, 30.0, 77.0), (200.0,)))]
    ),
    scores_are=st.sampled_from(["logits", "probabilities"]),
    score_threshold=st.one_of(st.sampled_from([0.0, 0.02, 0.5, 0.6, 1.0]), st.floats(0, 1)),
    nms_threshold=st.one_of(st.sampled_from([0.0, 0.4, 0.5, 1.0]), st.floats(0, 1)),
    top_k=st.integers(1, 400),
    keep_top_k=st.integers(1, 60),
    face_share=st.floats(0, 1),
    evil_share=st.sampled_from([0.0, 0.0, 0.01, 0.2]),
    threads=st.sampled_from([1, 2]),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_outputs(
    *,
    height: int,
    width: int,
    grid: Grid,
    scores_are: Any,
    score_threshold: float,
    nms_threshold: float,
    top_k: int,
    keep_top_k: int,
    face_share: float,
    evil_share: float,
    threads: int,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    size = (height, width)
    raw = random_outputs(rng, size, grid=grid, batch=2, face_share=face_share)
    if scores_are == "probabilities":
        raw = as_probabilities(raw)
    raw = spoil(rng, raw, evil_share)
    options: dict[str, Any] = {
        "scores_are": scores_are,
        "score_threshold": score_threshold,
        "nms_threshold": nms_threshold,
        "top_k": top_k,
        "keep_top_k": keep_top_k,
    }
    faces = ops.postprocess(*raw, size, config=grid.config, threads=threads, **options)
    parts = [grid.split(array, size) for array in raw]
    assert_same_faces(ops.postprocess(*parts, size, config=grid.config, **options), faces)
    try:
        check_faces(faces, raw, size, grid, **options)
    except AmbiguousError:
        assume(False)
