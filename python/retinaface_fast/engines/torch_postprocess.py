"""Post-processing in torch, on whatever device the raw outputs lie: what `ops.postprocess` does, bit for bit.

The bits are the same because each float operation is an operation of torch of its own, which rounds once:
nothing is fused, `exp` is the polynomial of `csrc/arithmetic.hpp` and not the library's, and nothing is
divided by a Python number, which torch does by its reciprocal on CUDA. The order of candidates, by score and
by index where scores are equal, leaves nothing to the order in which threads come.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch

from retinaface_fast._validation import check_fraction, check_number, check_optional_positive_int
from retinaface_fast.ops.postprocess import Faces

from .torch_nms import greedy_choice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retinaface_fast.anchor_config import AnchorConfig

__all__ = ["decode_boxes", "exponential", "postprocess", "sigmoid"]

# csrc/kernels/exp_constants.hpp.
_EXP_OVERFLOW, _EXP_UNDERFLOW = 88.72283, -87.33654
_LOG2_E, _LN2_HIGH, _LN2_LOW = 1.44269504, 0.693359375, -2.12194440e-4
_ROUND_MAGIC = 12582912.0
_EXP_POLYNOMIAL = (
    1.9875691500e-4,
    1.3981999507e-3,
    8.3334519073e-3,
    4.1665795894e-2,
    1.6666665459e-1,
    5.0000001201e-1,
)

#: Behind every score of an image, where keys ascend as scores descend.
_LAST_KEY = 0x7FFFFFFF
_INFINITY_BITS = 0x7F800000

#: Floats of a face as it is copied to the host: image, box, score, landmarks.
_FACE_FLOATS = 1 + 4 + 1 + 10


@torch.inference_mode()
def postprocess(
    class_scores: Sequence[torch.Tensor],
    box_deltas: Sequence[torch.Tensor],
    landmark_deltas: Sequence[torch.Tensor],
    image_size_hw: tuple[int, int],
    *,
    config: AnchorConfig,
    scores_are: Literal["logits", "probabilities"] = "logits",
    variances: tuple[float, float] = (0.1, 0.2),
    score_threshold: float = 0.5,
    nms_threshold: float = 0.4,
    top_k: int | None = 5000,
    keep_top_k: int | None = 750,
) -> list[Faces]:
    """Faces from the raw outputs of the network, for a batch of images of one size.

    See `ops.postprocess`, whose result this is. The host waits for the device to learn how many candidates
    the batch has, how many each image has, and how many faces there are; in the suppression of each image,
    see `greedy_choice`; and for the faces of the batch, which are one copy.

    Args:
        class_scores: For each level (B, A_level, 2) float32, background and face, all on one device, with any
            strides; so are the others.
        box_deltas: For each level (B, A_level, 4) float32.
        landmark_deltas: For each level (B, A_level, 10) float32.
        image_size_hw: Height and width in pixels of the network's input.
        config: Anchors of the network.
        scores_are: Whether class_scores are logits or probabilities (after softmax).
        variances: Positive factors of centre and size deltas.
        score_threshold: Within [0, 1]; a face has score > score_threshold.
        nms_threshold: Within [0, 1]; an IoU > nms_threshold suppresses.
        top_k: Candidates of one image that enter suppression; all if None.
        keep_top_k: Faces of one image that are returned; all if None.

    Returns:
        One `Faces` for each image, in NumPy arrays.

    Raises:
        TypeError: If a tensor is not float32 or a number is not one.
        ValueError: If a shape does not fit the image size and anchors, the tensors are on several devices, or
            a number is out of range.
    """
    levels = _levels(config, image_size_hw)
    _check_outputs(class_scores, box_deltas, landmark_deltas, levels)
    if scores_are not in ("logits", "probabilities"):
        raise ValueError(f"scores_are: expected 'logits' or 'probabilities', got {scores_are!r}")
    for variance in variances:
        if check_number(variance, "variances") <= 0:
            raise ValueError(f"variances: expected positive numbers, got {variances!r}")
    score_threshold = check_fraction(score_threshold, "score_threshold")
    nms_threshold = check_fraction(nms_threshold, "nms_threshold")
    top_k = check_optional_positive_int(top_k, "top_k")
    keep_top_k = check_optional_positive_int(keep_top_k, "keep_top_k")

    batch_size = len(class_scores[0])
    chosen = _candidates(class_scores, scores_are, score_threshold, top_k)
    if chosen is None:
        return [_faces(np.empty((0, _FACE_FLOATS), np.float32)) for _ in range(batch_size)]
    images, indices, scores, counts = chosen
    level, local, anchors = _anchors(levels, indices)
    boxes = decode_boxes(_rows(box_deltas, images, level, local), anchors, variances)
    kept = torch.zeros_like(scores, dtype=torch.bool)
    begin = 0
    for count in counts:
        end = begin + count
        # Boxes that are not finite have no area, overlap nothing, and so take no part in the choice.
        kept[begin:end] = greedy_choice(
            boxes[begin:end], round_down_to_float(nms_threshold), enough=keep_top_k
        )
        begin = end
    faces = kept.nonzero().squeeze(1)
    images, level, local, anchors = images[faces], level[faces], local[faces], anchors[faces]
    landmarks = _decode_points(
        _rows(landmark_deltas, images, level, local).view(-1, 5, 2), anchors.unsqueeze(1), variances[0]
    )
    # Images are numbered by less than 2^24, for which a float32 has a place each.
    columns = images.to(torch.float32)[:, None], boxes[faces], scores[faces, None], landmarks.flatten(1)
    rows = torch.cat(columns, dim=1).cpu().numpy()
    ends = np.searchsorted(rows[:, 0], np.arange(batch_size + 1))
    return [_faces(rows[ends[image] : ends[image + 1]]) for image in range(batch_size)]


# --- arithmetic, as in csrc/arithmetic.hpp


def exponential(x: torch.Tensor) -> torch.Tensor:
    """`exp` of csrc/arithmetic.hpp, to the last bit.

    Args:
        x: Any shape, float32.

    Returns:
        The same shape: 0 where the result would be subnormal, NaN where x is.
    """
    inside = (x >= _EXP_UNDERFLOW) & (x <= _EXP_OVERFLOW)
    safe = torch.where(inside, x, 0.0)
    n = (safe * _LOG2_E + _ROUND_MAGIC) - _ROUND_MAGIC
    r = (safe - n * _LN2_HIGH) - n * _LN2_LOW
    p = torch.full_like(r, _EXP_POLYNOMIAL[0])
    for coefficient in _EXP_POLYNOMIAL[1:]:
        p = p * r + coefficient
    y = (p * (r * r) + r) + 1.0
    exponent = n.to(torch.int32)
    half = exponent >> 1
    result = (y * _power_of_two(half)) * _power_of_two(exponent - half)
    outside = torch.where(x > _EXP_OVERFLOW, math.inf, torch.where(x < _EXP_UNDERFLOW, 0.0, x))
    return torch.where(inside, result, outside)


def _power_of_two(exponent: torch.Tensor) -> torch.Tensor:
    return ((exponent + 127) << 23).view(torch.float32)


def sigmoid(x: torch.Tensor) -> torch.Tensor:
    """1 / (1 + exp(-x)) of csrc/arithmetic.hpp, to the last bit; any shape, float32."""
    divisor = exponential(-x) + 1.0
    return torch.ones_like(divisor) / divisor


def decode_boxes(
    box_deltas: torch.Tensor, anchors: torch.Tensor, variances: tuple[float, float]
) -> torch.Tensor:
    """See `ops.decode_boxes`: (N, 4) float32 deltas and anchors cxcywh, to (N, 4) boxes xyxy, pixels."""
    centers = _decode_points(box_deltas[:, :2], anchors, variances[0])
    halves = (anchors[:, 2:] * exponential(box_deltas[:, 2:] * _as_float(variances[1]))) * 0.5
    return torch.cat((centers - halves, centers + halves), dim=1)


def _decode_points(deltas: torch.Tensor, anchors: torch.Tensor, variance: float) -> torch.Tensor:
    """Points from (…, 2) deltas of anchors (…, 4)."""
    return anchors[..., :2] + (deltas * _as_float(variance)) * anchors[..., 2:]


def _as_float(value: float) -> float:
    """The float32 that is nearest."""
    return float(np.float32(value))


def round_down_to_float(threshold: float) -> float:
    """The greatest float32 that is not above: a float32 is > either or > neither."""
    nearest = np.float32(threshold)
    return float(nearest if float(nearest) <= threshold else np.nextafter(nearest, np.float32(-np.inf)))


def _logit_bound(threshold: float) -> float:
    """A bound that all logits are above whose float32 sigmoid is > threshold, and hardly any others."""
    lower = threshold * (1.0 - 5e-7)  # more than the error of the sigmoid
    return round_down_to_float(math.log(lower / (1.0 - lower))) if lower > 0 else -math.inf


# --- candidates


class _Candidates(NamedTuple):
    images: torch.Tensor  # (N,) int64, ascending
    indices: torch.Tensor  # (N,) int64, of the anchors, over all levels
    scores: torch.Tensor  # (N,) float32, descending within an image
    counts: list[int]  # of each image


def _candidates(
    class_scores: Sequence[torch.Tensor], scores_are: str, threshold: float, top_k: int | None
) -> _Candidates | None:
    """The top_k candidates of each image in their order; None if there is none in the batch."""
    logits = scores_are == "logits"
    if logits:
        values = torch.cat([level[..., 1] - level[..., 0] for level in class_scores], dim=1)
    else:
        values = torch.cat([level[..., 1] for level in class_scores], dim=1)
    batch_size, anchors = values.shape
    score_bound = round_down_to_float(threshold)
    values = values.flatten()
    found = (values > (_logit_bound(threshold) if logits else score_bound)).nonzero().squeeze(1)
    if len(found) == 0:
        return None
    scores = sigmoid(values[found]) if logits else values[found]
    images = torch.div(found, anchors, rounding_mode="floor")
    # The bound of the logits is a little low. Scores are positive here, and their bits are in their order.
    above = scores > score_bound
    keys = torch.where(above, _INFINITY_BITS - scores.view(torch.int32).to(torch.int64), _LAST_KEY)
    order = torch.sort(keys + (images << 32), stable=True).indices
    counts = torch.zeros((2, batch_size), dtype=torch.int64, device=values.device)
    counts[0].index_add_(0, images, torch.ones_like(images))
    counts[1].index_add_(0, images, above.to(torch.int64))
    pieces, lengths, begin = [], [], 0
    for all_of_them, candidates in counts.t().tolist():
        lengths.append(candidates if top_k is None else min(candidates, top_k))
        pieces.append(order[begin : begin + lengths[-1]])
        begin += all_of_them
    order = torch.cat(pieces)
    images = images[order]
    return _Candidates(images, found[order] - images * anchors, scores[order], lengths)


# --- anchors


class _Level(NamedTuple):
    begin: int  # index of the first anchor
    anchors: int  # how many
    width: int  # cells of a row
    stride: int  # pixels
    sizes: tuple[float, ...]  # pixels, of the anchors of a cell


def _levels(config: AnchorConfig, image_size_hw: tuple[int, int]) -> list[_Level]:
    levels, begin = [], 0
    features = config.feature_sizes_hw(image_size_hw)
    for (rows, columns), stride, sizes in zip(features, config.strides, config.sizes, strict=True):
        levels.append(_Level(begin, rows * columns * len(sizes), columns, stride, sizes))
        begin += levels[-1].anchors
    return levels


def _anchors(levels: list[_Level], indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Level, index within the level, and (N, 4) float32 anchor cxcywh of each index over all levels."""
    numbers: list[list[int]] = []
    sizes: list[float] = []
    for level in levels:
        numbers.append([level.begin, level.width, level.stride, len(level.sizes), len(sizes)])
        sizes += level.sizes
    # `non_blocking`: what a pageable array holds is taken over at once, and nothing waits for the stream.
    table = torch.tensor(numbers).t().contiguous().to(indices.device, non_blocking=True)
    side = torch.tensor(sizes, dtype=torch.float32).to(indices.device, non_blocking=True)
    which = torch.bucketize(indices, table[0], right=True) - 1
    begin, width, stride, per_cell, first_size = table[:, which].unbind(0)
    local = indices - begin
    cell = torch.div(local, per_cell, rounding_mode="floor")
    row = torch.div(cell, width, rounding_mode="floor")
    place = torch.stack((cell - row * width, row), dim=1).to(torch.float32)
    centers = (place + 0.5) * stride.to(torch.float32)[:, None]
    sides = side[first_size + (local - cell * per_cell)][:, None].expand(-1, 2)
    return which, local, torch.cat((centers, sides), dim=1)


