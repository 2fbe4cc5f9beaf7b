"""Post-processing in torch gives the bits of the C++ core, on a CUDA device as on the CPU."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from retinaface_fast import ops
from tests.ops.agreement import P2_P6, P3_P5, Grid, RawOutputs, assert_same_bits, assert_same_faces
from tests.ops.samples import BOX_KINDS, as_probabilities, random_outputs, spoil

torch = pytest.importorskip("torch")

from retinaface_fast.engines.torch_arithmetic import exponential, round_down_to_float, sigmoid  # noqa: E402
from retinaface_fast.engines.torch_nms import greedy_choice  # noqa: E402
from retinaface_fast.engines.torch_postprocess import postprocess  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence

#: On the CPU, too, so that the tests are right on the day that there is a device.
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


@pytest.fixture(params=["cpu", pytest.param("cuda", id="cuda_device", marks=needs_cuda)])
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def on_device(raw: RawOutputs, size_hw: tuple[int, int], device: str, grid: Grid = P3_P5) -> list[list[Any]]:
    return [[torch.from_numpy(level).to(device) for level in grid.split(array, size_hw)] for array in raw]


def check(
    raw: RawOutputs, size_hw: tuple[int, int], device: str, *, grid: Grid = P3_P5, **options: Any
) -> int:
    """Compare with the core; how many faces there are."""
    expected = ops.postprocess(*raw, size_hw, config=grid.config, **options)
    found = postprocess(*on_device(raw, size_hw, device, grid), size_hw, config=grid.config, **options)
    assert_same_faces(found, expected)
    return sum(len(faces.scores) for faces in found)


@pytest.mark.parametrize("score_threshold", [0.0, 0.02, 0.5, 1.0])
@pytest.mark.parametrize("grid", [P3_P5, P2_P6], ids=["P3-P5", "P2-P6"])
@pytest.mark.parametrize("size_hw", [(1, 1), (31, 33), (217, 333)], ids=lambda size: "x".join(map(str, size)))
def test_the_faces_of_the_core(
    size_hw: tuple[int, int], grid: Grid, score_threshold: float, device: str
) -> None:
    rng = np.random.default_rng(5)
    raw = random_outputs(rng, size_hw, batch=3, grid=grid, face_share=0.02)
    faces = check(raw, size_hw, device, grid=grid, score_threshold=score_threshold)
    if size_hw > (100, 100):
        assert (faces > 10) == (score_threshold < 1)
    probabilities = as_probabilities(raw)
    check(
        probabilities, size_hw, device, grid=grid, score_threshold=score_threshold, scores_are="probabilities"
    )
    for sample, scores_are in ((raw, "logits"), (probabilities, "probabilities")):
        spoiled = spoil(rng, sample, 0.03)
        check(spoiled, size_hw, device, grid=grid, score_threshold=score_threshold, scores_are=scores_are)


@pytest.mark.parametrize("keep_top_k", [None, 1, 750])
@pytest.mark.parametrize("top_k", [None, 1, 100, 5000])
def test_limits(top_k: int | None, keep_top_k: int | None, device: str) -> None:
    rng = np.random.default_rng(7)
    raw = random_outputs(rng, (160, 213), batch=2, face_share=1.0, spread=0.5)
    limits = {"top_k": top_k, "keep_top_k": keep_top_k}
    assert check(raw, (160, 213), device, nms_threshold=0.6, **limits) > 0
    check(spoil(rng, raw, 0.2), (160, 213), device, nms_threshold=0.6, **limits)


@pytest.mark.parametrize("spoiled", [False, True])
def test_batches_of_64(spoiled: bool, device: str) -> None:
    rng = np.random.default_rng(8)
    raw = random_outputs(rng, (93, 121), batch=64)
    assert check(spoil(rng, raw, 0.03) if spoiled else raw, (93, 121), device) > 500


def test_exponential_and_sigmoid(device: str) -> None:
    """Of every 4,999th float, and of those that any network gives."""
    bits = np.arange(0, 2**32, 4999, dtype=np.uint64).astype(np.uint32)
    values = np.concatenate([bits.view(np.float32), np.linspace(-20, 20, 1_000_001, dtype=np.float32)])
    tensor = torch.from_numpy(values)
    for function in (exponential, sigmoid):
        assert_same_bits(function(tensor.to(device)).cpu().numpy(), function(tensor).numpy())


@pytest.mark.parametrize("kind", BOX_KINDS)
def test_suppression(kind: str, device: str) -> None:
    rng = np.random.default_rng(9)
    boxes = BOX_KINDS[kind](rng, 3000)
    candidates = torch.ones((1, 3000), dtype=torch.bool, device=device)
    for threshold in (0.0, 0.4, 1.0):
        on_it = torch.from_numpy(boxes)[None].to(device)
        chosen = greedy_choice(on_it, candidates, round_down_to_float(threshold))[0].cpu().numpy()
        finite = np.flatnonzero(np.isfinite(boxes).all(axis=1))
        best_first = -np.arange(len(finite), dtype=np.float32)
        kept = ops.nms(boxes[finite], best_first, iou_threshold=threshold)
        np.testing.assert_array_equal(np.flatnonzero(chosen), finite[kept])
        assert chosen.any()


@needs_cuda
def test_streams_of_threads_on_a_cuda_device() -> None:
    rng = np.random.default_rng(10)
    inputs = [random_outputs(rng, (45, 70), batch=1 + i) for i in range(4)]
    expected = [ops.postprocess(*raw, (45, 70)) for raw in inputs]

    def run(thread: int) -> list[Sequence[ops.Faces]]:
        with torch.cuda.stream(torch.cuda.Stream()):
            found = []
            for i in range(6):
                torch.cuda._sleep(1_000_000)
                tensors = on_device(inputs[(thread + i) % 4], (45, 70), "cuda")
                found.append(postprocess(*tensors, (45, 70), config=P3_P5.config))
            return found

    with ThreadPoolExecutor(4) as pool:
        for thread, found in enumerate(pool.map(run, range(4))):
            for i, faces in enumerate(found):
                assert_same_faces(faces, expected[(thread + i) % 4])
