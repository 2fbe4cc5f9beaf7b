#!/usr/bin/env python3
"""Compiles the CUDA kernels for each processor that a build is for, and looks into what came out.

    python tools/inspect_cuda.py [--build DIR] [--if-present] [--architectures 75 80 90] [--ptx DIR]

Nothing runs on a device. Warnings are errors. Looked at are

- the cubin, whose symbols must have every kernel as an entry point, and no other;
- what ptxas says of each kernel: nothing may be spilled to local memory, and no stack may be needed;
- the PTX, whose arithmetic must be IEEE's, each operation rounded by itself: no fused multiply-add, no
  approximation, no flushed denormal. Only that is the same, bit for bit, as what the host computes.

`--build` takes the compiler and its options from a CMake build with compile_commands.json, so that what is
looked at is what is built; without it there are options of this script. `--ptx` leaves the PTX in a folder,
as sm_75.ptx and so on. The exit code is 1 where something is
wrong, and 2 where there is no nvcc: 0 with `--if-present`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "csrc" / "cuda" / "postprocess.cu"

#: The kernels, all of them: one that is new is added here.
KERNELS = frozenset(
    f"retinaface_{name}" for name in ("compare", "decode", "gather", "overlap", "reduce", "scan", "sort")
)

ARCHITECTURES = ("75", "80", "90")

#: Without `--build`. csrc/cuda/CMakeLists.txt says why.
OPTIONS = ("-std=c++17", "-O3", "--fmad=false", "-Xcompiler=-ffp-contract=off,-Wall,-Wextra,-Werror")

#: What differs from IEEE arithmetic of separate operations.
INEXACT = re.compile(r"\b(?:fma\.|mad\.[\w.]*f(?:32|64)|[\w.]*\.approx\b|[\w.]*\.full\b|[\w.]*\.ftz\b)[\w.]*")
#: Arithmetic that rounds: must say that it is to nearest, and then ptxas does not fuse it either.
ROUNDS = re.compile(r"\b(?:add|sub|mul|div|rcp|sqrt)\.(?:[\w.]*\.)?f(?:16|32|64)\b")

# ELF64, little endian.
SYMBOL_TABLE = 2
FUNCTION = 2
CUDA_ENTRY = 0x10  # in st_other, of what the host can launch


class Resources(NamedTuple):
    """What ptxas says of a kernel."""

    name: str
    registers: int
    shared_bytes: int
    stack_bytes: int
    spilled_bytes: int


def find_nvcc() -> str | None:
    """CUDACXX, PATH, CUDA_HOME or CUDA_PATH, /usr/local/cuda: as csrc/cuda/language.cmake does."""
    named = os.environ.get("CUDACXX")
    if named:
        return shutil.which(named)
    homes = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    for folder in (None, *(str(Path(home, "bin")) for home in (*homes, "/usr/local/cuda"))):
        found = shutil.which("nvcc", path=folder)
        if found:
            return found
    return None


def options_of_build(build: Path) -> list[str]:
    """nvcc and the options that a CMake build compiles the kernels with, but for the processors."""
    for entry in json.loads((build / "compile_commands.json").read_text(encoding="utf-8")):
        if Path(entry["directory"], entry["file"]).resolve() != SOURCE:
            continue
        words = iter(shlex.split(entry["command"]))
        kept = []
        for word in words:
            if word in ("-o", "-x", "-MT", "-MF"):
                next(words)
            elif word not in ("-c", "-MD", entry["file"]) and not word.startswith("--generate-code"):
                kept.append(word)
        return kept
    raise ValueError(f"{build}/compile_commands.json does not compile {SOURCE}: was RETINAFACE_CUDA on?")


def plain_name(symbol: str) -> str:
    """The function's own name in a mangled one, without namespaces, template arguments and parameters."""
    rest = re.sub(r"^_ZN?L?", "", symbol) if symbol.startswith("_Z") else ""
    name = symbol
    while match := re.match(r"L?(\d+)", rest):
        start, length = match.end(), int(match[1])
        name, rest = rest[start : start + length], rest[start + length :]
    return name


def entry_points(cubin: bytes) -> list[str]:
    """Symbols of an ELF file that a host can launch.

    Raises:
        ValueError: If it is not a 64-bit little-endian ELF file.
    """
    if cubin[:6] != b"\x7fELF\x02\x01":
        raise ValueError("not a 64-bit little-endian ELF file")
    (sections_at,) = struct.unpack_from("<Q", cubin, 0x28)
    size, count = struct.unpack_from("<HH", cubin, 0x3A)
    # name, type, flags, address, offset, size, link, info, alignment, size of an entry
    sections = [struct.unpack_from("<IIQQQQIIQQ", cubin, sections_at + k * size) for k in range(count)]
    found = []
    for section in sections:
        if section[1] != SYMBOL_TABLE:
            continue
        names_at = sections[section[6]][4]
        for at in range(section[4], section[4] + section[5], section[9]):
            name, info, other = struct.unpack_from("<IBB", cubin, at)
            if info & 0xF == FUNCTION and other & CUDA_ENTRY:
                start = names_at + name
                found.append(cubin[start : cubin.index(b"\0", start)].decode())
    return found


