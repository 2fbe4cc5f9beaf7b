from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "onnx", "onnxruntime", "cv2", "torchvision", "matplotlib", "rich")


@pytest.mark.parametrize(
    "statement",
    [
        "import retinaface_fast.network.config",
        "import retinaface_fast.network",
        "import retinaface_fast.weights",
        "import retinaface_fast.engines",
        "from retinaface_fast.engines import available_engines; available_engines()",
        (
            "from retinaface_fast.weights import bundled_path, load_weights; "
            "path = bundled_path(); path and load_weights(path)"
        ),
    ],
)
def test_imports_stay_light(statement: str) -> None:
    code = f"{statement}\nimport sys\nprint([name for name in {HEAVY!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr, result.stdout.strip()) == (0, "", "[]")


def test_the_network_is_built_without_torchvision() -> None:
    code = (
        "import sys; sys.modules['torchvision'] = None\n"
        "from retinaface_fast.network import CONFIGS, RetinaFace\n"
        "RetinaFace(CONFIGS['mobilenet0.25'])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
