"""A fresh process up to its first faces: import, construction and detection, with the start of Python."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from benchmarks import jobs, runtimes
from retinaface_fast import FaceDetector

if TYPE_CHECKING:
    from pathlib import Path

SIZE = (480, 640)
#: Torch alone takes seconds to import.
ROUNDS = {"native": 5, "onnxruntime": 3, "torch": 2}

FIRST_FACES = """
import json, sys
import numpy as np
import retinaface_fast
found = retinaface_fast.FaceDetector(engine=sys.argv[2]).detect(np.load(sys.argv[1]))
print(json.dumps({"boxes": found.boxes.tolist(), "scores": found.scores.tolist()}))
"""
#: What nobody who has a picture in an array can do without.
NUMPY_ONLY = "import sys, numpy; print(numpy.load(sys.argv[1]).shape)"


def _run(program: str, *arguments: str) -> str:
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cold") / "picture.npy"
    np.save(path, jobs.picture(SIZE)[0])
    return path


@pytest.mark.parametrize("engine", runtimes.own_engines())
def test_first_faces(benchmark: Any, engine: str, picture: Path) -> None:
    expected = FaceDetector(engine="native").detect(np.load(picture))
    assert len(expected) > 0
    found = json.loads(_run(FIRST_FACES, str(picture), engine))
    np.testing.assert_allclose(found["boxes"], expected.boxes, atol=0.05)
    np.testing.assert_allclose(found["scores"], expected.scores, atol=1e-3)
    benchmark.group = "cold start, 640x480"
    benchmark.extra_info["who"] = engine
    benchmark.pedantic(_run, args=(FIRST_FACES, str(picture), engine), rounds=ROUNDS.get(engine, 2))


def test_python_and_numpy_alone(benchmark: Any, picture: Path) -> None:
    assert _run(NUMPY_ONLY, str(picture)).split() == ["(480,", "640,", "3)"]
    benchmark.group = "cold start, 640x480"
    benchmark.extra_info["who"] = "Python and NumPy alone"
    benchmark.pedantic(_run, args=(NUMPY_ONLY, str(picture)), rounds=5)
