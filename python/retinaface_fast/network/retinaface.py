"""The network: image in, raw outputs per pyramid level out."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from .backbones import build_backbone
from .context import ContextModule
from .fpn import FeaturePyramid

if TYPE_CHECKING:
    from .config import RetinaFaceConfig

__all__ = ["NetworkOutputs", "RetinaFace"]


class NetworkOutputs(NamedTuple):
    """Raw outputs, one tensor per pyramid level, finest first.

    The anchors of a level are ordered by row, column and size, so that the concatenation over levels is the
    order of `retinaface_fast.ops.generate_anchors`.

    Attributes:
        class_logits: Each (B, A_l, 2) float32: background, face, before the softmax.
        box_deltas: Each (B, A_l, 4) float32: centre x, centre y, log width, log height, relative to the
            anchor and divided by the variances.
        landmark_deltas: Each (B, A_l, 10) float32: x, y of the five landmarks, relative to the anchor and
            divided by the centre variance.
    """

    class_logits: tuple[torch.Tensor, ...]
    box_deltas: tuple[torch.Tensor, ...]
    landmark_deltas: tuple[torch.Tensor, ...]


class RetinaFace(nn.Module):
    """RetinaFace (Deng et al. 2019, arXiv 1905.00641): backbone, pyramid, context modules, three heads.

    Any image size from 1x1 on is accepted as it is, and the same forward serves training and inference.

    Args:
        config: What to build.
        folded: Build convolutions that carry their batch norm, for weights that `fold_batch_norm` made.

    Raises:
        MissingDependencyError: If the config wants deformable convolutions and torchvision is not installed.

    Example:
        >>> import torch
        >>> from retinaface_fast.network import CONFIGS, RetinaFace
        >>> network = RetinaFace(CONFIGS["mobilenet0.25"]).eval()
        >>> with torch.inference_mode():
        ...     outputs = network(torch.zeros(1, 3, 33, 17))
        >>> [tuple(level.shape) for level in outputs.box_deltas]
        [(1, 30, 4), (1, 12, 4), (1, 4, 4)]
    """

    def __init__(self, config: RetinaFaceConfig, *, folded: bool = False) -> None:
        super().__init__()
        self.config = config
        self.backbone = build_backbone(config.backbone, levels=config.levels, folded=folded)
        self.fpn = FeaturePyramid(config, folded=folded)
        self.context = nn.ModuleList(ContextModule(config, folded=folded) for _ in config.levels)
        self.class_head = _heads(config, 2)
        self.box_head = _heads(config, 4)
        self.landmark_head = _heads(config, 10)

    def forward(self, images: torch.Tensor) -> NetworkOutputs:
        """Run the network.

        Args:
            images: (B, 3, H, W) float32, blue, green, red, minus `config.mean_bgr`. In `torch.channels_last`
                the outputs are views, without a copy.

        Returns:
            The raw outputs of every level.
        """
        pyramid = self.fpn(self.backbone(images))
        features = [context(level) for context, level in zip(self.context, pyramid, strict=True)]
        return NetworkOutputs(
            _apply_heads(self.class_head, features, 2),
            _apply_heads(self.box_head, features, 4),
            _apply_heads(self.landmark_head, features, 10),
        )


def _heads(config: RetinaFaceConfig, numbers: int) -> nn.ModuleList:
    return nn.ModuleList(
        nn.Conv2d(config.out_channels, anchors * numbers, kernel_size=1)
        for anchors in config.anchors.anchors_per_cell
    )


def _apply_heads(
    heads: nn.ModuleList, features: list[torch.Tensor], numbers: int
) -> tuple[torch.Tensor, ...]:
    # Channels last, (B, H, W, A * numbers) is how the convolution wrote its output, so this is only a view.
    return tuple(
        head(level).permute(0, 2, 3, 1).reshape(level.shape[0], -1, numbers)
        for head, level in zip(heads, features, strict=True)
    )
