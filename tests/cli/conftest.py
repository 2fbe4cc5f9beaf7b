"""A detector that needs no network, and small pictures and videos to give it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest

pytest.importorskip("typer")
cv2 = pytest.importorskip("cv2")

from retinaface_fast.detections import Detections  # noqa: E402
from retinaface_fast.image import read_image  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable


class FakeDetector:
    """Finds as many faces as `faces` says, at known places; reads files as the real one does."""

    faces: ClassVar[int] = 2
    unknown: ClassVar[tuple[int, ...]] = ()
    made_with: ClassVar[dict[str, Any]] = {}
    on_detect: ClassVar[Callable[[int], None] | None] = None
    calls: ClassVar[int] = 0

    def __init__(self, **options: Any) -> None:
        type(self).made_with = options

    def detect(self, source: Any) -> Detections:
        """Return the same faces for every picture."""
        kind = type(self)
        kind.calls += 1
        if kind.on_detect is not None:
            kind.on_detect(kind.calls)
        pixels = source if isinstance(source, np.ndarray) else read_image(source).pixels
        n = self.faces
        offsets = 20.0 * np.arange(n, dtype=np.float32)[:, None]
        landmarks = np.float32([[14, 14], [24, 14], [19, 20], [15, 25], [23, 25]])
        landmarks[list(self.unknown)] = np.nan
        return Detections(
            boxes=np.float32([[10, 8, 28, 30]]) + offsets * np.float32([[1, 0, 1, 0]]),
            scores=np.linspace(0.9, 0.6, n, dtype=np.float32),
            landmarks=landmarks[None] + offsets[:, :, None] * np.float32([1, 0]),
            image_size=(pixels.shape[0], pixels.shape[1]),
            timings={"total": 0.0123},
            engine="fake",
            device="cpu",
        )


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeDetector]:
    """The detector that the command line builds, and what it was built with."""

    class Fresh(FakeDetector):
        pass

    Fresh.made_with, Fresh.calls, Fresh.on_detect, Fresh.faces = {}, 0, None, 2
    monkeypatch.setattr("retinaface_fast.detector.FaceDetector", Fresh)
    return Fresh


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in; the terminal is wide, and nothing is coloured."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    return tmp_path


def picture(name: str, *, width: int = 64, height: int = 48) -> Path:
    """Write a gray picture."""
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    done, data = cv2.imencode(path.suffix, np.full((height, width, 3), 128, np.uint8))
    assert done
    path.write_bytes(data.tobytes())
    return path


def video(name: str, *, frames: int = 6, width: int = 64, height: int = 48) -> Path:
    """Write a video whose frames get brighter."""
    writer = cv2.VideoWriter(name, cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (width, height))
    assert writer.isOpened()
    for index in range(frames):
        writer.write(np.full((height, width, 3), 20 * index, np.uint8))
    writer.release()
    return Path(name)
