"""The multi-task loss of RetinaFace: class, box, landmarks and, where one is given, a dense term."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from retinaface_fast.network.retinaface import NetworkOutputs

from .batch import BatchTargets

if TYPE_CHECKING:
    from .recipe import LossSection

__all__ = ["DenseTerm", "LossTerms", "MultiTaskLoss"]

#: A further term: a scalar from what the network said and what it should have said.
DenseTerm: TypeAlias = Callable[[NetworkOutputs, BatchTargets], Tensor]


class LossTerms(NamedTuple):
    """The loss and its terms, scalars; the terms are without their weights.

    Attributes:
        total: Weighted sum of the terms, to call `backward` on.
        classification: Cross-entropy of the face anchors and the hardest background anchors.
        box: Smooth L1 of the box deltas of the face anchors.
        landmark: Smooth L1 of the known landmark deltas of the face anchors.
        dense: What the dense term says; 0 without one.
    """

    total: Tensor
    classification: Tensor
    box: Tensor
    landmark: Tensor
    dense: Tensor


class MultiTaskLoss(nn.Module):
    """The loss of a batch (Deng et al. 2019, arXiv 1905.00641, equation 1, with the hard negatives of SSD).

    The class term is the cross-entropy over background and face. All face anchors take part, and from each
    picture `config.negatives_per_positive` background anchors for each of its face anchors, rounded down, or
    `config.min_negatives` if that is more: those with the highest loss, as many as there are. Anchors
    labelled -1 take no part. The box term is smooth L1 summed over four numbers and all face anchors, the
    landmark term smooth L1 summed over x and y of the landmarks that are known.

    Args:
        config: The weights, the number of negatives and where smooth L1 turns linear.
        dense: A further term; it is given outputs and targets as `forward` was, and normalises by itself.
    """

    def __init__(self, config: LossSection, *, dense: DenseTerm | None = None) -> None:
        super().__init__()
        self.config = config
        self.dense = dense

    def forward(
        self,
        outputs: NetworkOutputs,
        targets: BatchTargets,
        *,
        positives: float | Tensor | None = None,
        landmark_faces: float | Tensor | None = None,
    ) -> LossTerms:
        """Compare what the network says with what it should say.

        Everything is computed in float32, also under autocast, or in float64 where the outputs are that.
        Terms of parts of a batch, given the normalisers of the whole, add up to those of the whole.

        Args:
            outputs: Of the network, for B pictures with A anchors.
            targets: Of the same pictures.
            positives: What the sums of the class and box terms are divided by: face anchors of the whole
                batch, at least 1. Those of `targets` if None.
            landmark_faces: What the sum of the landmark term is divided by: face anchors of the whole batch
                with any known landmark, at least 1. Those of `targets` if None.

        Returns:
            The loss and its terms.

        Raises:
            ValueError: Outputs and targets are of different numbers of pictures or anchors.
        """
        if positives is None:
            positives = float(len(targets.positives))
        if landmark_faces is None:
            landmark_faces = targets.landmark_mask.any(dim=1).sum()
        config = self.config
        with torch.autocast(outputs.class_logits[0].device.type, enabled=False):
            logits = _whole(outputs.class_logits)
            if logits.shape[:2] != targets.labels.shape:
                raise ValueError(
                    f"targets: expected labels of shape {tuple(logits.shape[:2])}, as the outputs are, "
                    f"got {tuple(targets.labels.shape)}"
                )
            classification = self._class_sum(logits, targets) / _at_least_one(positives)
            box = functional.smooth_l1_loss(
                _rows(outputs.box_deltas, targets.positives),
                targets.box_deltas,
                reduction="sum",
                beta=config.box_beta,
            ) / _at_least_one(positives)
            landmark = self._landmark_sum(outputs, targets) / _at_least_one(landmark_faces)
            dense = box.new_zeros(()) if self.dense is None else self.dense(outputs, targets)
            total = (
                config.class_weight * classification
                + config.box_weight * box
                + config.landmark_weight * landmark
                + config.dense_weight * dense
            )
        return LossTerms(total, classification, box, landmark, dense)

    def _class_sum(self, logits: Tensor, targets: BatchTargets) -> Tensor:
        # Of two classes, the cross-entropy is softplus of the wrong logit less the right one. It rises with
        # that difference, which therefore orders the negatives as the loss would.
        margin = (logits[:, :, 1] - logits[:, :, 0]).flatten()
        negatives = self._hard_negatives(margin.detach().view_as(targets.labels), targets)
        wrong = torch.cat([-margin.index_select(0, targets.positives), margin.index_select(0, negatives)])
        return functional.softplus(wrong).sum()

    @torch.no_grad()
    def _hard_negatives(self, margin: Tensor, targets: BatchTargets) -> Tensor:
        """(N,) int64 into the flattened labels; margin (B, A) of face over background."""
        background = targets.labels == 0
        faces = (targets.labels == 1).sum(dim=1)
        wanted = (faces * self.config.negatives_per_positive).long().clamp(min=self.config.min_negatives)
        wanted = torch.minimum(wanted, background.sum(dim=1))
        # One wait for the device in each step, so that only as many are ordered as are wanted: of 16 pictures
        # of 640 x 640 with up to 20 faces, on one thread, in 4 ms; to sort all anchors takes 23 ms.
        most = int(wanted.max()) if len(wanted) else 0
        order = margin.masked_fill(~background, -torch.inf).topk(most, dim=1).indices
        taken = torch.arange(most, device=order.device) < wanted[:, None]
        first = torch.arange(len(order), device=order.device)[:, None] * margin.shape[1]
        return (order + first)[taken]

    def _landmark_sum(self, outputs: NetworkOutputs, targets: BatchTargets) -> Tensor:
        losses = functional.smooth_l1_loss(
            _rows(outputs.landmark_deltas, targets.positives),
            targets.landmark_deltas,
            reduction="none",
            beta=self.config.landmark_beta,
        )
        return losses.masked_fill(~targets.landmark_mask.repeat_interleave(2, dim=1), 0).sum()


def _whole(levels: tuple[Tensor, ...]) -> Tensor:
    """(B, A, K) of all levels, in float32 unless it is float64."""
    values = torch.cat(levels, dim=1)
    return values if values.dtype == torch.float64 else values.float()


def _rows(levels: tuple[Tensor, ...], rows: Tensor) -> Tensor:
    return _whole(levels).flatten(0, 1).index_select(0, rows)


def _at_least_one(value: float | Tensor) -> float | Tensor:
    return value.clamp(min=1) if isinstance(value, Tensor) else max(value, 1.0)
