"""Detections of an engine on many pictures, kept in files, so that an interrupted run goes on.

The files are those that the WIDER FACE evaluation reads, `<event>/<name>.txt`, with landmarks: see
`retinaface_fast.data.write_prediction`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from retinaface_fast import FaceDetector, ops
from retinaface_fast.data import Prediction, read_prediction, write_prediction
from retinaface_fast.engines import Engine, RawOutputs, create_engine
from retinaface_fast.evaluation import claim_folder
from retinaface_fast.evaluation.runner import makers
from retinaface_fast.weights import load_weights

if TYPE_CHECKING:
    from pathlib import Path

    from retinaface_fast.weights import ModelWeights

Array = npt.NDArray[Any]

#: The referee: the network of the engine `torch` in double precision.
FLOAT64 = "float64"
SETTINGS: dict[str, Any] = {"score_threshold": 0.02, "nms_threshold": 0.4, "top_k": 5000, "keep_top_k": 750}


class PredictionsError(Exception):
    """A picture cannot be had."""


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
        DatasetError: The folder holds predictions that were made in another way.
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

    def __getitem__(self, picture: str) -> Prediction:
        path = self.folder / f"{picture}.txt"
        if not path.exists() or not path.stat().st_size:
            found = self.detector.detect(self.pixels(picture))
            write_prediction(path, picture, found.boxes, found.scores, found.landmarks)
        return read_prediction(path)

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
        signature = {
            "engine": self.name,
            "model": self.model,
            "weights_sha256": self._weights.sha256,
            "images": str(self.pictures.resolve()),
            **SETTINGS,
            **makers("torch" if self.name == FLOAT64 else self.name),
        }
        claim_folder(self.folder / "made_by.json", signature)


def wider_rows(found: Prediction) -> Array:
    """(N, 5) x, y, width, height, score: what the evaluation takes."""
    sides = found.boxes[:, 2:] - found.boxes[:, :2]
    return np.column_stack([found.boxes[:, :2], sides, found.scores])
