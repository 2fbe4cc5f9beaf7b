"""Post-processing in torch, on whatever device the raw outputs lie: what `ops.postprocess` does, bit for bit.

The arithmetic is that of `torch_arithmetic`. The order of candidates, by score and by index where scores are
equal, leaves nothing to the order in which threads come. The images of a batch are worked on together, as
rows of the length that the longest needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch

from retinaface_fast._validation import check_fraction, check_number, check_optional_positive_int
from retinaface_fast.ops.postprocess import Faces

from .torch_arithmetic import decode_boxes, decode_points, logit_bound, round_down_to_float, sigmoid
from .torch_nms import greedy_choice, places_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retinaface_fast.anchor_config import AnchorConfig

__all__ = ["postprocess"]

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

    See `ops.postprocess`, whose result this is. The host waits for the device three times, to learn how many
    candidates each image has, how many faces there are, and for the faces, which are one copy; and in the
    suppression, see `greedy_choice`: for a batch as often as for its longest image, or, in smaller blocks,
    a few times more.

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
    level, local, anchors = _anchors(levels, chosen.indices)
    images = torch.arange(batch_size, device=level.device)[:, None]
    boxes = decode_boxes(_rows(box_deltas, images, level, local), anchors, variances)
    kept = greedy_choice(boxes, chosen.exist, round_down_to_float(nms_threshold), enough=keep_top_k)
    images, places = kept.nonzero().unbind(1)
    faces = images, places
    level, local, anchors = level[faces], local[faces], anchors[faces]
    landmarks = decode_points(
        _rows(landmark_deltas, images, level, local).view(-1, 5, 2), anchors.unsqueeze(1), variances[0]
    )
    scores = chosen.scores[faces][:, None]
    # Images are numbered by less than 2^24, for which a float32 has a place each.
    columns = images.to(torch.float32)[:, None], boxes[faces], scores, landmarks.flatten(1)
    rows = torch.cat(columns, dim=1).cpu().numpy()
    ends = np.searchsorted(rows[:, 0], np.arange(batch_size + 1))
    return [_faces(rows[ends[image] : ends[image + 1]]) for image in range(batch_size)]


# --- candidates


class _Candidates(NamedTuple):
    """A row for each image, the best candidate first; behind its last one is padding."""

    indices: torch.Tensor  # (B, N) int64, of the anchors, over all levels; of any anchor in the padding
    scores: torch.Tensor  # (B, N) float32
    exist: torch.Tensor  # (B, N) bool; False in the padding


def _candidates(
    class_scores: Sequence[torch.Tensor], scores_are: str, threshold: float, top_k: int | None
) -> _Candidates | None:
    """The top_k candidates of each image in their order; None if there is none in the batch."""
    logits = scores_are == "logits"
    if logits:
        values = torch.cat([level[..., 1] - level[..., 0] for level in class_scores], dim=1)
    else:
        values = torch.cat([level[..., 1] for level in class_scores], dim=1)
    anchors = values.shape[1]
    score_bound = round_down_to_float(threshold)
    found = values > (logit_bound(threshold) if logits else score_bound)
    most = max(found.sum(dim=1, dtype=torch.int32).tolist(), default=0)
    if most == 0:
        return None
    indices = places_of(found, most)
    exist = indices < anchors
    indices = indices.clamp_(max=anchors - 1)
    scores = values.gather(1, indices)
    if logits:
        scores = sigmoid(scores)
    # The bound of the logits is a little low. Scores that are above the threshold are positive.
    scores = torch.where(exist & (scores > score_bound), scores, 0.0)
    scores, order = torch.sort(scores, dim=1, descending=True, stable=True)
    scores, order = scores[:, :top_k], order[:, :top_k]
    return _Candidates(indices.gather(1, order), scores, scores > 0)


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
    """Level, index within the level, and anchor (…, 4) float32 cxcywh of each index over all levels."""
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
    place = torch.stack((cell - row * width, row), dim=-1).to(torch.float32)
    centers = (place + 0.5) * stride.to(torch.float32)[..., None]
    sides = side[first_size + (local - cell * per_cell)][..., None].expand_as(centers)
    return which, local, torch.cat((centers, sides), dim=-1)


def _rows(
    outputs: Sequence[torch.Tensor], images: torch.Tensor, level: torch.Tensor, local: torch.Tensor
) -> torch.Tensor:
    """The rows of some anchors; where they are is known to the device alone, so every level is asked."""
    rows = outputs[0][images, local.clamp(max=outputs[0].shape[1] - 1)]
    for k, values in enumerate(outputs[1:], start=1):
        of_level = values[images, local.clamp(max=values.shape[1] - 1)]
        rows = torch.where((level == k)[..., None], of_level, rows)
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
