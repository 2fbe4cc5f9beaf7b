from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from retinaface_fast.network import CONFIGS
from retinaface_fast.weights import REGISTRY, load_weights

if TYPE_CHECKING:
    from types import ModuleType

TOOL = Path(__file__).resolve().parents[2] / "tools" / "bundle_weights.py"


@pytest.fixture
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bundle_weights", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(folder: Path, *, without_core: bool = True) -> subprocess.CompletedProcess[str]:
    # The build runs the tool before there is a core to import.
    block = "sys.modules['retinaface_fast._core'] = None; " if without_core else ""
    code = (
        f"import sys, runpy; {block}sys.modules['retinaface'] = None; "
        f"sys.argv = ['bundle_weights.py', {str(folder)!r}]; "
        f"runpy.run_path({str(TOOL)!r}, run_name='__main__')"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_bundles_the_published_weights(published_onnx: Path, tmp_path: Path) -> None:
    result = run(tmp_path / "a")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [
        "LICENSE",
        "mobilenet0.25.safetensors",
    ]
    weights = load_weights(tmp_path / "a" / "mobilenet0.25.safetensors")
    published = load_weights(published_onnx)
    assert weights.config == CONFIGS["mobilenet0.25"]
    for name, array in published.tensors.items():
        np.testing.assert_array_equal(weights.tensors[name], array)
    entry = REGISTRY["mobilenet0.25"]
    assert weights.metadata["upstream_sha256"] == entry.sha256
    assert weights.metadata["upstream_file"] == "retinaface_mv1_0.25.onnx"
    assert weights.metadata["upstream_url"] == entry.url
    assert weights.metadata["licence"] == "MIT (Yakhyokhuja Valikhujaev, yakhyo/retinaface-pytorch)"
    assert "Yakhyokhuja Valikhujaev" in (tmp_path / "a" / "LICENSE").read_text()


def test_is_deterministic(published_onnx: Path, tmp_path: Path) -> None:
    digests = set()
    for name in ("a", "b"):
        assert run(tmp_path / name).returncode == 0
        digests.add(hashlib.sha256((tmp_path / name / "mobilenet0.25.safetensors").read_bytes()).hexdigest())
    assert len(digests) == 1


def failure(tool: ModuleType, folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert tool.main([str(folder)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert not folder.exists()
    return err


def test_says_what_is_missing(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool, "DISTRIBUTION", "no-such-distribution")
    assert "no-such-distribution is not installed" in failure(tool, tmp_path / "out", capsys)


def test_says_when_the_weights_are_others(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool, "read_literal", lambda: b"others")
    assert "have sha256" in failure(tool, tmp_path / "out", capsys)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("WEIGHTS = b'abc'", None),
        ("WEIGHTS: bytes = b'abc'", None),
        ("WEIGHTS = open('/etc/passwd').read()", "assigns no bytes literal to WEIGHTS"),
        ("WEIGHTS = 'text'", "assigns no bytes literal to WEIGHTS"),
        ("OTHER = b'abc'", "assigns no bytes literal to WEIGHTS"),
        ("WEIGHTS = (", "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_reads_a_literal_and_runs_nothing(
    source: str | None, message: str | None, tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Distribution:
        def locate_file(self, name: str) -> Path:
            return tmp_path / Path(name).name

    if source is not None:
        (tmp_path / "weights.py").write_text(source)
    monkeypatch.setattr(tool.importlib.metadata, "distribution", lambda _: Distribution())
    if message is None:
        assert tool.read_literal() == b"abc"
    else:
        with pytest.raises(tool.BundleError, match=message):
            tool.read_literal()


def test_usage(tool: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main([]) == 2
    assert "usage" in capsys.readouterr().err
