"""The look into compiled CUDA kernels: what it finds in made-up files, and what it says of ours."""

from __future__ import annotations

import importlib.util
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from types import ModuleType

SCRIPT = Path(__file__).parents[1] / "tools" / "inspect_cuda.py"

if not SCRIPT.is_file():  # the tests of an installed package, without the checkout around them
    pytest.skip("tools/ is not here", allow_module_level=True)


@pytest.fixture(scope="module")
def inspect_cuda() -> ModuleType:
    spec = importlib.util.spec_from_file_location("inspect_cuda", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def elf(*symbols: tuple[str, int, int]) -> bytes:
    """An ELF file of nothing but symbols: (name, type, st_other)."""
    names, table = b"\0", struct.pack("<IBBHQQ", 0, 0, 0, 0, 0, 0)
    for name, kind, other in symbols:
        table += struct.pack("<IBBHQQ", len(names), 1 << 4 | kind, other, 5, 0, 8)
        names += name.encode() + b"\0"
    header = struct.pack(
        "<4sBBBB8xHHIQQQIHHHHHH", b"\x7fELF", 2, 1, 1, 0, 2, 190, 1, 0, 0, 64, 0, 64, 0, 0, 64, 3, 2
    )
    start = 64 + 3 * 64
    sections = [
        (0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
        (0, 2, 0, 0, start + len(names), len(table), 2, 0, 8, 24),
        (0, 3, 0, 0, start, len(names), 0, 0, 1, 0),
    ]
    return header + b"".join(struct.pack("<IIQQQQIIQQ", *s) for s in sections) + names + table


def test_entry_points_are_the_functions_that_a_host_can_launch(inspect_cuda: ModuleType) -> None:
    cubin = elf(("scan", 2, 0x10), ("helper", 2, 0), (".text.scan", 3, 0x10), ("sort", 2, 0x10 | 1))
    assert inspect_cuda.entry_points(cubin) == ["scan", "sort"]
    with pytest.raises(ValueError, match="not a 64-bit"):
        inspect_cuda.entry_points(b"\x7fELF\x01" + cubin[5:])


@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        ("retinaface_scan", "retinaface_scan"),
        ("_Z4scanPKf", "scan"),
        ("_ZN10retinaface4cuda40_GLOBAL__N__65fde8d8_8_trial_cu_e47613d811kernel_sortEPKf", "kernel_sort"),
        ("_ZN1a6sorterILi2EEEvPf", "sorter"),
    ],
)
def test_a_kernel_is_known_by_its_own_name(inspect_cuda: ModuleType, symbol: str, name: str) -> None:
    assert inspect_cuda.plain_name(symbol) == name


def test_missing_and_unknown_kernels_are_named(inspect_cuda: ModuleType) -> None:
    found = inspect_cuda.differences(["_Z4scanPKf", "other"], frozenset({"scan", "sort"}))
    assert found == ["no entry point sort", "entry point other is not in KERNELS of tools/inspect_cuda.py"]


@pytest.mark.parametrize(
    "instruction",
    [
        *(
            "fma.rn.f32",
            "mad.rn.f32",
            "ex2.approx.f32",
            "div.full.f32",
            "add.rn.ftz.f32",
            "rcp.approx.ftz.f32",
        ),
        # What ptxas may fuse, because it does not say how it rounds; and what rounds otherwise.
        *("add.f32", "mul.f32", "sub.f64", "mul.rz.f32"),
    ],
)
def test_arithmetic_that_the_host_does_not_repeat(inspect_cuda: ModuleType, instruction: str) -> None:
    exact = "{ div.rn.f32 %f3, %f1, %f2; mul.rn.f32 %f1, %f1, %f2; add.s64 %rd1, %rd1, 4; // fma.rn.f32\n"
    exact += "mad.lo.s32 %r1, %r2, %r3, %r4; cvt.rn.f32.s32 %f4, %r1; setp.gt.f32 %p1, %f1, %f2;"
    assert inspect_cuda.inexact(exact) == []
    assert inspect_cuda.inexact(f"{exact}\n\t{instruction} %f1, %f2, %f3;") == [instruction]


def test_resources_of_each_kernel(inspect_cuda: ModuleType) -> None:
    said = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'scan' for 'sm_90'
ptxas info    : Function properties for scan
    16 bytes stack frame, 4 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 31 registers, used 1 barriers, 16 bytes cumulative stack size, 128 bytes smem
ptxas info    : Compiling entry function '_Z4sortv' for 'sm_90'
ptxas info    : Function properties for _Z4sortv
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 8 registers, used 0 barriers
"""
    assert inspect_cuda.resources(said) == [("scan", 31, 128, 16, 12), ("sort", 8, 0, 0, 0)]


def test_without_a_compiler_it_says_so(
    inspect_cuda: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUDACXX", "no-such-compiler")
    assert inspect_cuda.main([]) == 2
    assert inspect_cuda.main(["--if-present"]) == 0
    assert "no nvcc" in capsys.readouterr().out


def test_our_kernels(inspect_cuda: ModuleType, capfd: pytest.CaptureFixture[str]) -> None:
    if inspect_cuda.find_nvcc() is None:
        pytest.skip("no nvcc")
    if sys.platform == "win32":
        pytest.skip("not tried on Windows")
    assert inspect_cuda.main(["--architectures", "90"]) == 0, capfd.readouterr().err
    table = capfd.readouterr().out
    for name in inspect_cuda.KERNELS:
        assert f"sm_90  {name} " in table
