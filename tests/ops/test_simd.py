"""Every SIMD level gives the same bits, and the environment variable chooses the level."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from retinaface_fast import ops

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str, level: str | None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "RETINAFACE_FAST_SIMD"}
    if level is not None:
        environment["RETINAFACE_FAST_SIMD"] = level
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@functools.cache
def digest_of(level: str) -> dict[str, Any]:
    finished = run("-m", "tests.ops.simd_digest", level=level)
    assert finished.returncode == 0, finished.stderr
    return dict(json.loads(finished.stdout))


def level_of_a_new_process(level: str | None) -> subprocess.CompletedProcess[str]:
    return run("-c", "from retinaface_fast import ops; print(ops.simd_level())", level=level)


def test_scalar_is_always_there_and_first() -> None:
    levels = ops.simd_levels()
    assert levels[0] == "scalar"
    assert len(set(levels)) == len(levels)
    assert ops.simd_level() in levels


#: What Linux calls the instructions that a level needs; NEON is "asimd" where every CPU has it.
NEEDS = {
    "neon": {"asimd"},
    "avx2": {"avx2", "fma"},
    "avx512": {"avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl"},
}


@pytest.mark.parametrize("level", NEEDS)
def test_a_cpu_that_can_run_a_level_has_it(level: str) -> None:
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        pytest.skip("needs /proc/cpuinfo to know the CPU from another source than the core")
    lines = cpuinfo.read_text().splitlines()
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "").split()
    assert (level in ops.simd_levels()) == (NEEDS[level] <= set(flags))


@pytest.mark.parametrize("level", ops.simd_levels())
def test_the_variable_chooses_the_level(level: str) -> None:
    assert level_of_a_new_process(level).stdout.strip() == level


def test_without_the_variable_the_best_level_is_used() -> None:
    for unset in (None, ""):
        assert level_of_a_new_process(unset).stdout.strip() == ops.simd_levels()[-1]


@pytest.mark.parametrize("level", ["avx3", "AVX2", "avx512f", "NEON", "sse", "scalar,avx2", " scalar"])
def test_a_level_that_does_not_exist_is_an_error_of_the_import(level: str) -> None:
    finished = level_of_a_new_process(level)
    assert finished.returncode != 0
    message = finished.stderr.strip().splitlines()[-1]
    assert "RETINAFACE_FAST_SIMD" in message
    assert level in message
    assert "scalar" in message  # what there is


@pytest.mark.parametrize("level", ops.simd_levels())
def test_every_level_gives_the_bits_of_scalar(level: str) -> None:
    got, expected = digest_of(level), digest_of("scalar")
    assert got["level"] == level
    assert got["digests"] == expected["digests"]
