"""Post-processing in torch gives the bits of the C++ core, whose own tests say that those are right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinaface_fast import ops
from tests.ops.agreement import P2_P6, P3_P5, Grid, RawOutputs, assert_same_bits, assert_same_faces
from tests.ops.samples import BOX_KINDS, as_probabilities, random_outputs, spoil

torch = pytest.importorskip("torch")

from retinaface_fast.engines import create_engine  # noqa: E402
from retinaface_fast.engines.torch_arithmetic import (  # noqa: E402
    decode_boxes,
    exponential,
    round_down_to_float,
    sigmoid,
)
from retinaface_fast.engines.torch_nms import greedy_choice  # noqa: E402
from retinaface_fast.engines.torch_postprocess import postprocess  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from retinaface_fast.weights import ModelWeights

FloatArray = npt.NDArray[np.float32]
SIZES_HW = [(1, 1), (31, 33), (217, 333), (640, 640)]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small operations on several threads wait for each other where the machine is busy otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def as_tensors(raw: RawOutputs, size_hw: tuple[int, int], grid: Grid) -> list[list[Any]]:
    return [[torch.from_numpy(level) for level in grid.split(array, size_hw)] for array in raw]


def check(raw: RawOutputs, size_hw: tuple[int, int], *, grid: Grid = P3_P5, **options: Any) -> int:
    """Compare with the core; how many faces there are."""
    expected = ops.postprocess(*raw, size_hw, config=grid.config, **options)
    found = postprocess(*as_tensors(raw, size_hw, grid), size_hw, config=grid.config, **options)
    assert_same_faces(found, expected)
    for faces in found:
        for array in faces:
            assert array.flags.c_contiguous
            assert array.flags.writeable
            assert array.flags.owndata
    return sum(len(faces.scores) for faces in found)


@pytest.mark.parametrize("score_threshold", [0.0, 0.02, 0.5, 1.0])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("size_hw", SIZES_HW, ids=lambda size: "x".join(map(str, size)))
def test_the_faces_of_the_core(size_hw: tuple[int, int], batch: int, score_threshold: float) -> None:
    rng = np.random.default_rng(batch)
    raw = random_outputs(rng, size_hw, batch=batch, face_share=0.02)
    faces = check(raw, size_hw, score_threshold=score_threshold)
    if size_hw > (100, 100):
        assert (faces > 10) == (score_threshold < 1)
    probabilities = as_probabilities(raw)
    check(probabilities, size_hw, score_threshold=score_threshold, scores_are="probabilities")
    for sample, scores_are in ((raw, "logits"), (probabilities, "probabilities")):
        spoiled = spoil(rng, sample, 0.03)
        check(spoiled, size_hw, score_threshold=score_threshold, scores_are=scores_are)


@pytest.mark.parametrize("keep_top_k", [None, 1, 750])
@pytest.mark.parametrize("top_k", [None, 1, 100, 5000])
@pytest.mark.parametrize("face_share", [0.0, 0.02, 1.0])
def test_limits(face_share: float, top_k: int | None, keep_top_k: int | None) -> None:
    size_hw = (160, 213)
    rng = np.random.default_rng(7)
    raw = random_outputs(rng, size_hw, batch=2, face_share=face_share, spread=0.5)
    faces = check(raw, size_hw, top_k=top_k, keep_top_k=keep_top_k, nms_threshold=0.6)
    assert (faces > 0) == (face_share > 0)
    # Boxes that are not finite count among the candidates and not among the faces.
    check(spoil(rng, raw, 0.2), size_hw, top_k=top_k, keep_top_k=keep_top_k, nms_threshold=0.6)


@pytest.mark.parametrize("variances", [(0.1, 0.2), (0.3, 0.05), (1.0, 1.0)])
def test_five_levels_and_other_variances(variances: tuple[float, float]) -> None:
    size_hw = (130, 97)
    raw = random_outputs(np.random.default_rng(5), size_hw, grid=P2_P6, batch=2)
    assert check(raw, size_hw, grid=P2_P6, variances=variances, score_threshold=0.3) > 20


def test_images_of_a_batch_have_different_numbers() -> None:
    size_hw = (64, 96)
    raw = random_outputs(np.random.default_rng(2), size_hw, batch=5)
    raw.class_scores[[0, 2, 4], :, 1] = -9
    raw.class_scores[2, 17, 1] = 9
    assert check(raw, size_hw) > 3
    assert check(raw, size_hw, nms_threshold=1.0, keep_top_k=None) > 50


@pytest.mark.parametrize("scores_are", ["logits", "probabilities"])
def test_scores_at_the_threshold(scores_are: str) -> None:
    size_hw = (96, 96)
    rng = np.random.default_rng(3)
    raw = random_outputs(rng, size_hw)
    raw.class_scores[..., 0] = 0
    if scores_are == "probabilities":
        raw = as_probabilities(raw)
        scores = raw.class_scores[0, :, 1]
    else:
        scores = sigmoid(torch.from_numpy(raw.class_scores[0, :, 1])).numpy()
    for score in rng.choice(scores, 4):
        thresholds = [float(np.nextafter(score, np.float32(way))) for way in (-1, 2)]
        # In between are float64 numbers that no float32 score is equal to.
        thresholds += [float(score), np.nextafter(float(score), -1), np.nextafter(float(score), 2)]
        options: dict[str, Any] = {"scores_are": scores_are, "nms_threshold": 1.0, "top_k": None}
        found = {
            check(raw, size_hw, score_threshold=threshold, keep_top_k=None, **options)
            for threshold in thresholds
        }
        assert len(found) > 1, "the threshold decides about something"


def test_ties_are_in_the_order_of_their_index() -> None:
    size_hw = (80, 80)
    raw = random_outputs(np.random.default_rng(4), size_hw, batch=2)
    raw.class_scores[..., 0] = 0
    raw.class_scores[..., 1] = 2
    for top_k in (None, 1, 37):
        check(raw, size_hw, top_k=top_k)
        check(raw, size_hw, top_k=top_k, nms_threshold=1.0, keep_top_k=None)


@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_whatever_comes(data: st.DataObject, seed: int) -> None:
    rng = np.random.default_rng(seed)
    size_hw = (data.draw(st.integers(1, 70)), data.draw(st.integers(1, 70)))
    grid = data.draw(st.sampled_from([P3_P5, P2_P6, Grid((3, 50), ((5.5,), (20, 33.3, 71)))]))
    raw = random_outputs(rng, size_hw, grid=grid, batch=data.draw(st.integers(1, 3)))
    scores_are = data.draw(st.sampled_from(["logits", "probabilities"]))
    if scores_are == "probabilities":
        raw = as_probabilities(raw)
    limits = st.none() | st.integers(1, 300)
    check(
        spoil(rng, raw, data.draw(st.sampled_from([0.0, 0.01, 0.3]))),
        size_hw,
        grid=grid,
        scores_are=scores_are,
        score_threshold=data.draw(st.floats(0, 1)),
        nms_threshold=data.draw(st.floats(0, 1)),
        top_k=data.draw(limits),
        keep_top_k=data.draw(limits),
        variances=(data.draw(st.floats(0.01, 2)), data.draw(st.floats(0.01, 2))),
    )


# Arithmetic


def sweep() -> FloatArray:
    """Every 4,099th float32, and all around the places where something begins."""
    bits = np.arange(0, 2**32, 4099, dtype=np.uint64).astype(np.uint32)
    edges = np.array([88.72283, -87.33654, 0, -0.0, 1, 0.34657359, -0.34657359], np.float32)
    near = edges.view(np.uint32)[:, None] + np.arange(-300, 300).astype(np.uint32)
    subnormal = np.arange(0, 1 << 23, 1 << 15, dtype=np.uint32)
    integers = np.arange(-90, 91, dtype=np.float32) * np.float32(np.log(2))
    all_bits = np.concatenate([bits, near.ravel(), subnormal, subnormal | 0x80000000])
    return np.concatenate([all_bits.view(np.float32), integers])


def test_the_exponential_of_the_core() -> None:
    """As sizes of boxes of side 2 with variances of 1, whose half is `exp` itself."""
    values = sweep()
    deltas = np.zeros((len(values), 4), np.float32)
    deltas[:, 2] = deltas[:, 3] = values
    anchors = np.tile(np.array([0, 0, 2, 2], np.float32), (len(values), 1))
    with np.errstate(over="ignore"):
        expected = ops.decode_boxes(deltas, anchors, variances=(1.0, 1.0))
    found = exponential(torch.from_numpy(values)).numpy()
    inside = values <= np.float32(88)  # the size is twice that, which is infinite sooner
    assert_same_bits(found[inside], expected[inside, 2], "exponential")
    assert_same_bits(
        decode_boxes(torch.from_numpy(deltas), torch.from_numpy(anchors), (1.0, 1.0)).numpy(), expected
    )
    # Side 1: half of it is not infinite before `exp` is.
    anchors[:, 2:] = 1
    half = (0.5 * torch.from_numpy(found)).numpy()
    assert_same_bits(half, ops.decode_boxes(deltas, anchors, variances=(1, 1))[:, 3])
    usual = (values > -87.3) & (values < 88.7)
    np.testing.assert_allclose(found[usual], np.exp(values[usual].astype(np.float64)), rtol=3e-7)


def test_the_sigmoid_of_the_core() -> None:
    """As scores of candidates that nothing suppresses: in the order of their index where they tie."""
    values = sweep()
    values = values[values > -87][:: 1 + len(values) // 100_000]
    side = int(np.sqrt(len(values))) - 1
    config = ops.AnchorConfig(strides=(1,), sizes=((1.0,),))
    logits = np.zeros((1, side * side, 2), np.float32)
    logits[0, :, 1] = values[: side * side]
    boxes, landmarks = (np.zeros((1, side * side, n), np.float32) for n in (4, 10))
    [faces] = ops.postprocess(
        logits,
        boxes,
        landmarks,
        (side, side),
        config=config,
        score_threshold=0,
        nms_threshold=1,
        top_k=None,
        keep_top_k=None,
    )
    found = sigmoid(torch.from_numpy(logits[0, :, 1])).numpy()
    assert len(faces.scores) == (found > 0).sum() > 10_000
    assert_same_bits(np.sort(found[found > 0])[::-1], faces.scores)


@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.25, 0.3, 1 / 3, 0.7, 1.0, 1e-320])
def test_a_threshold_as_float32_decides_as_the_double(threshold: float) -> None:
    bound = np.float32(round_down_to_float(threshold))
    assert float(bound) <= threshold < float(np.nextafter(bound, np.float32(2)))


# Suppression


@pytest.mark.parametrize("count", [0, 1, 2, 7, 8, 300])
@pytest.mark.parametrize("kind", BOX_KINDS)
def test_suppression_in_blocks(kind: str, count: int) -> None:
    rng = np.random.default_rng(count)
    boxes = BOX_KINDS[kind](rng, count)
    finite = np.isfinite(boxes).all(axis=1)
    scores = np.arange(count, 0, -1).astype(np.float32)
    for iou_threshold, enough in ((0.0, None), (0.4, None), (0.4, 1), (0.4, 20), (1.0, 20)):
        wanted = np.flatnonzero(finite)[ops.nms(boxes[finite], scores[finite], iou_threshold=iou_threshold)]
        # Blocks of 1, 7, 35 and 1024.
        for pairs in (1, 4 * 49, 5000, 1 << 22):
            if pairs == 1 and count > 8:
                continue
            kept = greedy_choice(
                torch.from_numpy(boxes)[None],
                torch.ones(1, count, dtype=torch.bool),
                round_down_to_float(iou_threshold),
                enough=enough,
                pairs=pairs,
            )
            assert_same_bits(np.flatnonzero(kept[0].numpy()), wanted[:enough])


def test_a_long_chain_takes_many_rounds() -> None:
    """Each box overlaps the next one alone: every second is kept, and that each waits for the one before."""
    left = 10 * np.arange(501, dtype=np.float32)
    boxes = np.stack([left, 0 * left, left + 15, 0 * left + 10], axis=1)
    kept = greedy_choice(torch.from_numpy(boxes)[None], torch.ones(1, 501, dtype=torch.bool), 0.1)
    assert_same_bits(np.flatnonzero(kept.numpy()), np.arange(0, 501, 2))


class PeakMemory(torch.utils._python_dispatch.TorchDispatchMode):  # type: ignore[misc,name-defined]
    """The largest result of an operation, in bytes."""

    largest = 0

    def __torch_dispatch__(self, function: Any, _types: Any, arguments: Any = (), options: Any = None) -> Any:
        result = function(*arguments, **(options or {}))
        if isinstance(result, torch.Tensor):
            self.largest = max(self.largest, result.untyped_storage().nbytes())
        return result


@pytest.mark.parametrize("images", [1, 7])
def test_the_memory_of_many_boxes_is_bounded(images: int) -> None:
    count = 6_000 // images
    boxes = BOX_KINDS["sparse"](np.random.default_rng(0), images * count).reshape(images, count, 4)
    scores = np.arange(count, 0, -1).astype(np.float32)
    candidates = torch.ones(images, count, dtype=torch.bool)
    with PeakMemory() as memory:
        kept = greedy_choice(torch.from_numpy(boxes), candidates, 0.5, pairs=1 << 16)
    for of_image, choice in zip(boxes, kept.numpy(), strict=True):
        assert_same_bits(np.flatnonzero(choice), ops.nms(of_image, scores, iou_threshold=0.5))
    assert kept.sum() > 5_000
    # As many boxes as are kept of each image, and as many others as there is memory for.
    assert (images == 1) <= (memory.largest == 4 << 16), "a float32 for each pair"
    assert 4 << 15 <= memory.largest <= 4 << 16, "and not for each of all boxes and a block"


# Real outputs


@pytest.mark.parametrize("score_threshold", [0.02, 0.5])
def test_outputs_of_the_network(
    score_threshold: float, published_weights: ModelWeights, astronaut_bgr: npt.NDArray[np.uint8]
) -> None:
    engine = create_engine("native", published_weights, device="cpu")
    images = np.stack([astronaut_bgr, astronaut_bgr[:, ::-1]])
    outputs = engine.run(images, color="bgr")
    raw = outputs.class_scores, outputs.box_deltas, outputs.landmark_deltas
    size_hw = astronaut_bgr.shape[:2]
    config = published_weights.config.anchors
    expected = ops.postprocess(*raw, size_hw, config=config, score_threshold=score_threshold)
    tensors = [[torch.from_numpy(level) for level in levels] for levels in raw]
    assert_same_faces(
        postprocess(*tensors, size_hw, config=config, score_threshold=score_threshold), expected
    )
    assert min(len(faces.scores) for faces in expected) >= 1


def test_any_strides(published_weights: ModelWeights) -> None:
    size_hw = (40, 56)
    raw = random_outputs(np.random.default_rng(9), size_hw, batch=2)
    expected = ops.postprocess(*raw, size_hw)
    tensors = [
        [level.permute(2, 0, 1).contiguous().permute(1, 2, 0) for level in levels]
        for levels in as_tensors(raw, size_hw, P3_P5)
    ]
    assert not tensors[0][0].is_contiguous()
    assert_same_faces(postprocess(*tensors, size_hw, config=published_weights.config.anchors), expected)


# Arguments


def test_bad_arguments() -> None:
    size_hw = (32, 32)
    raw = random_outputs(np.random.default_rng(0), size_hw)

    def run(change: Any = None, **options: Any) -> None:
        tensors = as_tensors(raw, size_hw, P3_P5)
        if change is not None:
            change(tensors)
        postprocess(*tensors, size_hw, config=P3_P5.config, **options)

    def set_level(output: int, level: int, value: Any) -> Any:
        return lambda tensors: tensors[output].__setitem__(level, value)

    for change, error, message in (
        (
            lambda tensors: tensors[1].pop(),
            ValueError,
            r"^box_deltas: expected 3 tensors, one for each level, got 2",
        ),
        (set_level(2, 1, 7), TypeError, r"^landmark_deltas\[1\]: expected a float32 tensor, got int"),
        (
            set_level(0, 0, torch.zeros(1, 32, 2).half()),
            TypeError,
            r"^class_scores\[0\]: .* got torch.float16",
        ),
        (
            set_level(1, 2, torch.zeros(1, 3, 4)),
            ValueError,
            r"^box_deltas\[2\]: expected shape \(1, 2, 4\), got",
        ),
        (
            set_level(1, 2, torch.zeros(2, 2, 4)),
            ValueError,
            r"^box_deltas\[2\]: expected shape \(1, 2, 4\), got",
        ),
        (
            set_level(1, 2, torch.zeros(1, 2, 4, device="meta")),
            ValueError,
            r"expected to lie on cpu, .* got meta",
        ),
    ):
        with pytest.raises(error, match=message):
            run(change)
    for options, error, name in (
        ({"scores_are": "odds"}, ValueError, "scores_are"),
        ({"score_threshold": 1.5}, ValueError, "score_threshold"),
        ({"nms_threshold": "high"}, TypeError, "nms_threshold"),
        ({"top_k": 0}, ValueError, "top_k"),
        ({"keep_top_k": 2.5}, TypeError, "keep_top_k"),
        ({"variances": (0.1, 0.0)}, ValueError, "variances"),
    ):
        with pytest.raises(error, match=f"^{name}"):
            run(**options)
