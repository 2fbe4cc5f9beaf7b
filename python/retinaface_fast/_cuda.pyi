from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ._typing import FloatArray

on_cpu: bool

class DeviceArray:
    @property
    def __cuda_array_interface__(self) -> dict[str, Any]: ...
    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...

class DeviceFaces:
    @property
    def device(self) -> int: ...
    @property
    def stream(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def capacity(self) -> int: ...
    @property
    def offsets(self) -> DeviceArray: ...
    @property
    def rows(self) -> DeviceArray: ...
    def to_host(self) -> list[tuple[FloatArray, FloatArray, FloatArray]]: ...

def device_count() -> int: ...
def obstacle(device: int, /) -> str: ...
def architectures() -> list[str]: ...
def postprocess(
    strides: Sequence[int],
    sizes: Sequence[Sequence[float]],
    class_scores: object,
    box_deltas: object,
    landmark_deltas: object,
    image_size_hw: tuple[int, int],
    probabilities: bool,
    variances: Sequence[float],
    score_threshold: float,
    nms_threshold: float,
    top_k: int | None,
    keep_top_k: int | None,
    stream: object,
    /,
) -> DeviceFaces: ...
