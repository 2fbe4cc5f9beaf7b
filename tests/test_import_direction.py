"""Imports point one way, and importing the package costs nothing that was not asked for."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "python" / "retinaface_fast"

#: The rooms from the ground up. A room may import itself and what stands above it in this list.
#: Drawing and alignment work on arrays and stand below the result, whose methods call them.
ROOMS = [
    ("errors", "_typing", "_core", "_cuda"),
    ("_imports", "_files", "_landmarks", "_validation", "_cache", "anchor_config", "geometry"),
    ("ops",),
    ("network",),
    ("weights",),
    ("engines",),
    ("_image_header",),
    ("_image_file",),
    ("image",),
    ("draw", "align"),
    ("detections",),
    ("tta", "_tiles"),
    ("_settings",),
    ("_search",),
    ("detector",),
    ("data",),
    ("evaluation",),
    ("compare",),
    ("latency",),
    ("training",),
    ("cli",),
    ("__main__",),
]
RANK = {name: rank for rank, names in enumerate(ROOMS) for name in names}

#: What `import retinaface_fast` must not load.
HEAVY = (
    "torch",
    "cv2",
    "onnx",
    "onnxruntime",
    "matplotlib",
    "dlib",
    "jinja2",
    "psutil",
    "PIL",
    "supervision",
    "skimage",
    "scipy",
    "pycocotools",
    "typer",
    "rich",
    "pydantic",
    "lightning_fabric",
    "tensorboard",
)


def room_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imported_rooms(path: Path) -> list[tuple[int, str]]:
    """Rooms of this package that a file imports when it runs, with their lines; type checks do not count."""
    package = ("retinaface_fast", *path.relative_to(PACKAGE).parent.parts)
    found = []

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for child in node.orelse:
                visit(child)
            return
        targets: list[str] = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*package[: len(package) - node.level + 1], *([base] if base else [])])
            # `from retinaface_fast import ops` imports a room, `from retinaface_fast.ops import nms` too.
            targets = (
                [f"{base}.{alias.name}" for alias in node.names] if base == "retinaface_fast" else [base]
            )
        for target in targets:
            parts = target.split(".")
            if parts[0] == "retinaface_fast" and len(parts) > 1:
                found.append((node.lineno, parts[1]))
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_point_one_way(path: Path) -> None:
    room = room_of(path)
    assert room in RANK, f"{room} has no place in ROOMS"
    for line, imported in imported_rooms(path):
        assert imported in RANK, f"{path}:{line}: imports {imported}, which has no place in ROOMS"
        allowed = imported == room or RANK[imported] < RANK[room]
        assert allowed, f"{path}:{line}: {room} may not import {imported}"


def test_the_walk_sees_every_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "ops"
    folder.mkdir()
    (folder / "x.py").write_text(
        "from __future__ import annotations\n"
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from ..detector import FaceDetector\n"
        "else:\n    import retinaface_fast.draw\n"
        "import retinaface_fast.image\n"
        "from retinaface_fast import align, cli\n"
        "from .. import weights\n"
        "from ..engines.base import Engine\n"
        "from .nms import nms\n"
        "def f():\n    from retinaface_fast.network.config import CONFIGS\n"
    )
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    rooms = [room for _, room in imported_rooms(folder / "x.py")]
    assert rooms == ["draw", "image", "align", "cli", "weights", "engines", "ops", "network"]


def loaded_after(code: str) -> set[str]:
    code += "\nimport sys; print(' '.join({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import retinaface_fast",
        "import retinaface_fast; retinaface_fast.ops.nms; retinaface_fast.__version__",
        "from retinaface_fast import FaceDetector, detect, Detections, Face, ImageError",
        "from retinaface_fast import weights, engines, network, image, draw, align, geometry, data",
        "from retinaface_fast.weights import load_weights; load_weights('mobilenet0.25')",
        "from retinaface_fast.engines import available_engines; available_engines()",
        "import numpy, retinaface_fast.image as image; image.read_image(numpy.zeros((9, 9), 'uint8'))",
    ],
)
def test_import_loads_nothing_heavy(code: str) -> None:
    assert loaded_after(code).isdisjoint(HEAVY)


def test_package_itself_loads_not_even_numpy() -> None:
    assert "numpy" not in loaded_after("import retinaface_fast")
