"""Non-maximum suppression in torch, on whatever device the boxes lie: what `ops.nms` does, bit for bit."""

from __future__ import annotations

import torch

__all__ = ["greedy_choice"]

#: Boxes that are decided at a time, and pairs that are looked at at a time. What is computed of a pair takes
#: 24 bytes or so, which makes some 100 MB, however many boxes there are.
_BLOCK, _PAIRS = 1024, 1 << 22

#: Rounds between two looks at whether anything still changes: a look waits for the device, a round does not.
_ROUNDS = 3

_LARGEST_FLOAT = torch.finfo(torch.float32).max


@torch.inference_mode()
def greedy_choice(
    boxes: torch.Tensor,
    threshold: float,
    *,
    enough: int | None = None,
    block: int = _BLOCK,
    pairs: int = _PAIRS,
) -> torch.Tensor:
    """Which boxes the greedy suppression keeps: those that no box before them overlaps that is kept.

    Boxes are decided in blocks; those that a block suppresses never come into one. The host waits for the
    device once for every three rounds of a block (see `_decide`), and two times more for each block that is
    not the last.

    Args:
        boxes: (N, 4) float32 xyxy, best first. Those that are not finite are not kept. Finite ones without a
            positive, finite area overlap nothing and are kept.
        threshold: A float32 within [0, 1]; an IoU > threshold suppresses.
        enough: At most so many are kept, the first ones; all if None.
        block: Most boxes that are decided at a time.
        pairs: Most pairs of boxes that are looked at at a time, at least block * block.

    Returns:
        (N,) bool.
    """
    finite = torch.isfinite(boxes).all(dim=1)
    areas = _areas(boxes)
    kept = torch.zeros_like(finite)
    undecided = torch.arange(len(boxes), device=boxes.device)
    found = 0
    while len(undecided):
        first, rest = undecided[:block], undecided[block:]
        overlap = _overlaps(boxes[first], areas[first], boxes[first], areas[first], threshold)
        chosen = _decide(overlap, finite[first])
        kept[first] = chosen
        if len(rest) == 0:
            break
        keepers = first[chosen]
        found += len(keepers)
        if enough is not None and found >= enough:
            break
        suppressed = [
            _overlaps(boxes[keepers], areas[keepers], boxes[some], areas[some], threshold).any(dim=0)
            for some in torch.split(rest, pairs // max(1, len(keepers)))
        ]
        undecided = rest[~torch.cat(suppressed)]
    return kept if enough is None else kept & (kept.cumsum(0) <= enough)


def _decide(overlap: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
    """The greedy choice among boxes, best first, of which every pair has been looked at.

    The choice is the one solution of

        chosen[j] = candidate[j] and no i < j has chosen[i] and overlap[i, j]

    which says of each what follows from those before it. So does a round, for all of them at once, starting
    from any choice: where those before j are right, j is right after the round, and stays so. Hence at least
    k of them are right after k rounds, whatever the start, and N rounds are enough. Hardly ever are so many
    needed, for a round also settles every box whose deciders are settled: as many as the longest chain of
    boxes that have to wait for each other. A choice that rounds do not change is the solution: if j were the
    first that is wrong in it, one round would put it right and the following ones would leave it so.

    Args:
        overlap: (N, N) bool, symmetrical.
        candidates: (N,) bool; no other is chosen.

    Returns:
        (N,) bool.
    """
    suppresses = overlap.triu(1)
    chosen = candidates
    while True:
        before = chosen
        for _ in range(_ROUNDS):
            chosen = candidates & ~(suppresses & chosen[:, None]).any(dim=0)
        if torch.equal(chosen, before):
            return chosen


def _areas(boxes: torch.Tensor) -> torch.Tensor:
    """0 for boxes that overlap nothing, as in csrc/arithmetic.hpp."""
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    area = width * height
    measurable = (width > 0) & (height > 0) & (area > 0) & (area <= _LARGEST_FLOAT)
    return torch.where(measurable, area, 0.0)


def _overlaps(
    boxes: torch.Tensor,
    areas: torch.Tensor,
    others: torch.Tensor,
    other_areas: torch.Tensor,
    threshold: float,
) -> torch.Tensor:
    """(N, M) bool: whether N boxes and M others have IoU > threshold, as in csrc/arithmetic.hpp."""
    one, other = boxes[:, None], others[None]
    width = torch.minimum(one[..., 2], other[..., 2]) - torch.maximum(one[..., 0], other[..., 0])
    height = torch.minimum(one[..., 3], other[..., 3]) - torch.maximum(one[..., 1], other[..., 1])
    meet = (width > 0) & (height > 0)
    intersection = width * height
    del width, height
    meet &= intersection / ((areas[:, None] + other_areas[None]) - intersection) > threshold
    return meet & (areas > 0)[:, None] & (other_areas > 0)[None]
