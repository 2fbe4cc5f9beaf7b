"""The fused post-processing against the ways of today; `benchmarks.postprocess` has the careful table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from benchmarks import measure, opponents, postprocess

if TYPE_CHECKING:
    from benchmarks.scenes import Scene


def compare(
    benchmark: Any, who: str, scene: Scene, options: opponents.Options, *, logits: bool = False
) -> None:
    calls = postprocess.contestants(scene, options, logits=logits)
    expected = calls["ops.postprocess"]()
    measure.assert_same_faces(calls[who](), expected, who)
    benchmark.group = f"postprocess, {scene.name}, {options.score_threshold}{', logits' if logits else ''}"
    benchmark.extra_info["who"] = "ops" if who == "ops.postprocess" else who
    if who.startswith("pure"):
        benchmark.pedantic(calls[who], rounds=5)
    else:
        benchmark(calls[who])


NUMPY = [f"{name}, columns" for name in opponents.suppressions() if name != "NumPy all pairs"]
NAMES = ["ops.postprocess", "pure Python", "pure Python, lean loops", *NUMPY]


@pytest.mark.parametrize("who", NAMES)
@pytest.mark.parametrize("threshold", [0.02, 0.6])
def test_640(benchmark: Any, who: str, threshold: float, scene_640: Scene) -> None:
    compare(benchmark, who, scene_640, opponents.Options(threshold))


@pytest.mark.parametrize("who", ["ops.postprocess", *NUMPY])  # the popular port ends in a softmax
@pytest.mark.parametrize("threshold", [0.02, 0.6])
def test_640_logits(benchmark: Any, who: str, threshold: float, scene_640: Scene) -> None:
    compare(benchmark, who, scene_640, opponents.Options(threshold), logits=True)


@pytest.mark.parametrize("who", NAMES)
def test_4k_crowd(benchmark: Any, who: str, scene_4k: Scene) -> None:
    compare(benchmark, who, scene_4k, opponents.Options(0.02))


@pytest.mark.parametrize("who", NAMES)
def test_4k_with_hardly_a_candidate(benchmark: Any, who: str, quiet_4k: Scene) -> None:
    compare(benchmark, who, quiet_4k, opponents.Options(0.6))


def test_scan_against_the_memory(benchmark: Any, quiet_4k: Scene) -> None:
    """The share of the machine's read bandwidth that the scan reaches out of cache, as extra information."""
    result = benchmark.pedantic(postprocess.scan, kwargs={"rounds": 5}, rounds=1)
    assert 0 < result["share"] < 2
    benchmark.extra_info.update(who="ops", share=result["share"], scene=quiet_4k.name)
