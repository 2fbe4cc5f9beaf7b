"""Who takes part in `benchmarks.cuda`, and how their turns are timed.

Everyone gets the raw outputs as tensors of the device, one for each level. torchvision's way goes as its own
detectors do: the levels put together, the top-k of all images in one call, then decoding of what is left, and
one `batched_nms`. Its anchors cost nothing. It waits for the device where it has to know how many are left:
once for those above the threshold, once for the limit of faces, and in `batched_nms` as that does.
"""

from __future__ import annotations

import functools
import importlib.util
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import by_torchvision
from retinaface_fast import ops
from retinaface_fast.anchor_config import P3_P5

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from benchmarks.cuda_cases import Case, Tensors
    from benchmarks.opponents import Options

KERNELS, TORCH, TORCHVISION = "kernels", "torch path", "torchvision"
TO_HOST = ", to the host"
#: Calls in a row that a turn on a device is timed over by events.
CALLS = 10


def kernels(case: Case, tensors: Tensors, options: Options) -> Any:
    """Our kernels, on torch's current stream; the faces stay on the device."""
    import torch

    from retinaface_fast.ops import cuda

    return cuda.postprocess(
        *tensors,
        case.image_size_hw,
        scores_are=case.outputs.scores_are,
        stream=torch.cuda.current_stream(tensors.class_scores[0].device).cuda_stream,
        **options._asdict(),
    )


def torch_path(case: Case, tensors: Tensors, options: Options) -> list[ops.Faces]:
    """What the engine `torch` does where there are no kernels."""
    from retinaface_fast.engines import torch_postprocess

    return torch_postprocess.postprocess(
        *tensors,
        case.image_size_hw,
        config=P3_P5,
        scores_are=case.outputs.scores_are,
        **options._asdict(),
    )


def on_the_cpu(case: Case, options: Options, *, threads: int = 1) -> list[ops.Faces]:
    """`ops.postprocess`, which everyone is compared with."""
    outputs = case.outputs
    return ops.postprocess(
        outputs.class_scores,
        outputs.box_deltas,
        outputs.landmark_deltas,
        case.image_size_hw,
        scores_are=outputs.scores_are,
        threads=threads,
        **options._asdict(),
    )


def copied_to_the_cpu(case: Case, tensors: Tensors, options: Options, *, threads: int) -> list[ops.Faces]:
    """All raw outputs to the host, and `ops.postprocess` there: the way without anything of this."""
    levels = ([level.cpu().numpy() for level in part] for part in tensors)
    return ops.postprocess(
        *levels,
        case.image_size_hw,
        scores_are=case.outputs.scores_are,
        threads=threads,
        **options._asdict(),
    )


# --- torchvision


@functools.lru_cache(maxsize=4)
def _anchors(image_size_hw: tuple[int, int], device: str) -> Any:
    import torch

    return torch.from_numpy(ops.generate_anchors(image_size_hw)).to(device)


def by_batched_nms(case: Case, tensors: Tensors, options: Options) -> tuple[Any, Any, Any, Any]:
    """Image, boxes, scores and landmarks of the faces, on the device, by image and score."""
    import torch
    import torchvision

    classes, deltas, points = (torch.cat(levels, dim=1) for levels in tensors)
    batch_size, count = classes.shape[:2]
    if case.outputs.scores_are == "logits":
        scores = torch.sigmoid(classes[..., 1] - classes[..., 0])
    else:
        scores = classes[..., 1]
    scores, index = scores.topk(min(options.top_k, count), dim=1)
    images, ranks = (scores > options.score_threshold).nonzero(as_tuple=True)
    index, scores = index[images, ranks], scores[images, ranks]
    own, deltas = _anchors(case.image_size_hw, str(classes.device))[index], deltas[images, index]
    center, size = by_torchvision.VARIANCES
    centers = own[:, :2] + deltas[:, :2] * center * own[:, 2:]
    halves = own[:, 2:] * torch.exp(deltas[:, 2:] * size) * 0.5
    boxes = torch.cat((centers - halves, centers + halves), dim=1)
    kept = torchvision.ops.batched_nms(boxes, scores, images, options.nms_threshold)
    # By image, the best first, and of each image no more than it may have.
    kept = kept[torch.argsort(images[kept], stable=True)]
    of_kept = images[kept]
    first = torch.searchsorted(of_kept, torch.arange(batch_size, device=kept.device))
    kept = kept[torch.arange(len(kept), device=kept.device) - first[of_kept] < options.keep_top_k]
    images, index, own = images[kept], index[kept], own[kept]
    landmarks = points[images, index].view(-1, 5, 2) * center * own[:, None, 2:] + own[:, None, :2]
    return images, boxes[kept], scores[kept], landmarks


