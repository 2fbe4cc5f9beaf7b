"""The suppression in torch, of many images at once: as `ops.nms` for each, and no more waits than for one."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from retinaface_fast import ops
from tests.ops.agreement import P3_P5, RawOutputs, assert_same_bits, assert_same_faces
from tests.ops.samples import BOX_KINDS, random_outputs

torch = pytest.importorskip("torch")

from retinaface_fast.engines.torch_nms import greedy_choice, places_of  # noqa: E402
from retinaface_fast.engines.torch_postprocess import postprocess  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt


class Functions(torch.overrides.TorchFunctionMode):  # type: ignore[misc,name-defined]
    """How often the host waits for a device, by the function that makes it wait."""

    #: `nonzero` learns how many there are; the others bring a value to the host.
    WAITING = frozenset(
        {"item", "tolist", "cpu", "nonzero", "equal", "__bool__", "__int__", "__float__"}
        | {"__index__", "unique", "unique_consecutive", "masked_select", "repeat_interleave", "argwhere"}
    )

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()

    def __torch_function__(self, function: Any, _types: Any, arguments: Any = (), options: Any = None) -> Any:
        name = function.__name__
        if name == "__getitem__":
            indices = arguments[1] if isinstance(arguments[1], tuple) else (arguments[1],)
            if any(isinstance(index, torch.Tensor) and index.dtype == torch.bool for index in indices):
                name = "nonzero"
        if name in self.WAITING:
            self.waits[name] += 1
        return function(*arguments, **(options or {}))


class Operations(torch.utils._python_dispatch.TorchDispatchMode):  # type: ignore[misc,name-defined]
    """How many operations there are, views among them."""

    number = 0

    def __torch_dispatch__(self, function: Any, _types: Any, arguments: Any = (), options: Any = None) -> Any:
        self.number += 1
        return function(*arguments, **(options or {}))


def cost(action: Callable[[], Any]) -> tuple[Counter[str], int]:
    """Waits and operations of an action."""
    with Functions() as functions, Operations() as operations:
        action()
    return functions.waits, operations.number


@pytest.mark.parametrize("width", [5, 9])
def test_places(width: int) -> None:
    rng = np.random.default_rng(width)
    wanted = rng.permuted(np.arange(40) < rng.integers(0, 6, 30)[:, None], axis=1)
    wanted[0], wanted[1] = False, np.arange(40) >= 35
    places = places_of(torch.from_numpy(wanted), width).numpy()
    for row, found in zip(wanted, places, strict=True):
        expected = np.flatnonzero(row)
        assert_same_bits(found, np.concatenate([expected, np.full(width - len(expected), 40)]))


@pytest.mark.parametrize("numbers", [(), (0, 0), (0, 1, 300, 2, 40), (7,) * 9], ids=str)
@pytest.mark.parametrize("kind", BOX_KINDS)
def test_images_with_different_numbers(kind: str, numbers: tuple[int, ...]) -> None:
    """Rows are as long as the longest and one more; what lies in the padding plays no part."""
    rng = np.random.default_rng(len(numbers))
    images, longest = len(numbers), max(numbers, default=0) + 1
    boxes = BOX_KINDS[kind](rng, images * longest).reshape(images, longest, 4)
    candidates = np.arange(longest) < np.reshape(numbers, (images, 1))
    # Some are missing in between as well.
    candidates &= rng.random(candidates.shape) < 0.9
    finite = np.isfinite(boxes).all(axis=2) & candidates
    for iou_threshold, enough in ((0.0, None), (0.25, None), (0.25, 1), (0.25, 13), (1.0, 13)):
        wanted = []
        for of_image, usable in zip(boxes, finite, strict=True):
            scores = np.arange(usable.sum(), 0, -1).astype(np.float32)
            kept = ops.nms(of_image[usable], scores, iou_threshold=iou_threshold)
            wanted.append(np.flatnonzero(usable)[kept][:enough])
        for pairs in (200, 5_000, 1 << 22):
            found = greedy_choice(
                torch.from_numpy(boxes),
                torch.from_numpy(candidates),
                iou_threshold,
                enough=enough,
                pairs=pairs,
            )
            for choice, expected in zip(found.numpy(), wanted, strict=True):
                assert_same_bits(np.flatnonzero(choice), expected)


@pytest.mark.parametrize("keep_top_k", [None, 1, 20])
@pytest.mark.parametrize("top_k", [None, 1, 200])
def test_limits_that_some_images_reach(top_k: int | None, keep_top_k: int | None) -> None:
    size_hw = (130, 197)
    shares = 0.0, 0.01, 0.2, 0.0, 1.0
    samples = [
        random_outputs(np.random.default_rng(seed), size_hw, face_share=share, spread=0.2)
        for seed, share in enumerate(shares)
    ]
    raw = RawOutputs(*(np.concatenate(arrays) for arrays in zip(*samples, strict=True)))
    options: dict[str, Any] = {"config": P3_P5.config, "top_k": top_k, "keep_top_k": keep_top_k}
    expected = ops.postprocess(*raw, size_hw, **options)
    tensors = [[torch.from_numpy(level) for level in P3_P5.split(array, size_hw)] for array in raw]
    assert_same_faces(postprocess(*tensors, size_hw, **options), expected)
    numbers = [len(faces.scores) for faces in expected]
    assert numbers[0] == numbers[3] == 0 < numbers[1] <= 20
    if top_k is None and keep_top_k is None:
        assert numbers[1] < 20 < numbers[2] < numbers[4]


def test_no_more_waits_and_operations_for_more_images() -> None:
    size_hw = (160, 213)
    raw = random_outputs(np.random.default_rng(1), size_hw, face_share=0.1)

    def run(images: int) -> Callable[[], Any]:
        many = (np.repeat(array, images, axis=0) for array in raw)
        tensors = [[torch.from_numpy(level) for level in P3_P5.split(array, size_hw)] for array in many]
        return lambda: postprocess(*tensors, size_hw, config=P3_P5.config)

    waits, operations = cost(run(1))
    looks = waits.pop("equal")
    # How many candidates, which faces, and the faces; one block, so that nothing else makes it wait.
    assert waits == {"tolist": 1, "nonzero": 1, "cpu": 1}
    assert 1 <= looks <= 4
    expected = waits | {"equal": looks}, cost(run(2))[1]
    # Of one image, there is something to lay out that is in order for several, or the other way round.
    assert abs(operations - expected[1]) <= 5
    for images in (2, 3, 19):
        assert cost(run(images)) == expected


def test_no_more_waits_and_operations_in_blocks_of_one_size() -> None:
    boxes = BOX_KINDS["sparse"](np.random.default_rng(0), 400)

    def run(images: int) -> Callable[[], Any]:
        many = torch.from_numpy(boxes).expand(images, -1, -1)
        candidates = torch.ones(images, len(boxes), dtype=torch.bool)
        return lambda: greedy_choice(many, candidates, 0.5, pairs=images * 4 * 100 * 100)

    waits, _ = cost(run(1))
    blocks = 4
    assert waits["equal"] >= blocks, "a look in each block, and two more waits in each but the last"
    assert waits == {"equal": waits["equal"], "__int__": blocks - 1, "tolist": blocks - 1}
    expected = waits, cost(run(2))[1]
    for images in (2, 3, 30):
        assert cost(run(images)) == expected


def test_images_that_are_done_cost_nothing() -> None:
    """The blocks of the one image of which much is left are as large as if it were alone."""
    rng = np.random.default_rng(0)
    images, count = 64, 2_000
    boxes = np.repeat(BOX_KINDS["sparse"](rng, count)[None], images, axis=0)
    candidates: npt.NDArray[np.bool_] = np.zeros((images, count), dtype=np.bool_)
    candidates[:, :10], candidates[5] = True, True
    pairs = 64 * 4 * 10 * 10
    found: list[Any] = []

    def run(chosen: slice) -> Callable[[], Any]:
        return lambda: found.append(
            greedy_choice(
                torch.from_numpy(boxes[chosen]), torch.from_numpy(candidates[chosen]), 0.5, pairs=pairs
            )
        )

    alone, _ = cost(run(slice(5, 6)))
    together, _ = cost(run(slice(None)))
    assert_same_bits(found[1][5:6].numpy(), found[0].numpy())
    assert alone["tolist"] <= together["tolist"] <= alone["tolist"] + 1
