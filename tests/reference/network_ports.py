"""Networks whose modules are named as in the published PyTorch ports, to make checkpoints and ONNX files of.

`flat` names MobileNet blocks and heads like biubug6/Pytorch_Retinaface, otherwise they are named like
yakhyo/retinaface-pytorch. Weights are random. The forward returns what the ports return in evaluation: box
deltas, probabilities, landmark deltas, each joined over the levels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

RESNETS = {18: ((2, 2, 2, 2), 2), 34: ((3, 4, 6, 3), 2), 50: ((3, 4, 6, 3), 3), 152: ((3, 8, 36, 3), 3)}


def unit(i: int, o: int, k: int, s: int = 1, *, g: int = 1, slope: float | None = 0.1) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(i, o, k, s, k // 2, groups=g, bias=False), nn.BatchNorm2d(o)]
    if slope is not None:
        layers.append(nn.LeakyReLU(slope))
    return nn.Sequential(*layers)


def separable(i: int, o: int, s: int, *, flat: bool) -> nn.Sequential:
    first, second = unit(i, i, 3, s, g=i), unit(i, o, 1)
    return nn.Sequential(*first, *second) if flat else nn.Sequential(first, second)


class MobileNet(nn.Module):
    def __init__(self, base: int, *, flat: bool, classifier: bool) -> None:
        super().__init__()
        widths = [base, 2 * base, 4 * base, 4 * base, 8 * base, 8 * base, *6 * [16 * base], *2 * [32 * base]]
        strides = [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1]
        blocks = [separable(i, o, s, flat=flat) for i, o, s in zip(widths, widths[1:], strides, strict=False)]
        self.stage1 = nn.Sequential(unit(3, base, 3, 2), *blocks[:5])
        self.stage2 = nn.Sequential(*blocks[5:11])
        self.stage3 = nn.Sequential(*blocks[11:])
        if classifier:
            self.fc = nn.Linear(32 * base, 10)
        self.channels = [8 * base, 16 * base, 32 * base]

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        c3 = self.stage1(x)
        c4 = self.stage2(c3)
        return [c3, c4, self.stage3(c4)]


class Block(nn.Module):
    def __init__(self, i: int, width: int, s: int, convs: int) -> None:
        super().__init__()
        self.convs = convs
        o = width if convs == 2 else 4 * width
        shapes = [(i, width, 3, s), (width, o, 3, 1)] if convs == 2 else [
            (i, width, 1, 1), (width, width, 3, s), (width, o, 1, 1)
        ]  # fmt: skip
        for n, (ci, co, k, cs) in enumerate(shapes, start=1):
            setattr(self, f"conv{n}", nn.Conv2d(ci, co, k, cs, k // 2, bias=False))
            setattr(self, f"bn{n}", nn.BatchNorm2d(co))
        self.downsample = None
        if s != 1 or i != o:
            self.downsample = nn.Sequential(nn.Conv2d(i, o, 1, s, bias=False), nn.BatchNorm2d(o))
        self.out = o

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        for n in range(1, self.convs + 1):
            y = getattr(self, f"bn{n}")(getattr(self, f"conv{n}")(y))
            if n < self.convs:
                y = F.relu(y)
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    def __init__(self, depth: int, *, classifier: bool) -> None:
        super().__init__()
        counts, convs = RESNETS[depth]
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        channels, self.channels = 64, []
        for stage, count in enumerate(counts):
            blocks = []
            for n in range(count):
                blocks.append(Block(channels, 64 << stage, 2 if stage and n == 0 else 1, convs))
                channels = blocks[-1].out
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
            self.channels.append(channels)
        self.channels = self.channels[1:]
        if classifier:
            self.fc = nn.Linear(channels, 10)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        c3 = self.layer2(self.layer1(x))
        c4 = self.layer3(c3)
        return [c3, c4, self.layer4(c4)]


class Pyramid(nn.Module):
    def __init__(self, channels: list[int], out: int) -> None:
        super().__init__()
        slope = 0.1 if out <= 64 else 0.0
        for n, c in enumerate(channels, start=1):
            setattr(self, f"output{n}", unit(c, out, 1, slope=slope))
        self.merge1 = unit(out, out, 3, slope=slope)
        self.merge2 = unit(out, out, 3, slope=slope)

    def forward(self, c: list[torch.Tensor]) -> list[torch.Tensor]:
        p3, p4, p5 = self.output1(c[0]), self.output2(c[1]), self.output3(c[2])
        p4 = self.merge2(p4 + F.interpolate(p5, size=[p4.size(2), p4.size(3)], mode="nearest"))
        p3 = self.merge1(p3 + F.interpolate(p4, size=[p3.size(2), p3.size(3)], mode="nearest"))
        return [p3, p4, p5]


class Context(nn.Module):
    def __init__(self, out: int, *, twice: bool) -> None:
        super().__init__()
        slope = 0.1 if out <= 64 else 0.0
        quarter = out // 4
        self.conv3X3 = unit(out, out // 2, 3, slope=None)
        self.conv5X5_1 = unit(out, quarter, 3, slope=slope)
        self.conv5X5_2 = unit(quarter, quarter, 3, slope=None)
        self.conv7X7_2 = unit(quarter, quarter, 3, slope=slope)
        self.conv7x7_3 = unit(quarter, quarter, 3, slope=None)
        self.twice = twice

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        five = self.conv5X5_1(x)
        again = self.conv5X5_1(x) if self.twice else five  # exported as two convolutions with equal weights
        return F.relu(
            torch.cat([self.conv3X3(x), self.conv5X5_2(five), self.conv7x7_3(self.conv7X7_2(again))], dim=1)
        )


class FlatHead(nn.Module):
    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.conv1x1 = nn.Conv2d(i, o, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv1x1(x)


class Port(nn.Module):
    """A whole network.

    Args:
        backbone: "mobilenet" with the channels of its stem as `size`, or "resnet" with its depth.
        size: See `backbone`.
        out: Channels of the pyramid.
        flat: Which port's names; see above.
        classifier: Whether the backbone keeps the classifier that is never run.
    """

    def __init__(self, backbone: str, size: int, out: int, *, flat: bool, classifier: bool = False) -> None:
        super().__init__()
        body = (
            MobileNet(size, flat=flat, classifier=classifier)
            if backbone == "mobilenet"
            else ResNet(size, classifier=classifier)
        )
        self.flat = flat
        setattr(self, "body" if flat else "fx", body)
        self.fpn = Pyramid(body.channels, out)
        for n in (1, 2, 3):
            setattr(self, f"ssh{n}", Context(out, twice=not flat))
        self.kinds = (
            ("BboxHead", "bbox_head", 4),
            ("ClassHead", "class_head", 2),
            ("LandmarkHead", "landmark_head", 10),
        )
        for flat_name, nested_name, numbers in self.kinds:
            if flat:
                setattr(self, flat_name, nn.ModuleList(FlatHead(out, 2 * numbers) for _ in range(3)))
            else:
                head = nn.Module()
                setattr(head, nested_name, nn.ModuleList(nn.Conv2d(out, 2 * numbers, 1) for _ in range(3)))
                setattr(self, nested_name, head)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        levels = self.fpn(self.body(x) if self.flat else self.fx(x))
        levels = [getattr(self, f"ssh{n}")(level) for n, level in enumerate(levels, start=1)]
        outputs = []
        for flat_name, nested_name, numbers in self.kinds:
            heads = (
                getattr(self, flat_name) if self.flat else getattr(getattr(self, nested_name), nested_name)
            )
            values = [
                h(level).permute(0, 2, 3, 1).contiguous() for h, level in zip(heads, levels, strict=True)
            ]
            outputs.append(torch.cat([v.view(v.shape[0], -1, numbers) for v in values], dim=1))
        return outputs[0], F.softmax(outputs[1], dim=-1), outputs[2]


def random_port(
    backbone: str, size: int, out: int, *, flat: bool, classifier: bool = False, seed: int = 0
) -> Port:
    """A port with random weights and batch norm statistics, in evaluation mode; signals stay moderate."""
    generator = torch.Generator().manual_seed(seed)
    port = Port(backbone, size, out, flat=flat, classifier=classifier).eval()
    with torch.no_grad():
        for module in port.modules():
            if isinstance(module, nn.Conv2d):
                fan_in = module.weight[0].numel()
                module.weight.normal_(0.0, (1.6 / fan_in) ** 0.5, generator=generator)
                if module.bias is not None:
                    module.bias.normal_(0.0, 0.5, generator=generator)
            elif isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.6, 1.2, generator=generator)
                module.bias.normal_(0.0, 0.2, generator=generator)
                module.running_mean.normal_(0.0, 0.3, generator=generator)
                module.running_var.uniform_(0.5, 2.0, generator=generator)
    return port
