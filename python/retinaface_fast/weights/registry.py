"""The published weights: where they are, what they are, under which licence, how well they do."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["REGISTRY", "RegistryEntry", "WeightsFormat"]

WeightsFormat: TypeAlias = Literal["onnx", "pth", "safetensors"]


@dataclass(frozen=True, slots=True)
class RegistryEntry:
    """One file of published weights.

    Attributes:
        name: Name under which `load_weights` and `FaceDetector` know it.
        url: Where the publisher offers it.
        sha256: Digest that the file must have, hexadecimal.
        size_bytes: Length of the file, where known.
        licence: Licence under which it is published (SPDX) and whose it is.
        ap: Published average precision on WIDER FACE val at original size (easy, medium, hard), in percent.
        format: How the file is encoded.
        config_name: Key of `retinaface_fast.network.CONFIGS`.
    """

    name: str
    url: str
    sha256: str
    size_bytes: int | None
    licence: str
    ap: tuple[float, float, float]
    format: WeightsFormat
    config_name: str

    @property
    def filename(self) -> str:
        """Last part of the url.

        >>> REGISTRY["resnet18"].filename
        'retinaface_r18.onnx'
        """
        return self.url.rpartition("/")[2]


_UNIFACE = "https://github.com/yakhyo/uniface/releases/download/weights/"
_UNIFACE_LICENCE = "MIT (Yakhyokhuja Valikhujaev, yakhyo/retinaface-pytorch)"
_FACEXLIB = "https://github.com/xinntao/facexlib/releases/download/v0.1.0/"
_FACEXLIB_LICENCE = "MIT (biubug6/Pytorch_Retinaface)"

# The digests of the uniface files are that project's own. Facexlib publishes none: those two are what several
# independent package recipes and lock files recorded for the same release assets, and all of them agree.
_ENTRIES = (
    RegistryEntry(
        name="mobilenet0.25",
        url=_UNIFACE + "retinaface_mv1_0.25.onnx",
        sha256="b7a7acab55e104dce6f32cdfff929bd83946da5cd869b9e2e9bdffafd1b7e4a5",
        size_bytes=1_736_694,
        licence=_UNIFACE_LICENCE,
        ap=(90.70, 88.12, 73.82),
        format="onnx",
        config_name="mobilenet0.25",
    ),
    RegistryEntry(
        name="mobilenet0.5",
        url=_UNIFACE + "retinaface_mv1_0.50.onnx",
        sha256="d8977186f6037999af5b4113d42ba77a84a6ab0c996b17c713cc3d53b88bfc37",
        size_bytes=None,
        licence=_UNIFACE_LICENCE,
        ap=(91.56, 89.46, 76.56),
        format="onnx",
        config_name="mobilenet0.5",
    ),
    RegistryEntry(
        name="mobilenet1.0",
        url=_UNIFACE + "retinaface_mv1.onnx",
        sha256="75c961aaf0aff03d13c074e9ec656e5510e174454dd4964a161aab4fe5f04153",
        size_bytes=None,
        licence=_UNIFACE_LICENCE,
        ap=(92.19, 90.41, 79.56),
        format="onnx",
        config_name="mobilenet1.0",
    ),
    RegistryEntry(
        name="resnet18",
        url=_UNIFACE + "retinaface_r18.onnx",
        sha256="e8b5ddd7d2c3c8f7c942f9f10cec09d8e319f78f09725d3f709631de34fb649d",
        size_bytes=None,
        licence=_UNIFACE_LICENCE,
        ap=(94.28, 92.69, 82.95),
        format="onnx",
        config_name="resnet18",
    ),
    RegistryEntry(
        name="resnet34",
        url=_UNIFACE + "retinaface_r34.onnx",
        sha256="bd0263dc2a465d32859555cb1741f2d98991eb0053696e8ee33fec583d30e630",
        size_bytes=None,
        licence=_UNIFACE_LICENCE,
        ap=(95.07, 93.48, 84.40),
        format="onnx",
        config_name="resnet34",
    ),
    RegistryEntry(
        name="resnet50",
        url=_FACEXLIB + "detection_Resnet50_Final.pth",
        sha256="6d1de9c2944f2ccddca5f5e010ea5ae64a39845a86311af6fdf30841b0a5a16d",
        size_bytes=109_497_761,
        licence=_FACEXLIB_LICENCE,
        ap=(95.48, 94.04, 84.43),
        format="pth",
        config_name="resnet50",
    ),
    RegistryEntry(
        name="mobilenet0.25-biubug6",
        url=_FACEXLIB + "detection_mobilenet0.25_Final.pth",
        sha256="2979b33ffafda5d74b6948cd7a5b9a7a62f62b949cef24e95fd15d2883a65220",
        size_bytes=1_789_735,
        licence=_FACEXLIB_LICENCE,
        ap=(90.70, 88.16, 73.82),
        format="pth",
        config_name="mobilenet0.25",
    ),
)

#: Every published file that this package can load, by name.
REGISTRY: Mapping[str, RegistryEntry] = MappingProxyType({entry.name: entry for entry in _ENTRIES})
