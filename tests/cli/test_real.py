"""The command line with the real detector and a real photograph."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import retinaface_fast
from retinaface_fast.cli import main
from retinaface_fast.weights import bundled_path

if TYPE_CHECKING:
    from retinaface_fast._typing import UInt8Array

cv2 = pytest.importorskip("cv2")

pytestmark = pytest.mark.skipif(bundled_path() is None, reason="this build has no weights in it")


def test_the_astronaut(here: Path, astronaut_bgr: UInt8Array, capsys: pytest.CaptureFixture[str]) -> None:
    source = here / "bilder von menschen" / "ü.png"
    source.parent.mkdir()
    source.write_bytes(cv2.imencode(".png", astronaut_bgr)[1].tobytes())
    arguments = ["detect", str(source), "--output", "faces.jpg", "--crops", "crops", "--json", "-"]
    assert main(arguments) == 0
    record = json.loads(capsys.readouterr().out)
    expected = retinaface_fast.detect(astronaut_bgr)
    (face,) = record["faces"]
    assert record["source"] == str(source)
    assert face["box"] == expected.boxes[0].tolist()
    np.testing.assert_allclose(face["box"], [178, 57, 273, 177], atol=3)
    assert face["score"] > 0.99
    assert cv2.imread("faces.jpg").shape == astronaut_bgr.shape
    np.testing.assert_array_equal(cv2.imread("crops/ü-0.png"), expected.align(astronaut_bgr)[0])


def test_nan_and_unknown_names_are_wrong_usage(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "a.jpg").write_bytes(b"")
    for arguments, named in (
        (["--score-threshold", "nan"], "score_threshold"),
        (["--model", "resnet99"], "resnet99"),
        (["--engine", "tpu"], "tpu"),
    ):
        assert main(["detect", "a.jpg", *arguments]) == 2
        assert named in capsys.readouterr().err
    assert main(["detect", "a.jpg", "--weights", "missing.safetensors"]) == 1
    assert "missing.safetensors" in capsys.readouterr().err


def test_the_program_is_installed() -> None:
    program = Path(sys.executable).with_name(
        "retinaface-fast.exe" if sys.platform == "win32" else "retinaface-fast"
    )
    if not program.exists():
        pytest.skip("the package is not installed in this environment")
    import subprocess

    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"retinaface-fast {retinaface_fast.__version__}\n"
