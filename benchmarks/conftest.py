"""Scenes as fixtures, and the ratios of every group at the end of the run."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks import measure, scenes

if TYPE_CHECKING:
    from collections.abc import Callable

#: What the others of a group are compared with.
OURS = ("ops", "native", "native, detect")


def _or_skip(make: Callable[[], scenes.Scene | None], reason: str) -> scenes.Scene:
    pytest.importorskip("onnxruntime", reason="onnxruntime runs the network that the outputs come from")
    try:
        scene = make()
    except scenes.MissingError as error:
        pytest.skip(str(error))
    if scene is None:
        pytest.skip(reason)
    return scene


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    # BLAS may have more, which nothing here is large enough to use.
    measure.use_one_thread()


@pytest.fixture(scope="session", params=["crowd", "wider"])
def scene_640(request: pytest.FixtureRequest) -> scenes.Scene:
    """Raw outputs at 640x640: a composed crowd, and a real one where there is one."""
    make = scenes.crowd_640 if request.param == "crowd" else scenes.wider_640
    return _or_skip(make, "the WIDER FACE pictures are not there")


@pytest.fixture(scope="session")
def scene_4k() -> scenes.Scene:
    """Raw outputs at 3840x2160 with ten thousand candidates."""
    return _or_skip(scenes.crowd_4k, "")


@pytest.fixture(scope="session")
def quiet_4k() -> scenes.Scene:
    """Raw outputs at 3840x2160 with hardly a candidate."""
    return _or_skip(scenes.quiet_4k, "")


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    session = getattr(config, "_benchmarksession", None)
    groups: dict[str, dict[str, float]] = defaultdict(dict)
    pictures: dict[tuple[str, str], float] = {}
    for benchmark in getattr(session, "benchmarks", []):
        if benchmark.group and "who" in benchmark.extra_info and benchmark.stats.rounds:
            who = benchmark.extra_info["who"]
            groups[benchmark.group][who] = benchmark.stats.median
            if "pictures_per_second" in benchmark.extra_info:
                pictures[benchmark.group, who] = benchmark.extra_info["pictures_per_second"]
    if not groups:
        return
    terminalreporter.section("how many times slower than ours (medians)")
    for group, seconds in groups.items():
        ours = next((seconds[who] for who in OURS if who in seconds), None)
        for who, median in sorted(seconds.items(), key=lambda item: item[1]):
            ratio = f"{median / ours:12,.1f}x" if ours else ""
            rate = pictures.get((group, who))
            told = f"{rate:12,.1f} pictures/s" if rate else ""
            terminalreporter.write_line(f"{group:<60}{who:<28}{median * 1e6:14,.1f} us{ratio}{told}")
