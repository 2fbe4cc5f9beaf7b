"""All that is to be known of the post-processing on a CUDA device, in one go.

    python -m benchmarks.cuda [--out DIR] [--quick] [--device cuda:N] [--pictures FILE_OR_FOLDER …]

Needs torch, and for all of it a build with the kernels (docs/cuda.md), torchvision, what `.[test]` installs
and compute-sanitizer. The parts:

- machine: the GPU, its driver, versions, what the build holds, whether torch may round to TF32;
- tests: those of the bindings and of the engine, on the device;
- correctness: kernels and torch path beside `ops.postprocess` on the CPU, bit for bit, on real outputs, on
  small ones with everything that can go wrong, and on more than a million random candidates;
- sanitizer: memcheck, racecheck and synccheck of compute-sanitizer over small cases;
- times: one and 64 VGA images and one 4K image, real and with all the candidates that top_k lets through,
  beside torchvision's operations and the CPU;
- footprint: kernels, copies and fills of a call, and the memory that it takes on the device;
- rates: pictures per second of the whole detection, in float32 without TF32, in float32 as torch does it,
  and in float16.

Each part has a process of its own, so that one that crashes or hangs does not take the others along, and
that the profiler of the footprint is nowhere near a clock. Writes results.json and results.md; the exit code
is 1 if an answer was wrong or a part failed; what is missing on the machine is named and is no failure. It
is 2 if an option cannot be served, and 130 after Ctrl-C. With `--device cpu` all runs but the kernels, the
sanitizer, the footprint and the clock of the device: whether the script works.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import (
    cuda_cases,
    cuda_checks,
    cuda_footprint,
    cuda_options,
    cuda_processes,
    cuda_rates,
    cuda_report,
    cuda_tests,
    cuda_ways,
)
from benchmarks.opponents import Options
from retinaface_fast.latency.machine import available_threads, describe_machine

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

#: Nothing takes longer that is not hanging.
PART_SECONDS = 3 * 3600
NEEDS_DEVICE = "needs a CUDA device"
#: What a shell gives for a program that Ctrl-C has ended.
INTERRUPTED = 130


def has_kernels(device: str) -> str:
    """Why the kernels cannot be used on a torch device; empty if they can."""
    import torch

    if torch.device(device).type != "cuda":
        return NEEDS_DEVICE
    from retinaface_fast.ops import cuda

    return cuda.obstacle(torch.device(device).index or 0) or ""


def said_by(*command: str) -> str | None:
    """What a program prints; None if it is not there or fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=60, cwd=Path(__file__).parent
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def machine(options: argparse.Namespace) -> dict[str, Any]:
    import torch

    facts: dict[str, Any] = {
        **describe_machine(),
        "device": options.device,
        "torch": torch.__version__,
        "torch_cuda": torch.version.cuda,
        "commit": said_by("git", "describe", "--always", "--dirty", "--abbrev=12"),
        "kernels": has_kernels(options.device) or "usable",
        "nvidia_smi": said_by(
            "nvidia-smi",
            "--query-gpu=index,name,driver_version,memory.total,clocks.max.sm,clocks.max.mem,power.limit",
            "--format=csv",
        ),
        "nvcc": said_by("nvcc", "--version"),
        "cudnn": torch.backends.cudnn.version(),
        "tf32": cuda_rates.tf32_flags(),
    }
    try:
        import torchvision
    except ImportError:
        facts["torchvision"] = None
    else:
        facts["torchvision"] = torchvision.__version__
    try:
        from retinaface_fast.ops import cuda
    except ImportError:
        pass
    else:
        facts["architectures"] = list(cuda.architectures()) if cuda.is_built() else []
    if torch.device(options.device).type == "cuda":
        properties = torch.cuda.get_device_properties(options.device)
        facts["gpu"] = {
            "name": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "memory": properties.total_memory,
        }
    return facts


