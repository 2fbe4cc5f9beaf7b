"""Detections of an engine on many pictures, kept in files, so that an interrupted run goes on.

The files are those that the WIDER FACE evaluation reads, `<event>/<name>.txt`: the name, the number of faces,
and a line `x y width height score` for each. Here the landmarks follow on the line, x and y of five points;
programs that take the first five numbers are not disturbed.
"""

from __future__ import annotations

import hashlib
import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from retinaface_fast import Detections, FaceDetector, _core, ops
from retinaface_fast.engines import Engine, RawOutputs, create_engine
from retinaface_fast.weights import load_weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retinaface_fast.weights import ModelWeights

Array = npt.NDArray[Any]

#: The referee: the network of the engine `torch` in double precision.
FLOAT64 = "float64"
SETTINGS: dict[str, Any] = {"score_threshold": 0.02, "nms_threshold": 0.4, "top_k": 5000, "keep_top_k": 750}


class PredictionsError(Exception):
    """The files hold something else than what was asked for; the message says what to do."""


class Found(NamedTuple):
    """The faces of one picture, highest score first."""

    boxes: Array  #: (N, 4) xyxy, pixels
    scores: Array  #: (N,)
    landmarks: Array  #: (N, 5, 2), pixels


class Float64Engine:
    """The network of the engine `torch` in double precision: slow, and right to float32's last digit."""

    name = FLOAT64
    device = "cpu"

    def __init__(self, weights: ModelWeights) -> None:
        import torch

        from retinaface_fast.network.retinaface import RetinaFace

        self._network = RetinaFace(weights.config, folded=True)
        self._network.load_state_dict({name: torch.tensor(array) for name, array in weights.tensors.items()})
        self._network.double().eval().requires_grad_(False)
        self._mean_bgr = np.array(weights.config.mean_bgr, dtype=np.float64)

    def run(self, images: npt.NDArray[np.uint8], *, color: str) -> RawOutputs:
        """See `Engine.run`; outputs are rounded to float32 at the end."""
        import torch

        bgr = images if color == "bgr" else images[..., ::-1]
        pixels = torch.from_numpy((bgr - self._mean_bgr).transpose(0, 3, 1, 2).copy())
        with torch.inference_mode():
            outputs = self._network(pixels)
        class_scores, box_deltas, landmark_deltas = (
            tuple(level.float().contiguous().numpy() for level in levels) for levels in outputs
        )
        return RawOutputs(class_scores, box_deltas, landmark_deltas, scores_are="logits")


def make_engine(name: str, weights: ModelWeights) -> Engine:
    """An engine on one thread of the CPU."""
    if name == FLOAT64:
        return Float64Engine(weights)
    return create_engine(name, weights, device="cpu", threads=None if name == "torch" else 1)


class Predictions:
    """The detections of one engine, from its files where they exist.

    Args:
        engine: Its name, of `retinaface_fast.engines.ENGINES` or `FLOAT64`.
        pictures: Folder of the pictures, `<event>/<name>.jpg`.
        folder: Where the files are kept; a folder of the engine's name is made in it.
        model: Name of the weights.

    Raises:
        PredictionsError: The folder holds predictions that were made in another way.
    """

    def __init__(self, engine: str, pictures: Path, folder: Path, model: str = "mobilenet0.25") -> None:
        self.name = engine
        self.model = model
        self.folder = folder / engine
        self.pictures = pictures
        self._weights = load_weights(model)
        self._engine: Engine | None = None
        self._detector: FaceDetector | None = None
        self._sign()

    @property
    def anchors(self) -> ops.AnchorConfig:
        """Description of the anchor grid."""
        return self._weights.config.anchors

    @property
    def variances(self) -> tuple[float, float]:
        """What the deltas are multiplied with."""
        return self._weights.config.variances

    def __getitem__(self, picture: str) -> Found:
        path = self.folder / f"{picture}.txt"
        if not path.exists():
            _write(path, picture, self.detector.detect(self.pixels(picture)))
        return read(path)

    @property
    def engine(self) -> Engine:
        """The engine, made when it is first needed."""
        if self._engine is None:
            self._engine = make_engine(self.name, self._weights)
        return self._engine

    @property
    def detector(self) -> FaceDetector:
        """The detector around the engine."""
        if self._detector is None:
            self._detector = FaceDetector(weights=self._weights, engine=self.engine, **SETTINGS)
        return self._detector

    def pixels(self, picture: str) -> npt.NDArray[np.uint8]:
        """(H, W, 3) BGR of a picture in its original size."""
        image = cv2.imread(str(self.pictures / f"{picture}.jpg"))
        if image is None:
            raise PredictionsError(f"{self.pictures / picture}.jpg cannot be read")
        return np.asarray(image, dtype=np.uint8)

    def _sign(self) -> None:
        """Say in the folder how its predictions were made; refuse one in which something else is said."""
        signature = {"engine": self.name, "model": self.model, **SETTINGS, **_makers(self.name)}
        path = self.folder / "made_by.json"
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(signature, indent=2))
            return
        found = json.loads(path.read_text())
        different = [key for key in {**signature, **found} if signature.get(key) != found.get(key)]
        if different:
            what = ", ".join(
                f"{key} {found.get(key)!r} instead of {signature.get(key)!r}" for key in different
            )
            raise PredictionsError(f"{self.folder} was made with {what}: remove it, or name another folder")


def _makers(engine: str) -> dict[str, str]:
    """What can change an engine's numbers. The core is in all of them: it is the post-processing of each."""
    core = Path(_core.__file__).read_bytes()
    makers = {"core": hashlib.sha256(core).hexdigest()[:16], "simd": ops.simd_level()}
    if engine != "native":
        package = "torch" if engine == FLOAT64 else engine
        makers[package] = version(package)
    return makers


def _write(path: Path, picture: str, found: Detections) -> None:
    """All or nothing, so that a file that is there is whole."""
    boxes = found.boxes.astype(np.float64)
    lines = [f"{picture}.jpg", str(len(boxes))]
    for (x1, y1, x2, y2), score, points in zip(boxes, found.scores, found.landmarks, strict=True):
        place = " ".join(f"{value:.6f}" for value in (x1, y1, x2 - x1, y2 - y1))
        lines.append(f"{place} {score:.9g} " + " ".join(f"{value:.6f}" for value in points.ravel()))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text("\n".join(lines) + "\n")
    os.replace(partial, path)  # noqa: PTH105 -- the name says that it is atomic


def read(path: Path) -> Found:
    """The faces in one of the files."""
    lines = path.read_text().splitlines()[2:]
    rows = np.array([line.split() for line in lines], dtype=np.float64).reshape(len(lines), 15)
    boxes = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], axis=1)
    return Found(boxes, rows[:, 4], rows[:, 5:].reshape(-1, 5, 2))


def wider_rows(found: Found) -> Array:
    """(N, 5) x, y, width, height, score: what the evaluation takes."""
    sides = found.boxes[:, 2:] - found.boxes[:, :2]
    return np.column_stack([found.boxes[:, :2], sides, found.scores])


def names_in(path: Path) -> Sequence[str]:
    """The pictures of a list such as images.txt, without `.jpg`."""
    return [line.removesuffix(".jpg") for line in path.read_text().split("\n") if line]
