from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

from retinaface_fast.errors import WeightsError
from retinaface_fast.network import CONFIGS
from retinaface_fast.weights import REGISTRY, RegistryEntry, cache_dir, download, downloads, is_offline
from tests.weights.local_server import BODY, SHA256, Server


@pytest.fixture
def registry(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RegistryEntry:
    entry = RegistryEntry(
        name="local", url=server.url, sha256=SHA256, size_bytes=len(BODY), licence="none", ap=(0.0, 0.0, 0.0),
        format="onnx", config_name="mobilenet0.25",
    )  # fmt: skip
    monkeypatch.setattr(downloads, "REGISTRY", {"local": entry})
    monkeypatch.setenv("RETINAFACE_FAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RETINAFACE_FAST_OFFLINE", raising=False)
    return entry


def test_by_name(registry: RegistryEntry, server: Server, tmp_path: Path) -> None:
    seen: list[int] = []
    path = download("local", progress=lambda received, _: seen.append(received))
    assert path == tmp_path / "cache" / "weights.onnx"
    assert path.read_bytes() == BODY
    assert seen[-1] == len(BODY)
    assert download("local") == path
    assert len(server.requests) == 1


def test_without_a_terminal_the_log_has_a_line(
    registry: RegistryEntry, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO, logger="retinaface_fast"):
        download("local")
    assert caplog.messages[0] == f"downloading {registry.url}"
    assert capfd.readouterr() == ("", "")


def test_a_terminal_gets_a_bar(
    registry: RegistryEntry, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("rich")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    download("local")
    assert "weights.onnx" in capsys.readouterr().err


def test_a_damaged_file_in_the_cache_is_replaced(
    registry: RegistryEntry, caplog: pytest.LogCaptureFixture
) -> None:
    path = cache_dir() / "weights.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"damaged")
    assert download("local").read_bytes() == BODY
    assert "wrong digest" in caplog.text


def test_offline(registry: RegistryEntry, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETINAFACE_FAST_OFFLINE", "1")
    with pytest.raises(WeightsError, match=r"weights.onnx is not there, but RETINAFACE_FAST_OFFLINE forbids"):
        download("local")
    path = cache_dir() / "weights.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"damaged")
    with pytest.raises(WeightsError, match=r"weights.onnx is damaged, but"):
        download("local")
    path.write_bytes(BODY)
    assert download("local") == path
    assert server.requests == []


def test_an_unknown_name() -> None:
    with pytest.raises(ValueError, match=r"name: expected one of mobilenet0.25, .*, got 'mobilenet9'"):
        download("mobilenet9")


@pytest.mark.parametrize(
    ("value", "expected"),
    [("", False), ("0", False), ("no", False), ("False", False), ("1", True), ("yes", True)],
)
def test_offline_switch(value: str, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETINAFACE_FAST_OFFLINE", value)
    assert is_offline() is expected


def test_cache_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RETINAFACE_FAST_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.setenv("RETINAFACE_FAST_CACHE", "~/weights")
    assert cache_dir() == Path.home() / "weights"
    monkeypatch.delenv("RETINAFACE_FAST_CACHE")
    assert "retinaface_fast" in cache_dir().parts


def test_the_registry_is_sound() -> None:
    assert list(REGISTRY) == [
        "mobilenet0.25",
        "mobilenet0.5",
        "mobilenet1.0",
        "resnet18",
        "resnet34",
        "resnet50",
        "mobilenet0.25-biubug6",
    ]
    for name, entry in REGISTRY.items():
        assert entry.name == name
        assert entry.config_name in CONFIGS
        assert entry.url.startswith("https://github.com/")
        assert entry.filename.endswith(f".{entry.format}")
        assert len(bytes.fromhex(entry.sha256)) == 32
        assert entry.licence.startswith("MIT (")
        assert all(0 < ap < 100 for ap in entry.ap)
    assert len({entry.sha256 for entry in REGISTRY.values()}) == len(REGISTRY)
    assert len({entry.filename for entry in REGISTRY.values()}) == len(REGISTRY)