def tests(options: argparse.Namespace) -> dict[str, Any]:
    return cuda_tests.tests(options.device, with_kernels=not has_kernels(options.device))


def correctness(options: argparse.Namespace) -> dict[str, Any]:
    pictures = cuda_cases.read_pictures(options.pictures)
    obstacle = has_kernels(options.device)
    found = cuda_checks.correctness(pictures, options.device, with_kernels=not obstacle, quick=options.quick)
    return {"kernels": obstacle or "checked", **found}


def sanitizer(options: argparse.Namespace) -> dict[str, Any]:
    obstacle = has_kernels(options.device)
    return {"missing": obstacle} if obstacle else cuda_checks.sanitizer(options.device)


def plan(options: argparse.Namespace) -> Iterator[tuple[cuda_cases.Case, tuple[float, ...]]]:
    """What is timed and measured, by number of anchors, and at which thresholds."""
    pictures = cuda_cases.read_pictures(options.pictures)
    many = 2 if options.quick else 64
    batches = [("1 VGA image", cuda_cases.VGA, 1), (f"{many} VGA images", cuda_cases.VGA, many)]
    if not options.quick:
        batches.insert(1, ("1 image of 4096x2160", cuda_cases.UHD, 1))
    for name, size, batch_size in batches:
        # A picture has few candidates, even at 0.02. Nearly all of the 12,600 random outputs of a VGA image
        # are some, so that top_k, 5,000, has something to choose from, and suppression to compare.
        yield cuda_cases.real_case(name, pictures, size, batch_size), (0.02, 0.5)
        yield cuda_cases.random_case(f"{name}, random, full", size, batch_size, seed=11), (0.02,)


def times(options: argparse.Namespace) -> dict[str, Any]:
    with_kernels = not has_kernels(options.device)
    rows = []
    for case, thresholds in plan(options):
        tensors = cuda_cases.on_device(case, options.device)
        rows += [
            race(case, tensors, Options(threshold), options, with_kernels=with_kernels)
            for threshold in thresholds
        ]
    return {"rows": rows, "not_run": cuda_ways.not_run(has_kernels(options.device))}


def footprint(options: argparse.Namespace) -> dict[str, Any]:
    if options.device == "cpu":
        return {"missing": NEEDS_DEVICE}
    cases = [(case, Options(limit)) for case, limits in plan(options) for limit in limits]
    obstacle = has_kernels(options.device)
    found = cuda_footprint.footprint(cases, options.device, with_kernels=not obstacle)
    return {**found, "not_run": cuda_ways.not_run(obstacle)}


def race(
    case: cuda_cases.Case,
    tensors: cuda_cases.Tensors,
    limits: Options,
    options: argparse.Namespace,
    *,
    with_kernels: bool,
) -> dict[str, Any]:
    """Answers first; who answers otherwise, or fails, has no times."""
    expected = cuda_ways.on_the_cpu(case, limits)
    ways = cuda_ways.contestants(
        case, tensors, limits, with_kernels=with_kernels, threads=min(8, available_threads())
    )
    failed: dict[str, str] = {}
    partners: dict[str, tuple[int, int]] = {}
    for name, call in list(ways.items()):
        try:
            found = call()
            if isinstance(found, list) and name.startswith(cuda_ways.TORCHVISION):
                alone, total = partners[name] = cuda_checks.without_partner(found, expected)
                said = f"{alone} of {total} differ" if alone > max(1, cuda_checks.ODD_ONES * total) else ""
            else:
                said = cuda_checks.difference(found, expected) if isinstance(found, list) else ""
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
        if said:
            failed[name] = said
    # What stays on the device was looked at in its other form.
    fit = {n: call for n, call in ways.items() if n not in failed and n + cuda_ways.TO_HOST not in failed}
    return {
        "case": case.name,
        "batch": case.batch_size,
        "size_hw": case.image_size_hw,
        "options": limits._asdict(),
        "candidates": int((case.probabilities > limits.score_threshold).sum()),
        "faces": sum(len(faces.scores) for faces in expected),
        "failed": failed,
        "partners": partners,
        "seconds": cuda_ways.timed(fit, options.device, rounds=3 if options.quick else 30),
    }