def resources(said: str) -> list[Resources]:
    """What `nvcc --resource-usage` said, a kernel each."""

    def number(pattern: str, text: str) -> int:
        return sum(int(value) for value in re.findall(pattern, text))

    parts = re.split(r"Compiling entry function '(\S+)' for", said)
    return [
        Resources(
            plain_name(symbol),
            number(r"Used (\d+) registers", text),
            number(r"(\d+) bytes smem", text),
            number(r"(\d+) bytes stack frame", text),
            number(r"(\d+) bytes spill", text),
        )
        for symbol, text in zip(parts[1::2], parts[2::2], strict=True)
    ]


def inexact(ptx: str) -> list[str]:
    """Instructions that another compiler need not round as this one, each once."""
    code = re.sub(r"//.*", "", ptx)
    found = {match[0] for match in INEXACT.finditer(code)}
    found.update(match[0] for match in ROUNDS.finditer(code) if ".rn." not in match[0])
    return sorted(found)


def differences(found: list[str], expected: frozenset[str]) -> list[str]:
    """In words, what kernels are missing and what are not known."""
    names = {plain_name(symbol) for symbol in found}
    return [f"no entry point {name}" for name in sorted(expected - names)] + [
        f"entry point {name} is not in KERNELS of tools/{Path(__file__).name}"
        for name in sorted(names - expected)
    ]


def inspect(compiler: list[str], architecture: str, folder: Path) -> tuple[list[Resources], list[str]]:
    """What each kernel takes on a processor, and what is wrong."""

    def compiled(kind: str, *options: str) -> tuple[bytes, str]:
        output = folder / f"sm_{architecture}.{kind}"
        command = [*compiler, "-Werror=all-warnings", f"-{kind}", *options, "-o", str(output), str(SOURCE)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        if done.returncode:
            raise ChildProcessError(f"{shlex.join(command)}\n{done.stdout}{done.stderr}")
        return output.read_bytes(), done.stdout + done.stderr

    try:
        cubin, said = compiled("cubin", f"-arch=sm_{architecture}", "--resource-usage")
        ptx, _ = compiled("ptx", f"-arch=compute_{architecture}")
    except ChildProcessError as error:
        return [], [str(error)]
    entries = entry_points(cubin)
    wrong = differences(entries, KERNELS)
    used = resources(said)
    if len(used) != len(entries):
        wrong.append(f"{len(entries)} entry points, and ptxas speaks of {len(used)}")
    wrong += [
        f"{kernel.name} has {kernel.stack_bytes} bytes of stack, {kernel.spilled_bytes} spilled"
        for kernel in used
        if kernel.stack_bytes or kernel.spilled_bytes
    ]
    wrong += [f"PTX with {instruction}" for instruction in inexact(ptx.decode())]
    return used, wrong


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, help="folder of a CMake build, whose options are taken")
    parser.add_argument("--if-present", action="store_true", help="without nvcc, say so and exit with 0")
    parser.add_argument("--ptx", type=Path, help="folder that the PTX is left in")
    parser.add_argument("--architectures", nargs="+", default=ARCHITECTURES, metavar="NN")
    parsed = parser.parse_args(arguments)

    nvcc = find_nvcc()
    if parsed.build:
        compiler = options_of_build(parsed.build)
    elif nvcc:
        include = ROOT / "csrc"
        compiler = [nvcc, *OPTIONS, f"-I{include}", f"-I{include / 'include'}"]
    else:
        print("no nvcc (CUDACXX, PATH, CUDA_HOME, CUDA_PATH, /usr/local/cuda): nothing was inspected")
        return 0 if parsed.if_present else 2

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor() as pool:
        results = list(pool.map(lambda arch: inspect(compiler, arch, Path(folder)), parsed.architectures))
        if parsed.ptx:
            parsed.ptx.mkdir(parents=True, exist_ok=True)
            for file in Path(folder).glob("*.ptx"):
                shutil.copy(file, parsed.ptx)

    print(f"{'':7}{'kernel':<28}{'registers':>10}{'shared bytes':>14}{'stack':>7}{'spilled':>9}")
    for architecture, (used, _) in zip(parsed.architectures, results, strict=True):
        for kernel in sorted(used):
            name, *numbers = kernel
            cells = "".join(f"{n:>{w}}" for n, w in zip(numbers, (10, 14, 7, 9), strict=True))
            print(f"sm_{architecture:<4}{name:<28}{cells}")
    wrong = [
        f"sm_{a}: {what}"
        for a, (_, found) in zip(parsed.architectures, results, strict=True)
        for what in found
    ]
    for what in wrong:
        print(what, file=sys.stderr)
    if not wrong:
        print(
            f"{len(KERNELS)} kernels for {', '.join(f'sm_{a}' for a in parsed.architectures)}: all entry "
            "points, nothing spilled, IEEE arithmetic"
        )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
