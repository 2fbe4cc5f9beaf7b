from __future__ import annotations

from collections.abc import Sequence

from ._typing import BoolArray, DoubleArray, FloatArray, IntArray, UInt8Array

class AnchorPyramid:
    def __init__(self, strides: Sequence[int], sizes: Sequence[Sequence[float]]) -> None: ...
    def num_anchors(self, image_size_hw: tuple[int, int], /) -> int: ...
    def generate(self, image_size_hw: tuple[int, int], /) -> FloatArray: ...

class NativeEngine:
    def __init__(
        self,
        tensors: dict[str, FloatArray],
        anchors: AnchorPyramid,
        variances: tuple[float, float],
        mean_bgr: tuple[float, float, float],
        backbone_slope: float,
        neck_slope: float,
        threads: int,
    ) -> None: ...
    @property
    def threads(self) -> int: ...
    def run(
        self, images: UInt8Array, rgb: bool
    ) -> tuple[list[FloatArray], list[FloatArray], list[FloatArray]]: ...
    def detect(
        self,
        image: UInt8Array,
        rgb: bool,
        score_threshold: float,
        nms_threshold: float,
        top_k: int | None,
        keep_top_k: int | None,
    ) -> tuple[FloatArray, FloatArray, FloatArray, float]: ...

def available_processors() -> int: ...
def simd_level() -> str: ...
def simd_levels() -> list[str]: ...
def decode_boxes(
    box_deltas: FloatArray, anchors: FloatArray, variances: Sequence[float], /
) -> FloatArray: ...
def decode_landmarks(
    landmark_deltas: FloatArray, anchors: FloatArray, variances: Sequence[float], /
) -> FloatArray: ...
def encode_boxes(boxes: FloatArray, anchors: FloatArray, variances: Sequence[float], /) -> FloatArray: ...
def encode_landmarks(
    landmarks: FloatArray, anchors: FloatArray, variances: Sequence[float], /
) -> FloatArray: ...
def clip_boxes(boxes: FloatArray, image_size_hw: tuple[int, int], /) -> FloatArray: ...
def box_iou(boxes1: FloatArray, boxes2: FloatArray, /) -> FloatArray: ...
def assign_anchors(
    anchors: FloatArray,
    boxes: FloatArray,
    ignored: BoolArray | None,
    positive_iou: float,
    negative_iou: float,
    force: bool,
    force_min_iou: float,
    /,
) -> IntArray: ...
def match_boxes(
    predictions: DoubleArray,
    prediction_offsets: IntArray,
    boxes: DoubleArray,
    box_offsets: IntArray,
    /,
) -> tuple[IntArray, DoubleArray]: ...
def nms(
    boxes: FloatArray,
    scores: FloatArray,
    iou_threshold: float,
    top_k: int | None,
    keep_top_k: int | None,
    /,
) -> IntArray: ...
def vote_boxes(
    boxes: FloatArray, scores: FloatArray, landmarks: FloatArray | None, iou_threshold: float, /
) -> tuple[FloatArray, FloatArray, FloatArray | None, FloatArray, IntArray]: ...
def postprocess(
    pyramid: AnchorPyramid,
    class_scores: FloatArray | Sequence[FloatArray],
    box_deltas: FloatArray | Sequence[FloatArray],
    landmark_deltas: FloatArray | Sequence[FloatArray],
    image_size_hw: tuple[int, int],
    probabilities: bool,
    variances: Sequence[float],
    score_threshold: float,
    nms_threshold: float,
    top_k: int | None,
    keep_top_k: int | None,
    threads: int,
    /,
) -> list[tuple[FloatArray, FloatArray, FloatArray]]: ...