def rates(options: argparse.Namespace) -> dict[str, Any]:
    pictures = cuda_cases.read_pictures(options.pictures)
    return cuda_rates.rates(pictures, options.device, quick=options.quick, download=options.download)


PARTS = {part.__name__: part for part in (machine, tests, correctness, sanitizer, times, footprint, rates)}


def in_own_process(part: str, arguments: list[str]) -> dict[str, Any]:
    """The result of a part, or `failed` with what it said."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        command = [
            sys.executable,
            "-m",
            "benchmarks.cuda",
            *arguments,
            "--part",
            part,
            "--answer",
            str(answer),
        ]
        try:
            done = cuda_processes.run(command, seconds=PART_SECONDS, grace=30.0, stderr=subprocess.PIPE)
        except subprocess.TimeoutExpired:
            return {"failed": f"took more than {PART_SECONDS // 3600} hours"}
        if answer.exists():
            result: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
            return result
        return {"failed": f"exit code {done.returncode}\n{done.stderr[-4000:]}"}


def is_bad(part: str, result: dict[str, Any]) -> bool:
    """Whether a part failed or found something wrong."""
    if "failed" in result or result.get("right") is False or result.get("clean") is False:
        return True
    rows = result.get("rows", []) if part in ("times", "footprint", "rates") else []
    return any(row.get("failed") for row in rows)


def run_parts(options: argparse.Namespace) -> int:
    """One after the other, and what they found written after each; the exit code."""
    passed_on = [
        "--device",
        options.device,
        *(f"--{name}" for name in ("quick", "download") if getattr(options, name)),
    ]
    if options.pictures:
        passed_on += ["--pictures", *(str(path.resolve()) for path in options.pictures)]
    report = options.out / "results.md"
    record: dict[str, Any] = {"quick": options.quick}
    done: list[str] = []
    bad = []
    try:
        for part in options.parts:
            print(f"{part} …", flush=True)
            record[part] = in_own_process(part, passed_on)
            if is_bad(part, record[part]):
                bad.append(part)
            # After each, so that what was measured is not lost with what comes next.
            (options.out / "results.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
            report.write_text(cuda_report.markdown(record), encoding="utf-8")
            done.append(part)
    except KeyboardInterrupt:
        # A report that lies there without a part of this run is from an earlier one.
        so_far = f"what is done so far: {report}" if done else "nothing is done so far"
        print(f"interrupted; {so_far}", file=sys.stderr)
        return INTERRUPTED
    print(cuda_report.markdown(record))
    print(f"{options.out}/results.json and results.md")
    if bad:
        print(f"not as it should be: {', '.join(bad)}", file=sys.stderr)
    return 1 if bad else 0


def main(arguments: list[str] | None = None) -> int:
    options = cuda_options.parser(__doc__.splitlines()[0], PARTS).parse_args(arguments)
    if not options.part and not options.child:
        try:
            options.device = cuda_options.check_device(options.device)
            cuda_options.check_out(options.out)
        except cuda_options.RefusedError as error:
            print(error, file=sys.stderr)
            return 2
        except KeyboardInterrupt:  # importing torch can take a while
            print("interrupted; nothing is done so far", file=sys.stderr)
            return INTERRUPTED
        return run_parts(options)

    if options.device != "cpu":
        import torch

        torch.cuda.set_device(options.device)
    if options.child:
        return cuda_checks.child(options.device)
    try:
        result = PARTS[options.part](options)
    except Exception:
        result = {"failed": traceback.format_exc()}
    Path(options.answer).write_text(json.dumps(result), encoding="utf-8")
    return 0


if __name__ == "__main__":
    cuda_processes.end_orderly()
    sys.exit(main())
