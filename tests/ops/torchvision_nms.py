"""torchvision's NMS, where it is installed and fits the installed torch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

Nms = "Callable[[npt.NDArray[np.float32], npt.NDArray[np.float32], float], npt.NDArray[np.int64]]"


def load() -> Nms:
    """The function on NumPy arrays; skips the test with a reason where there is none."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    try:
        from torchvision.ops import nms
    except ImportError as error:
        pytest.skip(f"torchvision is not installed: {error}")
    except RuntimeError as error:  # built for another torch: its operators are not registered
        pytest.skip(f"torchvision does not fit this torch: {error}")

    def on_arrays(
        boxes: npt.NDArray[np.float32], scores: npt.NDArray[np.float32], iou_threshold: float
    ) -> npt.NDArray[np.int64]:
        kept = nms(torch.from_numpy(boxes), torch.from_numpy(scores), iou_threshold)
        return kept.numpy().astype(np.int64)

    return on_arrays
