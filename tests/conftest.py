"""Fixtures that more than one test file uses: real photographs, and scenes composed from them."""

from __future__ import annotations

import importlib.util
import os
import signal
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

# Before torch is imported: on a machine that others use too, two busy threads wait for each other, and a
# picture that takes one thread 60 ms took two of them 500 ms.
os.environ.setdefault("OMP_NUM_THREADS", "1")

UInt8Array = npt.NDArray[np.uint8]


def _package_dir(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"{package} is not installed")
    return Path(spec.origin).parent


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """A shell starts what runs in the background deaf to Ctrl-C, which some tests press."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def wider_dir() -> Path:
    """Folder of the WIDER FACE photographs, which do not travel with the repository."""
    candidates = [Path(__file__).resolve().parents[2] / "shared" / "wider"]
    if "RETINAFACE_FAST_WIDER" in os.environ:
        candidates.insert(0, Path(os.environ["RETINAFACE_FAST_WIDER"]))
    for path in candidates:
        if (path / "images.txt").is_file():
            return path
    pytest.skip("WIDER FACE is not here: neither ../shared/wider nor RETINAFACE_FAST_WIDER holds images.txt")


@pytest.fixture(scope="session")
def astronaut_path() -> Path:
    """Portrait of Eileen Collins that scikit-image ships: 512x512, one face. NASA, public domain."""
    return _package_dir("skimage") / "data" / "astronaut.png"


@pytest.fixture(scope="session")
def _astronaut(astronaut_path: Path) -> UInt8Array:
    image = cv2.imread(str(astronaut_path))
    assert image is not None
    image.flags.writeable = False
    return image


@pytest.fixture
def astronaut_bgr(_astronaut: UInt8Array) -> UInt8Array:
    """The portrait as (512, 512, 3) uint8 BGR; a fresh copy for each test."""
    return _astronaut.copy()


@pytest.fixture(scope="session")
def grace_hopper_path() -> Path:
    """Portrait of Grace Hopper that matplotlib ships: a JPEG of 512x600, one face. US Navy, public domain."""
    return _package_dir("matplotlib") / "mpl-data" / "sample_data" / "grace_hopper.jpg"


@pytest.fixture(scope="session")
def cat_bgr() -> UInt8Array:
    """A cat from scikit-image: no face."""
    image = cv2.imread(str(_package_dir("skimage") / "data" / "chelsea.png"))
    assert image is not None
    return image


@pytest.fixture(scope="session")
def _crowd() -> UInt8Array:
    from benchmarks.scenes import crowd

    image = crowd((480, 636), sides=(48, 80, 120))
    image.flags.writeable = False
    return image


@pytest.fixture
def crowd_bgr(_crowd: UInt8Array) -> UInt8Array:
    """Some faces of three sizes in (480, 636, 3) uint8 BGR; a fresh copy for each test."""
    return _crowd.copy()
