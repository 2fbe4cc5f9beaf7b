"""The fused post-processing against the ways of today; `benchmarks.postprocess` has the careful table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from benchmarks import measure, opponents, postprocess

if TYPE_CHECKING:
    from benchmarks.scenes import Scene


def compare(benchmark: Any, who: str, scene: Scene, options: opponents.Options) -> None:
    calls = postprocess.contestants(scene, options, logits=False)
    expected = calls["ops.postprocess"]()
    measure.assert_same_faces(calls[who](), expected, who)
    benchmark.group = f"postprocess, {scene.name}, {options.score_threshold}"
    benchmark.extra_info["who"] = "ops" if who == "ops.postprocess" else who
    if who.startswith("pure"):
        benchmark.pedantic(calls[who], rounds=5)
    else:
        benchmark(calls[who])


NAMES = ["ops.postprocess", "pure Python", "pure Python, lean loops"]
NAMES += [f"{name}, columns" for name in opponents.suppressions() if name != "NumPy all pairs"]


@pytest.mark.parametrize("who", NAMES)
@pytest.mark.parametrize("threshold", [0.02, 0.6])
def test_640(benchmark: Any, who: str, threshold: float, scene_640: Scene) -> None:
    compare(benchmark, who, scene_640, opponents.Options(threshold))


@pytest.mark.parametrize("who", NAMES)
def test_4k_crowd(benchmark: Any, who: str, scene_4k: Scene) -> None:
    compare(benchmark, who, scene_4k, opponents.Options(0.02))


@pytest.mark.parametrize("who", NAMES)
def test_4k_with_hardly_a_candidate(benchmark: Any, who: str, quiet_4k: Scene) -> None:
    compare(benchmark, who, quiet_4k, opponents.Options(0.6))
