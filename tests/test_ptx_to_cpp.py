"""PTX as C++: what is not followed to the bit is refused; `dev.py cuda` shows that the rest is right."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from types import ModuleType

SCRIPT = Path(__file__).parents[1] / "tools" / "ptx_to_cpp.py"

if not SCRIPT.is_file():  # the tests of an installed package, without the checkout around them
    pytest.skip("tools/ is not here", allow_module_level=True)


@pytest.fixture(scope="module")
def ptx_to_cpp() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ptx_to_cpp", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def kernel(*instructions: str) -> str:
    body = "".join(f"\t{instruction}\n" for instruction in instructions)
    return f".visible .entry some_kernel(\n\t.param .align 8 .b8 some_kernel_param_0[8]\n)\n{{\n{body}\n}}\n"


FLOATS = ("mov.f32 %f1, 0f3F800000;", "mov.f32 %f2, 0f40000000;")


@pytest.mark.parametrize(
    ("instruction", "what"),
    [
        ("fma.rn.f32 %f3, %f1, %f2, %f1;", "fma.rn.f32"),
        ("mad.rn.f32 %f3, %f1, %f2, %f1;", "mad.rn.f32"),
        ("add.f32 %f3, %f1, %f2;", "add.f32"),
        ("add.rz.f32 %f3, %f1, %f2;", "add.rz.f32"),
        ("add.rn.ftz.f32 %f3, %f1, %f2;", "add.rn.ftz.f32"),
        ("div.approx.f32 %f3, %f1, %f2;", "div.approx.f32"),
        ("rcp.approx.f32 %f3, %f1;", "rcp.approx.f32"),
        ("ex2.approx.f32 %f3, %f1;", "ex2.approx.f32"),
        ("min.f32 %f3, %f1, %f2;", "min.f32"),
        ("cvt.rni.s32.f32 %r1, %f1;", "cvt.rni.s32.f32"),
        ("bar.sync 1;", "bar.sync"),
        ("atom.global.max.u32 %r1, [%rd1], %r1;", "atom.global.max.u32"),
        ("mov.u32 %r1, %laneid;", "%laneid"),
        ("add.rn.f32 %f3, %f1, %f9;", "f_9"),  # which nothing writes
    ],
)
def test_what_is_not_followed_is_refused(ptx_to_cpp: ModuleType, instruction: str, what: str) -> None:
    with pytest.raises(ValueError, match=r"^some_kernel: .*" + what.replace(".", r"\.")):
        ptx_to_cpp.translate(kernel(*FLOATS, instruction, "ret;"))


def test_whether_a_shuffle_was_in_range_must_not_be_asked(ptx_to_cpp: ModuleType) -> None:
    shuffle = ("mov.u32 %r1, 31;", "shfl.sync.down.b32 %r2|%p1, %r1, %r1, %r1, %r1;")
    assert "__shfl_down_sync(r_1, r_1, (r_1))" in ptx_to_cpp.translate(kernel(*shuffle, "ret;"))
    with pytest.raises(ValueError, match="what would write p_1"):
        ptx_to_cpp.translate(kernel(*shuffle, "@%p1 ret;"))


def test_nan_compares_as_in_ptx(ptx_to_cpp: ModuleType) -> None:
    code = ptx_to_cpp.translate(kernel(*FLOATS, "setp.gt.f32 %p1, %f1, %f2;", "setp.leu.f32 %p2, %f1, %f2;"))
    assert "p_1 = f_1 > f_2;" in code
    assert "p_2 = f_1 != f_1 || f_2 != f_2 || f_1 <= f_2;" in code
