"""Processes of the benchmark of a CUDA device: the project's tests, compute-sanitizer, their end in time."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("torch")

from benchmarks import cuda, cuda_checks, cuda_processes, cuda_report, cuda_tests

# --- tests of the project

JUNIT = """<testsuites><testsuite>
<testcase classname="tests.ops.test_cuda" name="test_agrees[cuda_device-P3-P5]"/>
<testcase classname="tests.ops.test_cuda" name="test_agrees[cuda_on_cpu-P3-P5]"><skipped/></testcase>
<testcase classname="tests.ops.test_cuda_device" name="test_dlpack"><skipped message="none"/></testcase>
<testcase classname="tests.engines.test_torch_engine" name="test_on_a_cuda_device[cuda-float16]">
<failure/></testcase>
<testcase classname="tests.engines.test_torch_engine" name="test_b"><system-out/></testcase>
</testsuite></testsuites>"""


def test_what_ran_on_the_device_is_counted(tmp_path: Path) -> None:
    (tmp_path / "report.xml").write_text(JUNIT, encoding="utf-8")
    counts = cuda_tests.count(tmp_path / "report.xml")
    assert counts["device"] == {"passed": 1, "skipped": 1, "failed": 1}
    assert counts["host"] == {"passed": 1, "skipped": 1, "failed": 0}


def test_skipped_tests_are_not_right_where_there_is_a_device() -> None:
    some, none, all_ran = (
        {"passed": passed, "skipped": skipped, "failed": 0} for passed, skipped in ((3, 2), (0, 5), (5, 0))
    )
    assert cuda_tests.is_right(0, none, "cpu", with_kernels=False)
    for with_kernels in (False, True):
        assert not cuda_tests.is_right(0, none, "cuda:0", with_kernels=with_kernels)
        assert cuda_tests.is_right(0, all_ran, "cuda:0", with_kernels=with_kernels)
        assert not cuda_tests.is_right(1, all_ran, "cuda:0", with_kernels=with_kernels)
    assert cuda_tests.is_right(0, some, "cuda:0", with_kernels=False)
    assert not cuda_tests.is_right(0, some, "cuda:0", with_kernels=True)


def test_the_tests_of_a_device_are_all_run_and_known_by_their_names() -> None:
    root = cuda_checks.ROOT / "tests"
    mine = {file for file in root.rglob("test_*.py") if "cuda_device" in file.read_text(encoding="utf-8")}
    files = {cuda_checks.ROOT / name for name in cuda_tests.FILES}
    assert all(file.is_file() for file in files)
    assert mine - {Path(__file__)} <= files


def test_without_pytest_something_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_tests, "NEEDED", ("pytest", "there_is_no_such_module"))
    found = cuda_tests.tests("cuda:0", with_kernels=True)
    assert "there_is_no_such_module; pip install '.[test]'" in found["missing"]
    assert not cuda.is_bad("tests", found)
    assert "Not run: not installed" in cuda_report.markdown({"quick": True, "tests": found})


def test_the_device_of_the_tests_is_the_one_that_was_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert "CUDA_VISIBLE_DEVICES" not in cuda_tests.visible("cuda:0")
    assert cuda_tests.visible("cuda:2")["CUDA_VISIBLE_DEVICES"] == "2"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-7")
    assert cuda_tests.visible("cuda:0")["CUDA_VISIBLE_DEVICES"] == "5,GPU-7"
    assert cuda_tests.visible("cuda:1")["CUDA_VISIBLE_DEVICES"] == "GPU-7"


# --- compute-sanitizer

REPORTS = """========= COMPUTE-SANITIZER
========= Invalid __global__ read of size 4 bytes
=========     at retinaface_decode(retinaface::cuda::Decode)+0x1d0
=========     by thread (0,0,0) in block (1,0,0)
=========     Saved host backtrace up to driver entry point at kernel launch time
=========         Host Frame: torch::cudnn() [0x1] in libtorch.so
=========
========= Race reported between Write access at void at::native::some_kernel<int>()+0x10
=========     and Read access at void at::native::some_kernel<int>()+0x20
=========         Host Frame: retinaface_gather() [0x2] in retinaface_fast/_cuda.so
=========         Host Frame: main in /home/retinaface_fast/python
=========
14 cases and some hard ones are right
========= ERROR SUMMARY: 2 errors"""


def test_reports_of_the_sanitizer_name_our_kernels_or_do_not() -> None:
    ours, others = cuda_checks.split_reports(REPORTS.splitlines())
    assert [report.splitlines()[0] for report in ours] == ["Invalid __global__ read of size 4 bytes"]
    assert [report.split(" between")[0] for report in others] == ["Race reported"]
    clean = ["========= COMPUTE-SANITIZER", "all right", "========= ERROR SUMMARY: 0 errors"]
    assert cuda_checks.split_reports(clean) == ([], [])


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs groups of processes")
def test_the_sanitizer_is_called_with_what_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "compute-sanitizer"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nprint(*sys.argv[1:])\nprint({REPORTS!r})\nsys.exit(86)"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = cuda_checks.sanitizer("cuda:0")
    assert list(found["tools"]) == ["memcheck", "racecheck", "synccheck"]
    assert not found["clean"]
    assert cuda.is_bad("sanitizer", found)
    for tool, result in found["tools"].items():
        assert result["exit"] == 86
        words = result["lines"][0].split()
        assert words[:2] == ["--tool", tool]
        assert ("--report-api-errors" in words) == (tool == "memcheck")
        assert words[-5:] == ["benchmarks.cuda", "--device", "cuda:0", "--child", tool]
        assert result["summary"][-1] == "1 reports name a kernel of this package, 1 do not"
    assert "**exit code 86**" in cuda_report.markdown({"quick": True, "sanitizer": found})


# --- processes


def is_alive(pid: int) -> bool:
    state = Path(f"/proc/{pid}/stat")
    return state.exists() and state.read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize("deaf", [False, True])
def test_who_takes_too_long_ends_with_all_that_it_started(deaf: bool, tmp_path: Path) -> None:
    """A part, what it runs in a session of its own, and a process that this has started in turn."""
    pids = tmp_path / "pids"
    ignore = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " if deaf else ""
    wait = f"{ignore}import os, time; open({str(pids)!r}, 'a').write(f'{{os.getpid()}} '); time.sleep(60)"
    parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {wait!r}]); {wait}"
    part = (
        "import sys; from benchmarks import cuda_processes as p; p.end_orderly(); "
        f"p.run([sys.executable, '-c', {parent!r}], seconds=60, grace=0.5)"
    )
    with pytest.raises(subprocess.TimeoutExpired):
        cuda_processes.run([sys.executable, "-c", part], seconds=3, grace=5, cwd=cuda_checks.ROOT)
    started = [int(pid) for pid in pids.read_text(encoding="utf-8").split()]
    assert len(started) == 2
    stop = time.monotonic() + 5
    while any(map(is_alive, started)) and time.monotonic() < stop:
        time.sleep(0.02)
    assert not any(map(is_alive, started))


def test_what_is_said_comes_back() -> None:
    done = cuda_processes.run(
        [sys.executable, "-c", "print('yes'); raise SystemExit(3)"], seconds=60, stdout=subprocess.PIPE
    )
    assert (done.returncode, done.stdout) == (3, "yes\n")
