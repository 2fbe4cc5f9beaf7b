"""Non-maximum suppression in torch, on whatever device the boxes lie: what `ops.nms` does, bit for bit."""

from __future__ import annotations

import math

import torch

__all__ = ["greedy_choice", "places_of"]

#: Pairs of boxes that are looked at at a time. What is computed of a pair takes 12 bytes at its peak: a
#: process grew by 120 MB for 20,000 boxes of one image, less for 1,500 of 64 images and for 400 of 512.
_PAIRS = 1 << 22

#: Rounds between two looks at whether anything still changes: a look waits for the device, a round does not.
_ROUNDS = 3

_LARGEST_FLOAT = torch.finfo(torch.float32).max


@torch.inference_mode()
def greedy_choice(
    boxes: torch.Tensor,
    candidates: torch.Tensor,
    threshold: float,
    *,
    enough: int | None = None,
    pairs: int = _PAIRS,
) -> torch.Tensor:
    """Which boxes the greedy suppression keeps: those that no box before them overlaps that is kept.

    Images have nothing to do with each other and are worked on together. Boxes are decided in blocks, one of
    each image at a time; those that a block suppresses never come into one, and images of which nothing is
    left drop out. The host waits for the device once for every three rounds of a block (see `_decide`), and
    two times more for each block that is not the last. There are as many blocks as the image needs that needs
    most; they are smaller where there are more images, as the pairs in all of them are bounded.

    Args:
        boxes: (B, N, 4) float32 xyxy of B images, best first.
        candidates: (B, N) bool; no others are kept. Nor are those whose boxes are not finite. Finite ones
            without a positive, finite area overlap nothing and are kept.
        threshold: A float32 within [0, 1]; an IoU > threshold suppresses.
        enough: At most so many of each image are kept, the first ones; all if None.
        pairs: Most pairs of boxes that are looked at at a time, in all images together, but at least one of
            each image.

    Returns:
        (B, N) bool.
    """
    # From here on a box is known by its place among those of all images. Behind them is one that is none.
    none = candidates.numel()
    free = torch.nn.functional.pad((candidates & torch.isfinite(boxes).all(dim=2)).flatten(), (0, 1))
    table = torch.nn.functional.pad(_sides_and_areas(boxes.flatten(0, 1)), (0, 1), value=0.0)
    table[4, none] = math.inf
    kept = torch.zeros_like(free)
    undecided = torch.arange(none, device=boxes.device).view(candidates.shape)
    found = torch.zeros(len(candidates), dtype=torch.int64, device=boxes.device)
    wanted = candidates.shape[1] + 1 if enough is None else enough
    while undecided.numel():
        images = len(undecided)
        # A quarter: half the size wastes less on padding and on pairs of boxes that are suppressed anyway.
        size = max(1, math.isqrt(pairs // (4 * images)))
        first, rest = undecided[:, :size], undecided[:, size:]
        boxes_of_first = table[:, first]
        chosen = _decide(_iou(boxes_of_first, boxes_of_first) > threshold, free[first])
        kept[first] = chosen
        if rest.shape[1] == 0:
            break
        found = found + chosen.sum(dim=1)
        chosen &= (found < wanted)[:, None]
        most = max(1, int(chosen.sum(dim=1).max()))
        keepers = table[:, _compact(first, chosen, most, none)]
        worst = [
            _iou(keepers, table[:, some]).amax(dim=1)
            for some in torch.split(rest, max(1, pairs // (images * most)), dim=1)
        ]
        left = free[rest] & (torch.cat(worst, dim=1) <= threshold) & (found < wanted)[:, None]
        numbers = left.sum(dim=1).tolist()
        undecided = _compact(rest, left, max(numbers), none)
        if 0 in numbers:
            going = torch.tensor([image for image, number in enumerate(numbers) if number], dtype=torch.int64)
            # What a pageable array holds is taken over at once: nothing waits for the stream.
            going = going.to(boxes.device, non_blocking=True)
            undecided, found = undecided[going], found[going]
    kept = kept[:none].view(candidates.shape)
    return kept if enough is None else kept & (kept.cumsum(1) <= enough)


def places_of(wanted: torch.Tensor, width: int) -> torch.Tensor:
    """Where the wanted of each row (B, N) bool are: (B, width) int64, ascending, then N."""
    # The n-th is where their number becomes n: a search costs less than that all places go somewhere.
    numbers = wanted.cumsum(dim=1, dtype=torch.int32)
    nth = torch.arange(1, width + 1, dtype=torch.int32, device=wanted.device)
    return torch.searchsorted(numbers, nth.repeat(len(wanted), 1))


def _compact(values: torch.Tensor, wanted: torch.Tensor, width: int, padding: int) -> torch.Tensor:
    """(B, width): the wanted values of each row of (B, N) in their order, and padding behind them."""
    padded = torch.nn.functional.pad(values, (0, 1), value=padding)
    return padded.gather(1, places_of(wanted, width))


def _decide(overlap: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
    """The greedy choice among boxes, best first, of which every pair of an image has been looked at.

    The choice in an image is the one solution of

        chosen[j] = candidate[j] and no i < j has chosen[i] and overlap[i, j]

    which says of each what follows from those before it. So does a round, for all of them at once, starting
    from any choice: where those before j are right, j is right after the round, and stays so. Hence at least
    k of them are right after k rounds, whatever the start, and N rounds are enough. Hardly ever are so many
    needed, for a round also settles every box whose deciders are settled: as many as the longest chain of
    boxes that have to wait for each other. A choice that rounds do not change is the solution: if j were the
    first that is wrong in it, one round would put it right and the following ones would leave it so.
    Images know nothing of each other: when no choice changes in any, each has its solution.

    Args:
        overlap: (B, N, N) bool, symmetrical.
        candidates: (B, N) bool; no other is chosen.

    Returns:
        (B, N) bool.
    """
    # As bytes, for which torch has vector instructions on the CPU, and none for bool: 30 times slower.
    suppresses = overlap.triu_(1).view(torch.uint8)
    candidates = candidates.view(torch.uint8)
    chosen = candidates
    while True:
        before = chosen
        for _ in range(_ROUNDS):
            suppressed = (suppresses & chosen[:, :, None]).amax(dim=1)
            chosen = (candidates > suppressed).view(torch.uint8)
        if torch.equal(chosen, before):
            return chosen.view(torch.bool)


def _sides_and_areas(boxes: torch.Tensor) -> torch.Tensor:
    """(5, N) for boxes (N, 4): left, top, right, bottom, area, for `_iou`.

    A box without an area, as in csrc/arithmetic.hpp, overlaps nothing: it has no extent here and an infinite
    area, which makes every IoU with it 0 and none NaN.
    """
    left, top, right, bottom = boxes.unbind(1)
    width, height = right - left, bottom - top
    area = width * height
    measurable = (width > 0) & (height > 0) & (area > 0) & (area <= _LARGEST_FLOAT)
    sides = torch.where(measurable, boxes.t(), 0.0)
    return torch.cat((sides, torch.where(measurable, area, math.inf)[None]))


def _iou(boxes: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """(B, N, M) float32 IoU of boxes (5, B, N) and others (5, B, M), as in csrc/arithmetic.hpp; never NaN.

    Where two boxes do not meet, it is 0: a side of what they have in common is not positive, and taken for 0.
    What they have in common is no larger than either, so that its sides and area are finite; an area is
    positive, or infinite where there is nothing to have in common, so that no quotient is 0 / 0.
    """
    left, top, right, bottom, area = boxes[..., None].unbind(0)
    other_left, other_top, other_right, other_bottom, other_area = others[:, :, None].unbind(0)
    width = torch.minimum(right, other_right).sub_(torch.maximum(left, other_left)).clamp_(min=0)
    height = torch.minimum(bottom, other_bottom).sub_(torch.maximum(top, other_top)).clamp_(min=0)
    intersection = width.mul_(height)
    del height
    return intersection.div_((area + other_area).sub_(intersection))
