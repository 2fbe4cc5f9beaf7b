"""The project's own tests for a CUDA device, as a part of `benchmarks.cuda`."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from benchmarks import cuda_checks, cuda_processes

FILES = (
    "tests/ops/test_cuda.py",
    "tests/ops/test_cuda_device.py",
    "tests/engines/test_torch_engine.py",
    "tests/engines/test_torch_postprocess.py",
    "tests/engines/test_torch_devices.py",
)
#: What is in the name of every test that runs on a device, be it as a parameter, or in that of its file.
ON_DEVICE = "cuda_device"
NEEDED = ("pytest", "hypothesis", "skimage")
SECONDS = 3600


def count(report: Path) -> dict[str, dict[str, int]]:
    """How many tests of a JUnit report passed, were skipped and failed, on the device and elsewhere."""
    counts = {place: {"passed": 0, "skipped": 0, "failed": 0} for place in ("device", "host")}
    for case in ET.parse(report).iter("testcase"):
        name = f"{case.get('classname')}.{case.get('name')}"
        place = "device" if ON_DEVICE in name else "host"
        kinds = {element.tag for element in case}
        outcome = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        counts[place][outcome] += 1
    return counts


def is_right(exit_code: int, on_device: dict[str, int], device: str, *, with_kernels: bool) -> bool:
    """Whether nothing failed, and what can be tried on the device was: all of it where there are kernels."""
    tried = on_device["passed"] > 0 and not (with_kernels and on_device["skipped"])
    return exit_code == 0 and (device == "cpu" or tried)


def visible(device: str) -> dict[str, str]:
    """The environment in which a device is the first one, which is that of the tests."""
    if device == "cpu" or device.endswith(":0"):
        return dict(os.environ)
    index = int(device.partition(":")[2])
    names = os.environ.get("CUDA_VISIBLE_DEVICES")
    return {**os.environ, "CUDA_VISIBLE_DEVICES": names.split(",")[index] if names else str(index)}


def tests(device: str, *, with_kernels: bool) -> dict[str, Any]:
    """Exit code of pytest, what ran where, and what it said if something was wrong."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        return {"missing": f"not installed: {', '.join(missing)}; pip install '.[test]'"}
    arguments = ["-m", "pytest", "-q", "-p", "no:cacheprovider", *FILES]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        done = cuda_processes.run(
            [sys.executable, *arguments, "--junitxml", str(report)],
            seconds=SECONDS,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=cuda_checks.ROOT,
            env=visible(device),
        )
        lines = done.stdout.strip().splitlines()
        if not report.exists():  # it did not come to an end
            return {"failed": "\n".join([f"exit code {done.returncode}", *lines[-60:]])}
        counts = count(report)
    right = is_right(done.returncode, counts["device"], device, with_kernels=with_kernels)
    return {
        "command": " ".join(["python", *arguments]),
        "exit": done.returncode,
        "right": right,
        **counts,
        "summary": lines[-1] if lines else "nothing was said",
        "lines": [] if right else lines[-200:],
    }
