"""`retinaface-fast info`: what is installed and what it can do on this machine."""

from __future__ import annotations

import json
import os
import platform
from importlib import metadata
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

import retinaface_fast

from . import _console
from .weights import describe, weights_table

#: Distributions whose versions matter for a bug report.
_LIBRARIES = ("numpy", "opencv-python", "opencv-python-headless", "safetensors", "pillow", "supervision")


def collect() -> dict[str, object]:
    """Return everything that `info` tells, as JSON takes it; imports no engine."""
    from retinaface_fast import ops
    from retinaface_fast.engines import available_engines
    from retinaface_fast.weights import REGISTRY, cache_dir, is_offline

    engines = available_engines()
    return {
        "version": retinaface_fast.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "simd_level": ops.simd_level(),
        "simd_levels": list(ops.simd_levels()),
        "threads": _threads(),
        "engines": engines,
        "gpu_postprocessing": _gpu_postprocessing(engines["torch"]),
        "libraries": {name: _version(name) for name in _LIBRARIES},
        "cache_dir": str(cache_dir()),
        "offline": is_offline(),
        "weights": [describe(entry) for entry in REGISTRY.values()],
    }


def _threads() -> int:
    from retinaface_fast.engines.threads import default_threads

    try:
        return default_threads()
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _gpu_postprocessing(torch_version: str | None) -> dict[str, object]:
    """What would make faces of the outputs of a network that ran in torch on cuda:0, and why.

    Without asking torch, which takes seconds to import, so that nobody knows whether it finds the device.
    """
    from retinaface_fast.ops import cuda

    try:
        built, architectures, obstacle = cuda.is_built(), cuda.architectures(), cuda.obstacle(0)
        would_use = "cuda" if obstacle is None else "torch"
    except ImportError as error:  # of the kernels, which are there: what a bug report should hold
        built, architectures, obstacle, would_use = True, (), f"cannot be loaded: {error}", None
    return {
        "would_use": None if torch_version is None else would_use,
        "kernels": built,
        "architectures": list(architectures),
        "obstacle": obstacle,
    }


def _in_words(postprocessing: dict[str, object], torch_version: str | None) -> str:
    """The same for people, such as "torch operations (built without CUDA kernels)"."""
    architectures, obstacle = postprocessing["architectures"], postprocessing["obstacle"]
    assert isinstance(architectures, list)
    names = ", ".join(f"sm_{architecture}" for architecture in architectures)
    kernels = f"CUDA kernels for {names}" if names else "CUDA kernels"
    if not postprocessing["kernels"]:
        kernels = "built without CUDA kernels"
    elif obstacle is not None:
        kernels += f": {obstacle}"
    if torch_version is None:
        return f"no post-processing, because torch is not installed ({kernels})"
    if postprocessing["would_use"] is None:
        return f"no post-processing ({kernels})"
    if postprocessing["would_use"] == "cuda":
        return f"post-processing on cuda:0 would be by {kernels}"
    return f"post-processing on cuda:0 would be by torch operations ({kernels})"


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def info(*, as_json: Annotated[bool, typer.Option("--json", help="Everything, as JSON.")] = False) -> None:
    """Show version, SIMD level, engines, weights and their hashes: what a bug report should hold."""
    facts = collect()
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    engines, libraries, weights = facts["engines"], facts["libraries"], facts["weights"]
    postprocessing = facts["gpu_postprocessing"]
    assert isinstance(postprocessing, dict)
    assert isinstance(engines, dict)
    assert isinstance(libraries, dict)
    assert isinstance(weights, list)
    assert isinstance(facts["simd_levels"], list)
    table = Table.grid(padding=(0, 2))
    rows = {
        "retinaface-fast": facts["version"],
        "Python": f"{facts['python']} on {facts['platform']}, {facts['processors']} processors",
        "SIMD level": f"{facts['simd_level']} (of {', '.join(facts['simd_levels'])})",
        "threads": f"{facts['threads']} for one picture",
        "engines": ", ".join(f"{name} {version or 'not installed'}" for name, version in engines.items()),
        "CUDA": _in_words(postprocessing, engines["torch"]),
        "libraries": ", ".join(f"{name} {version}" for name, version in libraries.items() if version),
        "cache": str(facts["cache_dir"]) + (" (offline)" if facts["offline"] else ""),
    }
    for heading, value in rows.items():
        table.add_row(Text(heading, style="bold"), Text(_console.printable(str(value))))
    console = _console.stdout()
    console.print(table)
    console.print(weights_table(weights))