def _rows(
    outputs: Sequence[torch.Tensor], images: torch.Tensor, level: torch.Tensor, local: torch.Tensor
) -> torch.Tensor:
    """The rows of some anchors; where they are is known to the device alone, so every level is asked."""
    rows = outputs[0][images, local.clamp(max=outputs[0].shape[1] - 1)]
    for k, values in enumerate(outputs[1:], start=1):
        of_level = values[images, local.clamp(max=values.shape[1] - 1)]
        rows = torch.where((level == k)[:, None], of_level, rows)
    return rows


# --- arguments and results


def _check_outputs(
    class_scores: Sequence[torch.Tensor],
    box_deltas: Sequence[torch.Tensor],
    landmark_deltas: Sequence[torch.Tensor],
    levels: list[_Level],
) -> None:
    outputs = {"class_scores": class_scores, "box_deltas": box_deltas, "landmark_deltas": landmark_deltas}
    for (name, tensors), columns in zip(outputs.items(), (2, 4, 10), strict=True):
        if len(tensors) != len(levels):
            raise ValueError(
                f"{name}: expected {len(levels)} tensors, one for each level, got {len(tensors)}"
            )
        for k, (tensor, level) in enumerate(zip(tensors, levels, strict=True)):
            kind: object = getattr(tensor, "dtype", type(tensor).__name__)
            if kind != torch.float32:
                raise TypeError(f"{name}[{k}]: expected a float32 tensor, got {kind}")
            expected = (class_scores[0].shape[0], level.anchors, columns)
            if tensor.shape != expected:
                raise ValueError(f"{name}[{k}]: expected shape {expected}, got {tuple(tensor.shape)}")
            if tensor.device != class_scores[0].device:
                raise ValueError(
                    f"{name}[{k}]: expected to lie on {class_scores[0].device}, as class_scores[0] does, "
                    f"got {tensor.device}"
                )


def _faces(rows: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> Faces:
    boxes, scores, landmarks = rows[:, 1:5], rows[:, 5], rows[:, 6:]
    return Faces(boxes.copy(), scores.copy(), landmarks.reshape(-1, 5, 2).copy())
