"""Whether the answers of `benchmarks.cuda` are right, and what compute-sanitizer says of their making."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import cuda_cases, cuda_processes, cuda_ways
from benchmarks.opponents import Options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.cuda_cases import Case, UInt8Array
    from retinaface_fast import ops

ROOT = Path(__file__).resolve().parents[1]
ALL = 2**31 - 1

#: A face of torchvision's is ours if its box is this close in pixels and its score this close; of so many
#: faces, one may have no partner: where an overlap is at the threshold, rounding decides.
NEAR_PIXELS, NEAR_SCORE, ODD_ONES = 0.05, 1e-4, 0.005

#: What compute-sanitizer exits with when it has found something.
FOUND = 86
#: Not initcheck: `to_host` copies rows before it knows how many there are, and the last were never written.
#: Memcheck alone reports errors of the API, of which torch makes some on purpose to learn what a driver can.
TOOLS: dict[str, tuple[str, ...]] = {
    "memcheck": ("--report-api-errors", "no"),
    "racecheck": (),
    "synccheck": (),
}
#: A kernel of ours, not a path to the package.
OUR_KERNEL = re.compile(r"\bretinaface_(?!fast\b)\w+")


def difference(found: list[ops.Faces], expected: list[ops.Faces]) -> str:
    """In words, the first difference in a bit; empty if there is none. One NaN is like another."""
    if len(found) != len(expected):
        return f"{len(found)} images instead of {len(expected)}"
    for image, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        if len(ours.scores) != len(theirs.scores):
            return f"image {image}: {len(ours.scores)} faces instead of {len(theirs.scores)}"
        for part in ours._fields:
            a, b = (np.ascontiguousarray(getattr(faces, part), dtype=np.float32) for faces in (ours, theirs))
            differ = (a.view(np.uint32) != b.view(np.uint32)) & ~(np.isnan(a) & np.isnan(b))
            if a.shape != b.shape or differ.any():
                at = tuple(int(i) for i in np.argwhere(differ)[0]) if a.shape == b.shape else ()
                return f"image {image}: {part}{list(at)} is {a[at]} instead of {b[at]}"
    return ""


def attempt(call: Callable[[], list[ops.Faces]], expected: list[ops.Faces]) -> str:
    """In words, the first difference in a bit, or the error; empty if there is neither."""
    try:
        return difference(call(), expected)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def without_partner(found: list[ops.Faces], expected: list[ops.Faces]) -> tuple[int, int]:
    """How many faces of either have none in the other that is near, and how many there are in both."""
    alone = total = 0
    for ours, theirs in zip(found, expected, strict=True):
        total += len(ours.scores) + len(theirs.scores)
        for some, others in ((ours, theirs), (theirs, ours)):
            for rows in np.array_split(np.arange(len(some.scores)), len(some.scores) // 512 + 1):
                apart = np.abs(some.boxes[rows, None] - others.boxes[None]).max(axis=2, initial=0)
                scores = np.abs(some.scores[rows, None] - others.scores[None])
                alone += int(np.sum(~((apart < NEAR_PIXELS) & (scores < NEAR_SCORE)).any(axis=1)))
    return alone, total


def hard_cases(count: int) -> Iterator[tuple[Case, Options]]:
    """Small ones with everything that can go wrong, each with options of its own."""
    for seed in range(count):
        rng = np.random.default_rng(1000 + seed)
        size = int(rng.integers(1, 400)), int(rng.integers(1, 400))
        case = cuda_cases.random_case(
            f"hard {seed}: {size[1]}x{size[0]}",
            size,
            int(rng.integers(1, 5)),
            seed=seed,
            mean_logit=float(rng.choice((-6.0, -1.0, 3.0))),
            hard=True,
        )
        limits = (1, 2, 31, 32, 33, 500, 2048, 2049, 5000, ALL)
        options = Options(
            float(rng.choice((0.0, 0.02, 0.5, 0.999))),
            float(rng.choice((0.0, 0.3, 0.4, 1.0))),
            int(rng.choice(limits)),
            int(rng.choice(limits)),
        )
        yield case, options


def check(case: Case, options: Options, device: str, *, with_kernels: bool, repeats: int) -> dict[str, Any]:
    """Kernels and torch path on a device beside the CPU, bit for bit, and the kernels beside themselves."""
    expected = cuda_ways.on_the_cpu(case, options)
    tensors = cuda_cases.on_device(case, device)
    ways: dict[str, Callable[[], list[ops.Faces]]] = {
        cuda_ways.TORCH: lambda: cuda_ways.torch_path(case, tensors, options)
    }
    if with_kernels:
        ways[cuda_ways.KERNELS] = lambda: cuda_ways.kernels(case, tensors, options).to_host()
    wrong = {}
    for name, call in ways.items():
        runs = range(repeats if name == cuda_ways.KERNELS else 1)
        said = [(run, attempt(call, expected)) for run in runs]
        wrong[name] = next((f"run {run}: {what}" for run, what in said if what), "")
    return {
        "case": case.name,
        "batch": case.batch_size,
        "options": options._asdict(),
        "candidates": int((case.probabilities > options.score_threshold).sum()),
        "faces": sum(len(faces.scores) for faces in expected),
        "ways": sorted(ways),
        "wrong": {name: said for name, said in wrong.items() if said},
    }


def check_streams(case: Case, options: Options, device: str, *, streams: int = 4, calls: int = 8) -> str:
    """Kernels from several threads, each on a stream of its own: in words what was wrong, or nothing."""
    import torch

    expected = cuda_ways.on_the_cpu(case, options)
    tensors = cuda_cases.on_device(case, device)
    torch.cuda.synchronize(device)
    wrong: list[str] = []

    def work() -> None:
        try:
            with torch.cuda.stream(torch.cuda.Stream(device)):
                pending = [cuda_ways.kernels(case, tensors, options) for _ in range(calls)]
                wrong.extend(difference(faces.to_host(), expected) for faces in pending)
        except Exception as error:  # in a thread it would be lost
            wrong.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=work) for _ in range(streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return next((said for said in wrong if said), "")


def correctness(
    pictures: list[UInt8Array], device: str, *, with_kernels: bool, quick: bool
) -> dict[str, Any]:
    """Every case, real and made up."""
    rows = []

    def add(case: Case, *variants: Options, repeats: int = 5) -> None:
        for options in variants:
            row = check(case, options, device, with_kernels=with_kernels, repeats=repeats)
            rows.append(row)

    usual = Options(0.02), Options(0.5)
    unlimited = Options(0.02, top_k=ALL, keep_top_k=ALL)
    vga = cuda_cases.real_case("real, VGA", pictures, cuda_cases.VGA, 2 if quick else 64)
    add(vga, *usual, unlimited)
    if not quick:
        add(cuda_cases.real_case("real, 4K", pictures, cuda_cases.UHD, 1), *usual)
    for case, options in hard_cases(6 if quick else 60):
        add(case, options, repeats=2)
    # 8K has 1,451,520 anchors, of which 1,440,897 are candidates. Without a top_k, 592,200 of them are faces:
    # some 4e11 pairs, which took a minute on one core in C++. Torch on a CPU would take hours.
    for size in (cuda_cases.VGA,) if quick else (cuda_cases.VGA, (4320, 8192)):
        many = cuda_cases.random_case(f"random, {size[1]}x{size[0]}", size, 1, seed=7)
        add(many, Options(0.02), repeats=3)
        if device != "cpu" or size == cuda_cases.VGA:
            add(many, unlimited, repeats=3)
    streams = check_streams(vga, Options(0.02), device) if with_kernels else None
    wrong = [row for row in rows if row["wrong"]]
    return {
        "rows": rows,
        "streams": streams,
        "right": not wrong and not streams,
        "most_candidates": max(row["candidates"] for row in rows),
    }


# --- compute-sanitizer


def find_sanitizer() -> str | None:
    homes = [os.environ.get(name) for name in ("CUDA_HOME", "CUDA_PATH")]
    folders = [
        Path(home, part)
        for home in (*homes, "/usr/local/cuda")
        if home
        for part in ("bin", "compute-sanitizer")
    ]
    for folder in (None, *map(str, folders)):
        found = shutil.which("compute-sanitizer", path=folder)
        if found:
            return found
    return None


def child(device: str) -> int:
    """What runs under compute-sanitizer: the kernels on small cases, and as little else as can be."""
    import torch

    several = (
        Options(0.02),
        Options(0.02, top_k=ALL, keep_top_k=ALL),
        Options(0.02, top_k=3000, keep_top_k=40),
    )
    cases = [(case, options) for seed in range(2) for case in [small_case(seed)] for options in several]
    for case, options in [*cases, *hard_cases(6)]:
        expected = cuda_ways.on_the_cpu(case, options)
        tensors = cuda_cases.on_device(case, device)
        found = cuda_ways.kernels(case, tensors, options)
        torch.cuda.synchronize(device)
        if said := difference(found.to_host(), expected):
            print(f"{case.name}, {options}: {said}")
            return 1
    print(f"{len(cases)} cases and some hard ones are right")
    return 0


def small_case(seed: int) -> Case:
    return cuda_cases.random_case(f"small {seed}", (160, 192), 3, seed=seed)


def sanitizer(device: str) -> dict[str, Any]:
    """Exit code and last lines of each tool; `missing` where there is none."""
    program = find_sanitizer()
    if program is None:
        return {"missing": "no compute-sanitizer on PATH, in CUDA_HOME, CUDA_PATH or /usr/local/cuda"}
    results = {}
    for tool, arguments in TOOLS.items():
        command = [program, "--tool", tool, *arguments, "--error-exitcode", str(FOUND)]
        command += [sys.executable, "-m", "benchmarks.cuda", "--device", device, "--child", tool]
        # Each tensor an allocation of its own, so that one step too far is noticed.
        environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
        try:
            done = cuda_processes.run(
                command, seconds=1800, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
            )
        except subprocess.TimeoutExpired:
            results[tool] = {"exit": None, "summary": ["took more than half an hour"]}
            continue
        lines = (done.stdout + done.stderr).splitlines()
        summary = [line for line in lines if "SUMMARY" in line or "are right" in line]
        ours, others = split_reports(lines)
        if ours or others:
            summary.append(f"{len(ours)} reports name a kernel of this package, {len(others)} do not")
        results[tool] = {
            "exit": done.returncode,
            "summary": summary or lines[-3:],
            "ours": ours[:20],
            "others": others[:20],
            "lines": lines[:60] if done.returncode else [],
        }
    return {
        "program": program,
        "tools": results,
        "clean": all(result["exit"] == 0 for result in results.values()),
    }


def split_reports(lines: list[str]) -> tuple[list[str], list[str]]:
    """The reports of compute-sanitizer that name a kernel of ours, and those that do not.

    Each is a block of lines that begin with `=========`, up to one with nothing more. The frames of the host
    are not looked at: in each there is somebody who calls us, or whom we call.
    """
    blocks: list[list[str]] = [[]]
    for line in lines:
        text = line.removeprefix("=========").strip() if line.startswith("=========") else ""
        if text:
            blocks[-1].append(text)
        elif blocks[-1]:
            blocks.append([])
    ours: list[str] = []
    others: list[str] = []
    for block in blocks:
        # What is no report: the name of the program at the start, and the sums at the end.
        report = [text for text in block if "SUMMARY" not in text and text != "COMPUTE-SANITIZER"]
        if report:
            named = any(OUR_KERNEL.search(text) for text in report if "Host Frame" not in text)
            (ours if named else others).append("\n".join(report))
    return ours, others