def to_faces(found: tuple[Any, Any, Any, Any], batch_size: int) -> list[ops.Faces]:
    """The same on the host."""
    images, *parts = (tensor.cpu().numpy() for tensor in found)
    ends = np.searchsorted(images, np.arange(batch_size + 1))
    return [ops.Faces(*(part[ends[k] : ends[k + 1]] for part in parts)) for k in range(batch_size)]


# --- everyone


def contestants(
    case: Case, tensors: Tensors, options: Options, *, with_kernels: bool, threads: int
) -> dict[str, Callable[[], Any]]:
    """Whoever can answer here, by name; who does not leave the faces on the device returns a list."""
    ways: dict[str, Callable[[], Any]] = {}
    if with_kernels:
        ways[KERNELS] = lambda: kernels(case, tensors, options)
        ways[KERNELS + TO_HOST] = lambda: kernels(case, tensors, options).to_host()
    ways[TORCH + TO_HOST] = lambda: torch_path(case, tensors, options)
    if by_torchvision.is_here():
        ways[TORCHVISION] = lambda: by_batched_nms(case, tensors, options)
        ways[TORCHVISION + TO_HOST] = lambda: to_faces(
            by_batched_nms(case, tensors, options), case.batch_size
        )
    ways[f"raw outputs to the host, CPU, {threads} threads"] = lambda: copied_to_the_cpu(
        case, tensors, options, threads=threads
    )
    return ways


def not_run(obstacle: str) -> dict[str, str]:
    """Who has no turns here, and why: the kernels where there is an obstacle, torchvision where it is not."""
    reasons = {KERNELS: obstacle} if obstacle else {}
    if not by_torchvision.is_here():
        is_there = importlib.util.find_spec("torchvision") is not None
        reasons[TORCHVISION] = "not the one for this torch" if is_there else "not installed"
    return reasons


def quartiles(values: list[float]) -> dict[str, float]:
    low, median, high = (float(value) for value in np.percentile(values, (25, 50, 75)))
    return {"median": median, "low": low, "high": high, "rounds": len(values)}


def timed(
    ways: Mapping[str, Callable[[], Any]], device: str, *, rounds: int, seconds_each: float = 10.0
) -> dict[str, Any]:
    """Seconds of one call of everyone, who take turns in every round.

    `wall` is one call from an idle device until it is idle again. `in_a_row` is the time that the device's
    own clock gives for each of some calls behind one another, where how long a launch takes counts only if
    the device waits for it; None on the CPU. Who needs more than `seconds_each` has fewer rounds, at least 3.
    """
    import torch

    on_gpu = torch.device(device).type == "cuda"

    def wait() -> None:
        if on_gpu:
            torch.cuda.synchronize(device)

    def once(call: Callable[[], Any]) -> float:
        wait()
        started = time.perf_counter()
        result = call()
        wait()
        taken = time.perf_counter() - started
        del result  # freed after the clock was read
        return taken

    def in_a_row(call: Callable[[], Any]) -> float:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(CALLS):
            call()
        end.record()
        wait()
        return float(begin.elapsed_time(end)) / 1e3 / CALLS

    plays = {}
    for call_name, call in ways.items():
        for _ in range(2):
            once(call)  # compiles, allocates
        each = once(call) * (1 + CALLS * on_gpu)
        plays[call_name] = max(3, min(rounds, int(seconds_each / max(each, 1e-6))))
    wall: dict[str, list[float]] = {name: [] for name in ways}
    row: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            if turn < plays[name]:
                wall[name].append(once(ways[name]))
                if on_gpu:
                    row[name].append(in_a_row(ways[name]))
    return {
        name: {"wall": quartiles(wall[name]), "in_a_row": quartiles(row[name]) if on_gpu else None}
        for name in ways
    }
