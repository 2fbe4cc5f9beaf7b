"""The benchmark of a CUDA device as far as it goes without one, with the kernels on the CPU where built."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("torch")

from benchmarks import (
    by_torchvision,
    cuda,
    cuda_cases,
    cuda_checks,
    cuda_footprint,
    cuda_rates,
    cuda_report,
    cuda_ways,
)
from benchmarks.opponents import Options

from retinaface_fast import ops
from tests.ops import device_arrays

if TYPE_CHECKING:
    from pathlib import Path

SIZE = (45, 70)


@pytest.fixture
def pictures() -> list[cuda_cases.UInt8Array]:
    rng = np.random.default_rng(4)
    return [rng.integers(0, 256, size, np.uint8) for size in ((40, 50, 3), (90, 30, 3))]


def faces(*boxes: tuple[float, float, float, float], score: float = 0.5) -> ops.Faces:
    count = len(boxes)
    return ops.Faces(
        np.float32(boxes).reshape(-1, 4),
        np.full(count, score, np.float32),
        np.zeros((count, 5, 2), np.float32),
    )


def test_a_difference_in_one_bit_is_found() -> None:
    case = cuda_cases.random_case("random", SIZE, 2, seed=1)
    expected = cuda_ways.on_the_cpu(case, Options(0.3))
    assert min(len(found.scores) for found in expected) > 2
    assert cuda_checks.difference(expected, expected) == ""
    changed = [ops.Faces(*(part.copy() for part in found)) for found in expected]
    changed[1].boxes[2, 3] = np.nextafter(changed[1].boxes[2, 3], np.float32(0))
    assert cuda_checks.difference(changed, expected).startswith("image 1: boxes[2, 3] is ")
    fewer = [expected[0], ops.Faces(*(part[:-1] for part in expected[1]))]
    assert "faces instead of" in cuda_checks.difference(fewer, expected)
    assert cuda_checks.difference(expected[:1], expected) == "1 images instead of 2"


def test_negative_zero_differs_and_nan_does_not() -> None:
    zero, minus, nan = faces((0, 0, 1, 1)), faces((-0.0, 0, 1, 1)), faces((0, 0, np.nan, 1))
    other_nan = faces((0, 0, 1, 1))
    other_nan.boxes.view(np.uint32)[0, 2] = 0xFFC00001
    assert cuda_checks.difference([zero], [minus])
    assert not cuda_checks.difference([nan], [other_nan])


def test_faces_without_partner() -> None:
    some, others = faces((0, 0, 9, 9), (20, 20, 30, 30)), faces((20, 20, 30.01, 30), (50, 0, 60, 9))
    assert cuda_checks.without_partner([some], [others]) == (2, 4)
    assert cuda_checks.without_partner([some], [some]) == (0, 4)
    assert cuda_checks.without_partner([some], [faces()]) == (2, 2)
    assert cuda_checks.without_partner([some], [faces(*some.boxes, score=0.6)]) == (4, 4)


def test_torch_path_on_hard_cases() -> None:
    rows = [
        cuda_checks.check(case, options, "cpu", with_kernels=False, repeats=1)
        for case, options in cuda_checks.hard_cases(3)
    ]
    assert [row["wrong"] for row in rows] == [{}] * 3
    assert sum(row["faces"] for row in rows) > 10


def test_a_wrong_answer_is_told_and_has_no_times(monkeypatch: pytest.MonkeyPatch) -> None:
    case = cuda_cases.random_case("random", SIZE, 2, seed=2)
    right = cuda_ways.torch_path

    def wrong(*arguments: Any) -> list[ops.Faces]:
        found = right(*arguments)
        found[0].scores[0] *= np.float32(0.999)
        return found

    monkeypatch.setattr(cuda_ways, "torch_path", wrong)
    assert (
        "scores"
        in cuda_checks.check(case, Options(0.5), "cpu", with_kernels=False, repeats=1)["wrong"]["torch path"]
    )
    row = race(case)
    assert list(row["failed"]) == ["torch path, to the host"]
    assert "torch path, to the host" not in row["seconds"]
    assert cuda.is_bad("times", {"rows": [row]})
    assert "no times: image 0" in cuda_report.markdown({"quick": True, "times": {"rows": [row]}})


def race(case: cuda_cases.Case, **changes: Any) -> dict[str, Any]:
    options = argparse.Namespace(device="cpu", quick=True)
    tensors = cuda_cases.on_device(case, "cpu")
    return cuda.race(case, tensors, Options(0.5), options, **{"with_kernels": False, **changes})


def test_everyone_has_turns() -> None:
    row = race(cuda_cases.random_case("random", SIZE, 2, seed=3))
    assert row["failed"] == {}
    assert len(row["seconds"]) >= 2
    for seconds in row["seconds"].values():
        assert 0 < seconds["wall"]["low"] <= seconds["wall"]["median"] <= seconds["wall"]["high"]
        assert seconds["wall"]["rounds"] == 3
        assert seconds["in_a_row"] is None


def test_kernels_on_the_cpu_are_right(monkeypatch: pytest.MonkeyPatch) -> None:
    module = device_arrays.cuda_on_cpu()
    if module is None:
        pytest.skip(device_arrays.NOT_HERE)
    monkeypatch.setitem(sys.modules, device_arrays.MODULE, module)

    def kernels(case: cuda_cases.Case, tensors: cuda_cases.Tensors, options: Options) -> Any:
        from retinaface_fast.ops import cuda as cuda_ops

        levels = ([device_arrays.WithInterface(level.numpy()) for level in part] for part in tensors)
        return cuda_ops.postprocess(*levels, case.image_size_hw, **options._asdict())

    monkeypatch.setattr(cuda_ways, "kernels", kernels)
    for case, options in cuda_checks.hard_cases(2):
        assert cuda_checks.check(case, options, "cpu", with_kernels=True, repeats=2)["wrong"] == {}
    row = race(cuda_cases.random_case("random", SIZE, 2, seed=3), with_kernels=True)
    assert row["failed"] == {}
    assert {cuda_ways.KERNELS, cuda_ways.KERNELS + cuda_ways.TO_HOST} <= row["seconds"].keys()


def test_composed_pictures_differ_and_repeat(pictures: list[cuda_cases.UInt8Array]) -> None:
    first, again, second = (cuda_cases.compose(pictures, (100, 333), number) for number in (0, 0, 1))
    assert first.shape == (100, 333, 3)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, second)


def test_real_outputs_are_batches(pictures: list[cuda_cases.UInt8Array]) -> None:
    case = cuda_cases.real_case("real", pictures, SIZE, 2)
    assert case.batch_size == 2
    assert [level.shape[2] for level in case.outputs.landmark_deltas] == [10, 10, 10]
    assert case.probabilities.shape == (2, ops.generate_anchors(SIZE).shape[0])


def test_no_picture_is_told(tmp_path: Path) -> None:
    with pytest.raises(cuda_cases.MissingPicturesError, match="no picture could be read"):
        cuda_cases.read_pictures([tmp_path])


def test_rates_go_on_where_one_fails(
    pictures: list[cuda_cases.UInt8Array], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_rates, "SIZES", {"small": SIZE})
    monkeypatch.setattr(cuda_cases, "VGA", SIZE)
    monkeypatch.setattr(
        cuda_rates, "rate", lambda call, count, seconds: {"median": 1.0, "low": 1.0, "high": 1.0}
    )
    monkeypatch.setenv("RETINAFACE_FAST_CACHE", "nowhere")
    monkeypatch.setenv("RETINAFACE_FAST_OFFLINE", "0")  # and back afterwards
    rows = cuda_rates.rates(pictures, "cpu", quick=True)["rows"]
    who = [(row["model"], row["who"], "rate" in row) for row in rows]
    assert ("mobilenet0.25", "torch on cpu, float32", True) in who
    assert ("mobilenet0.25", "torch on cpu, float32 as torch does it (TF32)", True) in who
    assert ("mobilenet0.25", "native on the CPU", True) in who
    assert ("mobilenet0.25", "torch on cpu, float16", False) in who  # not on a CPU
    assert ("resnet50", "torch on cpu, float32", False) in who  # no weights
    missing = [row for row in rows if "missing" in row]
    assert [row["who"] for row in missing if row["model"] == "mobilenet0.25"] == ["torch on cpu, float16"]
    assert sum(row["model"] == "resnet50" for row in missing) == 3
    batches = [row for row in rows if row.get("pictures") == 2 and "TF32" in row["who"]]
    assert batches[0]["beside_float32"]["without_partner"] == 0
    assert not cuda.is_bad("rates", {"rows": rows})
    report = cuda_report.markdown({"quick": True, "rates": {"rows": rows}})
    # One line for each reason, in a few words.
    assert [line.split(" | ")[0] for line in report.splitlines() if "not run: " in line] == [
        "| mobilenet0.25",
        "| resnet50",
    ]
    assert "not run: needs a CUDA device |" in report
    assert "not run: its weights are not here (--download fetches them) |" in report


def test_a_rate_that_fails_is_no_success(
    pictures: list[cuda_cases.UInt8Array], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_arguments: Any, **_options: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(cuda_rates, "rate", broken)
    monkeypatch.setattr(cuda_cases, "VGA", SIZE)
    what = {"model": "mobilenet0.25", "who": "native on the CPU"}
    rows = cuda_rates.rates_of(what, pictures, {"engine": "native", "device": "cpu"}, quick=True)
    assert [row["failed"] for row in rows] == ["RuntimeError: out of memory"] * 2
    assert cuda.is_bad("rates", {"rows": rows})
    assert "**failed: RuntimeError" in cuda_report.markdown({"quick": True, "rates": {"rows": rows}})


def test_tf32_is_what_was_asked_for_and_comes_back() -> None:
    before = cuda_rates.tf32_flags()
    with cuda_rates.tf32(cuda_rates.WITHOUT_TF32):
        assert cuda_rates.tf32_flags() == {"cudnn": False, "matmul": False}
        with cuda_rates.tf32({"cudnn": True, "matmul": True}):
            assert cuda_rates.tf32_flags() == {"cudnn": True, "matmul": True}
        assert cuda_rates.tf32_flags() == {"cudnn": False, "matmul": False}
    assert cuda_rates.tf32_flags() == before


def test_float16_beside_float32() -> None:
    some = faces((0, 0, 10, 10), (50, 50, 70, 70))
    others = faces((0, 0, 10, 10.5), (150, 50, 170, 70), score=0.4)
    found = cuda_rates.differences([some, faces()], [others, faces()])
    # A face at another place is one too many here and one too few there.
    assert found == {"without_partner": 2, "score": pytest.approx(0.1), "pixels": pytest.approx(0.5)}


def test_faces_that_are_alone_count_the_same_in_both_directions() -> None:
    a, b = (0.0, 0.0, 10.0, 10.0), (50.0, 50.0, 70.0, 70.0)
    for some, others, alone in (
        (faces(a), faces(a), 0),
        (faces(a, b), faces(a), 1),
        (faces(a), faces(a, b), 1),
        (faces(b), faces(a, b), 1),
        (faces(), faces(a, b), 2),
        (faces(a), faces(b), 2),
        (faces(a, a), faces(a, b), 2),
        (faces(a, a), faces(a), 1),
        (faces(), faces(), 0),
    ):
        assert cuda_rates.differences([some], [others])["without_partner"] == alone
        assert cuda_rates.differences([others], [some])["without_partner"] == alone


@pytest.mark.skipif(not by_torchvision.is_here(), reason="torchvision is not here")
def test_torchvision_has_the_same_faces() -> None:
    for options in (Options(0.5), Options(0.02, top_k=300, keep_top_k=40), Options(0.999), Options(1.0)):
        case = cuda_cases.random_case("random", (93, 121), 3, seed=5)
        expected = cuda_ways.on_the_cpu(case, options)
        tensors = cuda_cases.on_device(case, "cpu")
        found = cuda_ways.to_faces(cuda_ways.by_batched_nms(case, tensors, options), 3)
        assert [len(faces.scores) for faces in found] == [len(faces.scores) for faces in expected]
        assert cuda_checks.without_partner(found, expected)[0] == 0
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours.landmarks, theirs.landmarks, rtol=0, atol=1e-3)


def test_random_outputs_fill_top_k() -> None:
    options = argparse.Namespace(quick=True, pictures=[])
    cases = [case for case, _ in cuda.plan(options) if "full" in case.name]
    assert [case.batch_size for case in cases] == [1, 2]
    for case in cases:
        assert ((case.probabilities > 0.02).sum(axis=1) > 10_000).all()


# --- memory


class Memory:
    """A device with so much left after each question."""

    def __init__(self, *free: int) -> None:
        self.free = list(free)

    def __call__(self, _device: str) -> tuple[int, int]:
        return self.free.pop(0), 1000


def test_the_memory_of_a_pool_is_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "synchronize", lambda _device: None)
    # 100 taken, of which 30 go back after the wait; nothing more; then another 50 on top of 70.
    monkeypatch.setattr(torch.cuda, "mem_get_info", Memory(900, 800, 830, 830, 830, 830, 830, 780, 780))
    pool = cuda_footprint.Pool("cuda:0")
    assert [pool.after(lambda: None) for _ in range(3)] == [100, 70, 120]


def test_the_footprint_of_everyone_or_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    case = cuda_cases.random_case("random", SIZE, 2, seed=3)
    monkeypatch.setattr(cuda_footprint, "peak_of_torch", lambda call, _device: len(call()) * 2**20)
    counts = {"kernels": 7, "copies": 1, "fills": 2}
    monkeypatch.setattr(cuda_footprint, "launches", lambda call, _device: counts if call() else None)

    def fails(*_arguments: Any) -> None:
        raise RuntimeError("no more")

    monkeypatch.setattr(cuda_ways, "torch_path", fails)
    found = cuda_footprint.footprint([(case, Options(0.5))], "cpu", with_kernels=False)
    [row] = found["rows"]
    assert row["failed"] == {"torch path, to the host": "RuntimeError: no more"}
    assert row["launches"].keys() == row["memory"].keys() != set()
    assert cuda.is_bad("footprint", found)
    report = cuda_report.markdown({"quick": True, "footprint": found})
    assert "| 7 | 1 | 2 | 2.0 |" in report
    assert "**RuntimeError: no more**" in report
    assert not cuda.is_bad("footprint", {"missing": "cpu is no CUDA device"})


def test_a_part_that_fails_does_not_stop_the_others(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "no-pictures"
    missing.mkdir()
    arguments = ["--device", "cpu", "--quick", "--pictures", str(missing), "--out", str(tmp_path / "out")]
    assert cuda.main([*arguments, "--parts", "times", "machine"]) == 1
    record = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert "MissingPicturesError" in record["times"]["failed"]
    assert record["machine"]["device"] == "cpu"
    report = (tmp_path / "out" / "results.md").read_text(encoding="utf-8")
    assert "## Machine" in report
    assert "MissingPicturesError" in report
    assert "not as it should be: times" in capfd.readouterr().err
