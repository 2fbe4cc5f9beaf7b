from __future__ import annotations

import dataclasses
import threading
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from retinaface_fast.anchor_config import P2_P6, P3_P5, AnchorConfig
from retinaface_fast.engines import Engine, RawOutputs, create_engine
from retinaface_fast.network import CONFIGS, ContextConfig, RetinaFaceConfig
from tests.reference import network_numpy
from tests.weights.published import random_weights

if TYPE_CHECKING:
    from pathlib import Path

    from retinaface_fast.weights import ModelWeights

UInt8Array = npt.NDArray[np.uint8]
NAMES = ["native", "torch", "onnxruntime"]
SMALL = CONFIGS["mobilenet0.25"]
VARIANTS = [
    SMALL,
    CONFIGS["mobilenet0.5"],
    CONFIGS["mobilenet1.0"],
    dataclasses.replace(
        SMALL, name="plain ReLU", backbone=dataclasses.replace(SMALL.backbone, negative_slope=0.0)
    ),
    CONFIGS["resnet18"],
    CONFIGS["resnet50"],
    dataclasses.replace(SMALL, name="unshared", context=ContextConfig(share_first=False)),
    dataclasses.replace(CONFIGS["resnet18"], name="five levels", anchors=P2_P6),
]


#: What `native` runs of them.
NATIVE = {"mobilenet0.25", "mobilenet0.5", "mobilenet1.0", "plain ReLU"}

#: Of the range of a head's outputs. Winograd's transforms cost `native` digits.
TOLERANCE = {"native": 5e-5, "torch": 2e-5, "onnxruntime": 2e-5}


def make(name: str, weights: ModelWeights) -> Engine:
    if name == "torch":
        pytest.importorskip("torch")
    if name == "onnxruntime":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnx")
    return create_engine(name, weights, device="cpu")


@pytest.fixture(scope="module", params=NAMES)
def engine(request: pytest.FixtureRequest) -> Engine:
    return make(request.param, random_weights(SMALL))


def arrays(outputs: RawOutputs) -> list[npt.NDArray[np.float32]]:
    return [*outputs.class_scores, *outputs.box_deltas, *outputs.landmark_deltas]


def noise(*shape: int, seed: int = 0) -> UInt8Array:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def assert_equal(outputs: RawOutputs, expected: RawOutputs) -> None:
    for array, expected_array in zip(arrays(outputs), arrays(expected), strict=True):
        np.testing.assert_array_equal(array, expected_array)


def assert_close(found: list[Any], expected: list[Any], *, relative: float) -> None:
    """Within `relative` of the range that the expected values span over all levels."""
    spread = max(level.max() for level in expected) - min(level.min() for level in expected)
    for level, expected_level in zip(found, expected, strict=True):
        np.testing.assert_allclose(level, expected_level, rtol=0, atol=relative * spread)


def test_describe_themselves(engine: Engine) -> None:
    assert isinstance(engine, Engine)
    assert engine.device == "cpu"
    assert engine.name in repr(engine).lower() or engine.name == "onnxruntime"
    assert "mobilenet0.25" in repr(engine)


@pytest.mark.parametrize("size_hw", [(1, 1), (50, 37)])
@pytest.mark.parametrize(
    ("name", "config"),
    [(name, config) for name in NAMES for config in VARIANTS if name != "native" or config.name in NATIVE],
    ids=lambda value: getattr(value, "name", value),
)
def test_agree_with_the_oracle(name: str, config: RetinaFaceConfig, size_hw: tuple[int, int]) -> None:
    weights = random_weights(config)
    engine = make(name, weights)
    images = noise(2, *size_hw, 3)
    expected = network_numpy.forward(weights.tensors, config, images)
    for color, given in (("bgr", images), ("rgb", np.ascontiguousarray(images[..., ::-1]))):
        outputs = engine.run(given, color=color)  # type: ignore[arg-type]
        assert outputs.scores_are == "logits"
        assert_close([*outputs.class_scores], expected[0], relative=TOLERANCE[name])
        assert_close([*outputs.box_deltas], expected[1], relative=TOLERANCE[name])
        assert_close([*outputs.landmark_deltas], expected[2], relative=TOLERANCE[name])


def photographs(wider_dir: Path) -> list[UInt8Array]:
    names = (wider_dir / "images.txt").read_text().split()
    paths = [wider_dir / "images" / f"{name.removesuffix('.jpg')}.jpg" for name in names[:: len(names) // 2]]
    images = [cv2.imread(str(path)) for path in paths[:2]]
    return [np.asarray(image, dtype=np.uint8) for image in images if image is not None]


def assert_agrees_with_published(
    engine: Engine, session: Any, image: UInt8Array, config: RetinaFaceConfig
) -> None:
    outputs = engine.run(image[None], color="bgr")
    pixels = (image.astype(np.float32) - np.array(config.mean_bgr, np.float32)).transpose(2, 0, 1)[None]
    boxes, probabilities, landmarks = session.run(["loc", "conf", "landmarks"], {"input": pixels})
    logits = np.concatenate(outputs.class_scores, axis=1).astype(np.float64)
    exponentials = np.exp(logits - logits.max(axis=2, keepdims=True))
    assert_close([exponentials / exponentials.sum(axis=2, keepdims=True)], [probabilities], relative=1e-4)
    assert_close([np.concatenate(outputs.box_deltas, axis=1)], [boxes], relative=1e-4)
    assert_close([np.concatenate(outputs.landmark_deltas, axis=1)], [landmarks], relative=1e-4)


SIZES_WH = [(640, 480), (333, 217), (1, 1), (1920, 1080)]


@pytest.mark.parametrize("size_wh", SIZES_WH, ids=lambda size: "x".join(map(str, size)))
@pytest.mark.parametrize("name", NAMES)
def test_agree_with_the_published_graph(
    name: str,
    size_wh: tuple[int, int],
    published_onnx: Path,
    published_weights: ModelWeights,
    astronaut_bgr: UInt8Array,
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(published_onnx, providers=["CPUExecutionProvider"])
    image = np.asarray(cv2.resize(astronaut_bgr, size_wh), dtype=np.uint8)
    engine = make(name, published_weights)
    assert_agrees_with_published(engine, session, image, published_weights.config)


@pytest.mark.parametrize("name", NAMES)
def test_agree_with_the_published_graph_on_photographs(
    name: str, published_onnx: Path, published_weights: ModelWeights, wider_dir: Path
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(published_onnx, providers=["CPUExecutionProvider"])
    engine = make(name, published_weights)
    images = photographs(wider_dir)
    assert images
    for image in images:
        assert_agrees_with_published(engine, session, image, published_weights.config)
        for width, height in SIZES_WH[:3]:
            resized = np.asarray(cv2.resize(image, (width, height)), dtype=np.uint8)
            assert_agrees_with_published(engine, session, resized, published_weights.config)


@pytest.mark.parametrize("size_hw", [(1, 1), (7, 300), (33, 65), (480, 640)])
def test_shapes_are_those_of_the_anchors(engine: Engine, size_hw: tuple[int, int]) -> None:
    outputs = engine.run(noise(2, *size_hw, 3), color="bgr")
    cells = SMALL.anchors.feature_sizes_hw(size_hw)
    for levels, numbers in (
        (outputs.class_scores, 2),
        (outputs.box_deltas, 4),
        (outputs.landmark_deltas, 10),
    ):
        assert [level.shape for level in levels] == [(2, h * w * 2, numbers) for h, w in cells]


def test_outputs_need_no_copy(engine: Engine) -> None:
    for array in arrays(engine.run(noise(2, 64, 96, 3), color="bgr")):
        assert array.dtype == np.float32
        assert array.flags.c_contiguous
        assert array.flags.aligned


def test_earlier_outputs_stay(engine: Engine) -> None:
    images = noise(1, 64, 96, 3)
    first = engine.run(images, color="bgr")
    kept = [array.copy() for array in arrays(first)]
    engine.run(255 - images, color="bgr")
    for array, kept_array in zip(arrays(first), kept, strict=True):
        np.testing.assert_array_equal(array, kept_array)


def test_a_batch_is_its_images(engine: Engine) -> None:
    images = noise(3, 61, 83, 3)
    together = arrays(engine.run(images, color="bgr"))
    for index in range(3):
        alone = arrays(engine.run(images[index : index + 1], color="bgr"))
        for array, alone_array in zip(together, alone, strict=True):
            np.testing.assert_array_equal(array[index : index + 1], alone_array)


def test_any_strides_and_read_only_images(engine: Engine) -> None:
    big = noise(2, 70, 90, 3)
    images = np.ascontiguousarray(big[:, 5:55, 7:80])
    expected = engine.run(images, color="bgr")
    read_only = images.copy()
    read_only.flags.writeable = False
    views = {
        "crop": big[:, 5:55, 7:80],
        "read-only": read_only,
        "flipped": np.ascontiguousarray(images[:, :, ::-1])[:, :, ::-1],
        "channels first": np.ascontiguousarray(images.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1),
        "exchanged": np.ascontiguousarray(images[..., ::-1])[..., ::-1],
        "broadcast": np.broadcast_to(images[:1], images.shape),
    }
    for kind, view in views.items():
        if kind == "broadcast":
            assert_equal(engine.run(view, color="bgr"), engine.run(view.copy(), color="bgr"))
        else:
            assert_equal(engine.run(view, color="bgr"), expected)


def test_images_are_not_written_to(engine: Engine) -> None:
    images = noise(1, 40, 40, 3)
    before = images.copy()
    engine.run(images, color="bgr")
    engine.run(images, color="rgb")
    np.testing.assert_array_equal(images, before)


def test_threads_do_not_see_each_other(engine: Engine) -> None:
    images = [noise(1, 20 + 13 * i, 90 - 7 * i, 3, seed=i) for i in range(6)]
    expected = [
        {color: engine.run(image, color=color) for color in ("bgr", "rgb")}  # type: ignore[arg-type]
        for image in images
    ]
    failures: list[BaseException] = []

    def work(start: int) -> None:
        try:
            for step in range(12):
                index = (start + 5 * step) % len(images)
                color = "rgb" if (start + step) % 3 == 0 else "bgr"
                assert_equal(engine.run(images[index], color=color), expected[index][color])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(start,)) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.mark.parametrize("name", NAMES)
def test_the_first_rgb_image_may_come_from_many_threads(name: str) -> None:
    engine = make(name, random_weights(SMALL))
    images = noise(1, 40, 56, 3)
    results: list[RawOutputs] = []
    threads = [
        threading.Thread(target=lambda: results.append(engine.run(images, color="rgb"))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    for result in results[1:]:
        assert_equal(result, results[0])


@pytest.mark.parametrize(
    ("images", "color", "error", "message"),
    [
        (np.zeros((1, 8, 8, 3), np.float32), "bgr", TypeError, "images: expected a uint8 array, got float32"),
        ([[1]], "bgr", TypeError, "images: expected a uint8 array, got list"),
        (np.zeros((8, 8, 3), np.uint8), "bgr", ValueError, r"images: expected shape \(B, H, W, 3\)"),
        (np.zeros((1, 8, 8, 4), np.uint8), "bgr", ValueError, r"got \(1, 8, 8, 4\)"),
        (np.zeros((1, 0, 8, 3), np.uint8), "bgr", ValueError, r"got \(1, 0, 8, 3\)"),
        (np.zeros((0, 8, 8, 3), np.uint8), "bgr", ValueError, r"got \(0, 8, 8, 3\)"),
        (np.zeros((1, 8, 8, 3), np.uint8), "gray", ValueError, 'color must be "bgr" or "rgb", got \'gray\''),
    ],
)
def test_bad_arguments(engine: Engine, images: Any, color: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        engine.run(images, color=color)


@pytest.mark.parametrize("name", [*NAMES, "auto"])
@pytest.mark.parametrize("device", ["tpu", "cuda:x", "cpu:1", "", "CPU"])
def test_unknown_devices(name: str, device: str) -> None:
    with pytest.raises(ValueError, match="device: expected 'cpu'"):
        create_engine(name, random_weights(SMALL), device=device)


@pytest.mark.parametrize("levels", [P3_P5, P2_P6], ids=["P3 to P5", "P2 to P6"])
def test_deformable_networks_with_onnxruntime(levels: AnchorConfig) -> None:
    """Against the paper's formula; offsets of pixels, out of the picture, too."""
    config = dataclasses.replace(SMALL, anchors=levels, context=ContextConfig(deformable=True))
    weights = random_weights(config)
    tensors = {
        name: np.float32(20) * array if name.endswith(".offset.bias") else array
        for name, array in weights.tensors.items()
    }
    assert np.abs(tensors["context.0.conv3x3.offset.bias"][:18]).max() > 2
    engine = make("onnxruntime", dataclasses.replace(weights, tensors=tensors))
    images = noise(2, 37, 50, 3)
    outputs = engine.run(images, color="bgr")
    heads = (outputs.class_scores, outputs.box_deltas, outputs.landmark_deltas)
    for found, expected in zip(heads, network_numpy.forward(tensors, config, images), strict=True):
        assert_close(list(found), expected, relative=TOLERANCE["onnxruntime"])


def test_the_emitted_graph_is_valid() -> None:
    onnx = pytest.importorskip("onnx")
    from retinaface_fast.engines.onnx_graph import build_onnx

    for config in VARIANTS:
        onnx.checker.check_model(build_onnx(random_weights(config), color="bgr"), full_check=True)


def _resident_bytes() -> int:
    psutil = pytest.importorskip("psutil")
    return int(psutil.Process().memory_info().rss)


@pytest.mark.slow
def test_memory_stays_flat_over_varying_sizes(engine: Engine) -> None:
    _resident_bytes()
    rng = np.random.default_rng(0)
    canvas = noise(1, 320, 320, 3)

    def calls(count: int) -> None:
        for _ in range(count):
            height, width = rng.integers(1, 320, 2)
            engine.run(canvas[:, :height, :width], color="bgr")

    engine.run(canvas, color="bgr")
    calls(150)
    before = _resident_bytes()
    calls(150)
    assert _resident_bytes() - before < 32 << 20
